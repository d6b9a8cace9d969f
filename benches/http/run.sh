#!/usr/bin/env bash
# What sessions cost over HTTP, beside actix-session and tower-sessions: `benches/http/run.sh`.
#
# Ten servers, each with one thread on core 0, and for each framework a bare one among them; `wrk` with
# 32 connections on core 1, and there too a Redis that is started for this. Everything stays on 127.0.0.1.
# Each round asks every server for every row of the tables, one after another. They show medians over
# the rounds: requests per second, and the shares of what the bare application on the same framework
# serves; what ours serve for each request of their peers; the processor time that a request takes of
# its server and of Redis, which depends less on what else runs; and the commands that Redis counts for
# it. A session has three keys, of which `read` reads all, and `write` changes all.
#
# ROUNDS=5 DURATION=4 (seconds for each figure) take about 11 minutes. Needs two cores, both idle.
# On Debian, as root, it installs the programs that it needs and does not find.
set -euo pipefail
cd "$(dirname "$0")"
root=$(realpath ../..)
rounds=${ROUNDS:-5}
duration=${DURATION:-4}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}

actix='actix-bare actix-ours-signed actix-session-signed actix-ours-redis actix-session-redis'
axum='axum-bare axum-ours-memory tower-sessions-memory axum-ours-redis tower-sessions-redis'
paths='untouched read-three write-three'

work=$(mktemp -d)
service_pids=()
clean_up() {
    # Only what was started here, by its id.
    [ ${#service_pids[@]} -eq 0 ] || kill "${service_pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $1" >&2
    exit 1
}

missing=()
for need in wrk:wrk redis-server:redis-server redis-cli:redis-tools curl:curl python3:python3; do
    command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || fail "missing: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

cargo build --quiet --release --locked
source "$root/tests/services/redis.sh"
read -ra ports <<<"$(redis_ports 11)"
redis=${ports[10]}
redis_server "$redis" "$work"
taskset -cp 1 "${service_pids[0]}" >/dev/null
redis_until Redis redis_says "$redis" PONG ping

# The value of a session that was just begun, if the application has any.
begin() { # PORT
    curl -sSD - -o /dev/null "http://127.0.0.1:$1/begin" | tr -d '\r' |
        sed -n 's/^set-cookie: \([^;]*\).*/\1/Ip'
}

declare -A port=() pid=() read_cookie=() write_cookie=()
for application in $actix $axum; do
    port[$application]=${ports[${#port[@]}]}
    at=${port[$application]}
    taskset -c 0 "$CARGO_TARGET_DIR/release/http-bench" "$application" "$at" "redis://127.0.0.1:$redis" \
        2>"$work/log" &
    pid[$application]=$!
    service_pids+=($!)
    redis_until "$application" curl -sSf "http://127.0.0.1:$at/untouched" || { cat "$work/log"; exit 1; }
    read_cookie[$application]=$(begin "$at")
    write_cookie[$application]=$(begin "$at")
    case $application in
    *-bare) ;;
    *) [ -n "${write_cookie[$application]}" ] || fail "$application began no session" ;;
    esac
done

# cookie APPLICATION PATH: a session to be read, and another to be written.
cookie() {
    case $2 in
    write-*) echo "Cookie: ${write_cookie[$1]:-bare=application}" ;;
    *) echo "Cookie: ${read_cookie[$1]:-bare=application}" ;;
    esac
}

# Each server does what it is asked; and what Redis counts for that.
commands=''
for application in $actix $axum; do
    for path in $paths; do
        for count in {0..10}; do
            # The first may bring Redis a script that it has not seen.
            [ "$count" -ne 1 ] || redis-cli -p "$redis" config resetstat >/dev/null
            curl -sSf -o "$work/body" -D "$work/head" -H "$(cookie "$application" "$path")" \
                "http://127.0.0.1:${port[$application]}/$path" || fail "$application $path"
        done
        redis-cli -p "$redis" info commandstats | tr -d '\r' >"$work/commands"
        grep -q done "$work/body" || fail "$application $path"
        case $application-$path in
        *-bare-*) ;;
        *-write-three)
            # What it wrote is there: in the cookie that it sent, or behind the one that it was sent.
            written=$(tr -d '\r' <"$work/head" | sed -n 's/^set-\(cookie: [^;]*\).*/\1/Ip')
            curl -sSf -o /dev/null -H "${written:-$(cookie "$application" "$path")}" \
                "http://127.0.0.1:${port[$application]}/written" || fail "$application wrote nothing"
            ;;
        *)
            ! grep -qi '^set-cookie' "$work/head" || fail "$application set a cookie for $path"
            ;;
        esac
        case $application in
        *-redis)
            counted=$(awk -F '[_:=,]' '/^cmdstat/ && $2 !~ /^(config|info)/ {
                printf "%s%s %g", n++ ? ", " : "", $2, $4 / 10 }' "$work/commands")
            commands+="| $application | $path | ${counted:-none} |"$'\n'
            ;;
        esac
    done
