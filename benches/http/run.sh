#!/usr/bin/env bash
# What sessions cost over HTTP, beside actix-session, tower-sessions and plain statements:
# `benches/http/run.sh`. Writes the tables of docs/benchmarks.md and draws docs/overhead.svg.
#
# Servers with one thread on core 0; `wrk` with 32 connections and the stores, which are started for this,
# on core 1; servers with two threads on both. Everything stays on 127.0.0.1. A session has three keys, of
# which `read` reads all, and `write` changes all. How it measures: measure.py.
#
#   ROUNDS=5 DURATION=1   rounds, and the seconds of each figure: about 10 minutes
#   SESSIONS=1000         sessions that are read, and as many that are written
#   ONLY='Redis; write'   only what matches this: SCENARIO; ROW; REQUEST. Prints the tables and leaves the
#                         page as it is, as PREVIEW=1 does.
#
# Needs two cores, both idle. On Debian, as root, it installs the programs that it needs and does not find.
set -euo pipefail
cd "$(dirname "$0")"
root=$(realpath ../..)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export PATH=$PATH:/usr/sbin

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

missing=()
for need in wrk:wrk redis-server:redis-server python3:python3 mariadbd:mariadb-server; do
    command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || { echo "missing: ${missing[*]}" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

cargo build --quiet --release --locked
source "$root/tests/services/redis.sh"
source "$root/tests/services/sql.sh"
start_redis_single "$work"
start_postgres "$work"
start_mariadb "$work"
for pid in "${service_pids[@]}"; do
    taskset -acp 1 "$pid" >/dev/null
done
export BENCH_WORK=$work BENCH_SQLITE=$work
export BENCH_REDIS=$SESSION_TEST_REDIS BENCH_REDIS_PID=${service_pids[0]}
export BENCH_POSTGRES=$SESSION_TEST_POSTGRES BENCH_POSTGRES_PID=${service_pids[1]}
export BENCH_MYSQL=$SESSION_TEST_MYSQL BENCH_MYSQL_PID=${service_pids[2]}
export BENCH_POSTGRES_VERSION=$(/usr/lib/postgresql/*/bin/postgres --version | tail -n 1)
export BENCH_PORTS=$(redis_ports 40)
export PYTHONDONTWRITEBYTECODE=1
python3 measure.py
