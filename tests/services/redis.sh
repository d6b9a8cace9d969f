# Source this file. `start_redis DIR` starts a single Redis, a cluster of three masters with one replica
# each, and a master with a replica and three Sentinels, on free loopback ports with their data below
# DIR. It exports SESSION_TEST_REDIS, SESSION_TEST_REDIS_CLUSTER and SESSION_TEST_REDIS_SENTINEL, and
# adds the process ids to the array `service_pids`. On failure it prints the cause. Each of the three
# has its own function, for tests that break their servers.

# redis_ports COUNT: prints COUNT free ports of 127.0.0.1 whose cluster bus ports (10,000 higher) are
# free too.
redis_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys
def free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
found = []
while len(found) < int(sys.argv[1]):
    # Below the ephemeral ports of clients.
    port = random.randrange(11000, 22000)
    if port not in found and free(port) and free(port + 10000):
        found.append(port)
print(*found)
PYTHON
}

# redis_server PORT DIR OPTIONS...: starts a server in the background.
redis_server() {
    local port=$1 dir=$2/$1
    shift 2
    mkdir -p "$dir"
    # What starts it again after it was killed.
    echo "$port $*" >"$dir/options"
    redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' --appendonly no \
        --logfile "$dir/log" ${REDIS_DURABLE:+--appendonly yes --appendfsync always} "$@" >/dev/null 2>&1 &
    service_pids+=($!)
}

# redis_until WHAT COMMAND...: waits at most 15 seconds for the command to succeed.
redis_until() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 150 ]; then
            echo "start_redis: $what is not ready after 15 seconds" >&2
            return 1
        fi
        sleep 0.1
    done
}

redis_says() { # PORT PATTERN COMMAND...
    local port=$1 pattern=$2
    shift 2
    redis-cli -h 127.0.0.1 -p "$port" "$@" 2>/dev/null | grep -q "$pattern"
}

start_redis() {
    start_redis_single "$1" && start_redis_cluster "$1" && start_redis_sentinel "$1"
}

redis_programs() {
    local program
    for program in redis-server redis-sentinel redis-cli python3; do
        command -v "$program" >/dev/null || {
            echo "start_redis: $program is missing (Debian: redis-server, redis-sentinel, redis-tools, python3)" >&2
            return 1
        }
    done
}

start_redis_single() {
    local dir=$1/redis port
    redis_programs || return 1
    port=$(redis_ports 1) || return 1
    redis_server "$port" "$dir"
    redis_until "the server on port $port" redis_says "$port" PONG ping || return 1
    export SESSION_TEST_REDIS="redis://127.0.0.1:$port"
}

start_redis_cluster() {
    local dir=$1/redis found port patience=1000
    # Killed for a moment, it is not failed over.
    [ -z "${REDIS_DURABLE:-}" ] || patience=20000
    redis_programs || return 1
    found=$(redis_ports 6) || return 1
    local ports=($found)
    for port in "${ports[@]}"; do
        redis_server "$port" "$dir" --cluster-enabled yes --cluster-node-timeout "$patience" \
            --cluster-config-file "$dir/$port/nodes.conf" --repl-diskless-sync-delay 0
    done
    for port in "${ports[@]}"; do
        redis_until "the server on port $port" redis_says "$port" PONG ping || return 1
    done
    redis-cli --cluster create "${ports[@]/#/127.0.0.1:}" --cluster-replicas 1 --cluster-yes \
        >"$dir/cluster.log" 2>&1 || { cat "$dir/cluster.log" >&2; return 1; }
    for port in "${ports[@]}"; do
        redis_until "the cluster, by port $port" redis_says "$port" cluster_state:ok cluster info || return 1
    done
    # If a master is killed before its replica follows it, its slots are lost.
    for port in "${ports[@]:3}"; do
        redis_until "the replica on port $port" redis_says "$port" master_link_status:up info replication || return 1
    done
    export SESSION_TEST_REDIS_CLUSTER="redis+cluster://127.0.0.1:${ports[0]},127.0.0.1:${ports[1]},127.0.0.1:${ports[2]}"
}

start_redis_sentinel() {
    local dir=$1/redis found port patience=1000
    [ -z "${REDIS_DURABLE:-}" ] || patience=20000
    redis_programs || return 1
    found=$(redis_ports 5) || return 1
    local ports=($found)
    local master=${ports[0]} replica=${ports[1]} sentinels=("${ports[@]:2}")
    redis_server "$master" "$dir" --repl-diskless-sync-delay 0
    redis_until "the master on port $master" redis_says "$master" PONG ping || return 1
    redis_server "$replica" "$dir" --repl-diskless-sync-delay 0 --replicaof "127.0.0.1 $master"
    redis_until "the replica on port $replica" redis_says "$replica" master_link_status:up info replication || return 1
    for port in "${sentinels[@]}"; do
        mkdir -p "$dir/$port"
        cat >"$dir/$port/sentinel.conf" <<CONF
bind 127.0.0.1
port $port
dir $dir/$port
logfile $dir/$port/log
sentinel monitor session 127.0.0.1 $master 2
sentinel down-after-milliseconds session $patience
sentinel failover-timeout session 5000
CONF
        redis-sentinel "$dir/$port/sentinel.conf" >/dev/null 2>&1 &
        service_pids+=($!)
    done
    for port in "${sentinels[@]}"; do
        redis_until "the Sentinel on port $port" redis_says "$port" 'status=ok.*slaves=1,sentinels=3' info sentinel || return 1
    done
    export SESSION_TEST_REDIS_SENTINEL="redis+sentinel://127.0.0.1:${sentinels[0]},127.0.0.1:${sentinels[1]},127.0.0.1:${sentinels[2]}/session"
}