done

# The processor time of a process so far, in microseconds.
processor() { # PID
    awk -v hertz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / hertz * 1e6 }' "/proc/$1/stat"
}

for ((round = 0; round < rounds; round++)); do
    for path in $paths; do
        for application in $actix $axum; do
            before=$(processor "${pid[$application]}")
            redis_before=$(processor "${service_pids[0]}")
            taskset -c 1 wrk -t 1 -c 32 -d "$duration" -H "$(cookie "$application" "$path")" \
                "http://127.0.0.1:${port[$application]}/$path" >"$work/wrk" || fail "wrk $application $path"
            ! grep -q 'Non-2xx\|Socket errors' "$work/wrk" || { cat "$work/wrk"; fail "$application $path"; }
            awk -v what="$application $path" -v spent="$(processor "${pid[$application]}") - $before" \
                -v redis="$(processor "${service_pids[0]}") - $redis_before" '
                function difference(text) { split(text, part, " - "); return part[1] - part[2] }
                / requests in / { requests = $1 }
                /^Requests\/sec/ { print what, $2, difference(spent) / requests, difference(redis) / requests }
                ' "$work/wrk" >>"$work/figures"
        done
    done
done

grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: //' || true
echo "$rounds rounds of $duration s; 32 connections; one server thread."
awk -v order="$actix $axum" -v paths="$paths" '
    { for (i = 3; i <= 5; i++) figure[$1, $2, i, NR] = $i; lines[$1, $2] = lines[$1, $2] " " NR }
    # Of requests per second (3), of the microseconds of the server (4) and of Redis (5).
    function median(application, path, what,    n, line, i, j, it, sorted) {
        n = split(lines[application, path], line, " ")
        for (i = 1; i <= n; i++) {
            it = figure[application, path, what, line[i]]
            for (j = i; j > 1 && sorted[j - 1] > it; j--) sorted[j] = sorted[j - 1]
            sorted[j] = it
        }
        return sorted[int((n + 1) / 2)]
    }
    function head(title) { print "\n| " title " | untouched | read | write |\n|---|---|---|---|" }
    END {
        applications = split(order, application, " ")
        columns = split(paths, path, " ")
        head("requests per second (share of the bare)")
        for (i = 1; i <= applications; i++) {
            if (application[i] ~ /-bare$/) bare = application[i]
            line = "| " application[i] " |"
            for (c = 1; c <= columns; c++) {
                it = median(application[i], path[c], 3)
                line = line sprintf(" %d (%.2f) |", it, it / median(bare, path[c], 3))
            }
            print line
        }
        head("for each request of the peer")
        for (i = 1; i < applications; i++) {
            if (application[i] !~ /-ours-/) continue
            line = "| " application[i] " / " application[i + 1] " |"
            for (c = 1; c <= columns; c++)
                line = line sprintf(" %.2f |", median(application[i], path[c], 3) / median(application[i + 1], path[c], 3))
            print line
        }
        head("microseconds of processor per request (of Redis)")
        for (i = 1; i <= applications; i++) {
            line = "| " application[i] " |"
            for (c = 1; c <= columns; c++) {
                line = line sprintf(" %.1f", median(application[i], path[c], 4))
                if (application[i] ~ /-redis$/) line = line sprintf(" (%.1f)", median(application[i], path[c], 5))
                line = line " |"
            }
            print line
        }
    }' "$work/figures"

echo
echo 'What a script of the store calls inside of Redis counts here too, and takes no round trip.'
echo
echo '| | request | commands of Redis for it |'
echo '|---|---|---|'
printf '%s' "$commands"
