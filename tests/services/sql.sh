#!/usr/bin/env bash
# Throw-away databases for the tests of the SQL stores; sourced by tests/run.sh.
#
#   start_postgres DIR   exports SESSION_TEST_POSTGRES (a url)
#   restart_postgres DIR, stop_postgres DIR
#                        restart or stop a server that start_postgres started
#   start_mariadb DIR    exports SESSION_TEST_MYSQL (a url)
#   begin_mariadb DIR    starts it again after a stop or kill
#
# Each server keeps its data below DIR and listens on a free port of 127.0.0.1. The functions wait until
# it is ready and append its process id to the array service_pids. On failure they print the cause and
# return 1.

declare -ga service_pids

# free_port: prints a port of 127.0.0.1 without a listener.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

# service_user NAME: prints the prefix to run a command as NAME, as some servers refuse to run as root.
service_user() {
    [ "$(id -u)" -eq 0 ] || return 0
    id "$1" >/dev/null 2>&1 || { echo "the server cannot run as root, and the user $1 does not exist: create it" >&2; return 1; }
    echo "setpriv --reuid=$1 --regid=$1 --clear-groups --"
}

# wait_ready PID LOG COMMAND...: waits until the command succeeds, at most 30 seconds and while the
# process lives.
wait_ready() {
    local pid=$1 log=$2
    for _ in {1..300}; do
        if "${@:3}" >/dev/null 2>&1; then return 0; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server did not start; its log ends with:" >&2
    tail -n 20 "$log" >&2
    return 1
}

start_postgres() {
    local dir=$1 bin as port
    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    [ -x "$bin/postgres" ] || { echo 'PostgreSQL is missing (Debian: postgresql)' >&2; return 1; }
    as=$(service_user postgres) || return 1
    port=$(free_port) || { echo 'no free port' >&2; return 1; }
    mkdir -p "$dir/postgres"
    if [ -n "$as" ]; then
        chown postgres "$dir/postgres"
        chmod o+x "$dir"
    fi
    # shellcheck disable=SC2086 # $as is several words
    $as "$bin/initdb" --pgdata "$dir/postgres/data" --username test --auth trust --encoding UTF8 \
        --locale C --no-sync >"$dir/postgres.initdb.log" 2>&1 ||
        { cat "$dir/postgres.initdb.log" >&2; return 1; }
    cat >>"$dir/postgres/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
fsync = off
full_page_writes = off
shared_preload_libraries = 'pg_stat_statements'
CONF
    # A direct child process instead of pg_ctl, so that its id is known.
    # shellcheck disable=SC2086
    (cd / && exec $as "$bin/postgres" -D "$dir/postgres/data") >"$dir/postgres.log" 2>&1 &
    service_pids+=($!)
    wait_ready $! "$dir/postgres.log" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -d postgres || return 1
    export SESSION_TEST_POSTGRES="postgres://test@127.0.0.1:$port/postgres"
}

# For the test of a restart, which uses its own server so that the others stay up.
restart_postgres() { control_postgres restart "$1"; }
stop_postgres() { control_postgres stop "$1"; }

control_postgres() {
    local bin
    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    # shellcheck disable=SC2046 # several words
    (cd / && $(service_user postgres) "$bin/pg_ctl" "$1" --wait --timeout 30 --mode fast \
        --pgdata "$2/postgres/data" --log "$2/postgres/log") >/dev/null
}

start_mariadb() {
    local dir=$1 as port
    PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null ||
        { echo 'MariaDB is missing (Debian: mariadb-server)' >&2; return 1; }
    as=$(service_user mysql) || return 1
    port=$(free_port) || { echo 'no free port' >&2; return 1; }
    mkdir -p "$dir/mariadb"
    echo "$port" >"$dir/mariadb/port"
    if [ -n "$as" ]; then
        chown mysql "$dir/mariadb"
        chmod o+x "$dir"
    fi
    # A starting server deletes all temporary tables in its folder, so each needs its own.
    # shellcheck disable=SC2086 # $as is several words
    $as mariadb-install-db --no-defaults --datadir="$dir/mariadb/data" --tmpdir="$dir/mariadb" \
        --auth-root-authentication-method=normal --skip-test-db >"$dir/mariadb.install.log" 2>&1 ||
        { cat "$dir/mariadb.install.log" >&2; return 1; }
    # The server runs each line as a statement at every start. A user with all rights can write even
    # if the server is read-only; `app` cannot.
    cat >"$dir/mariadb/init.sql" <<'SQL'
CREATE DATABASE IF NOT EXISTS sessions;
CREATE USER IF NOT EXISTS test@'127.0.0.1' IDENTIFIED BY 'secret-of-the-tests';
GRANT ALL ON *.* TO test@'127.0.0.1';
CREATE USER IF NOT EXISTS app@'127.0.0.1' IDENTIFIED BY 'secret-of-the-tests';
GRANT ALL ON sessions.* TO app@'127.0.0.1';
SQL
    begin_mariadb "$dir" || return 1
    export SESSION_TEST_MYSQL="mysql://test:secret-of-the-tests@127.0.0.1:$port/sessions"
}

begin_mariadb() {
    local dir=$1 as port
    as=$(service_user mysql) || return 1
    port=$(cat "$dir/mariadb/port")
    local options=(--no-defaults --datadir="$dir/mariadb/data" --tmpdir="$dir/mariadb" --socket="$dir/mariadb/socket"
        --pid-file="$dir/mariadb/pid" --bind-address=127.0.0.1 --port="$port" --skip-name-resolve
        --innodb-flush-method=nosync --init-file="$dir/mariadb/init.sql"
        # Writes at each commit, so that a commit survives a kill, but never synchronizes the disk.
        --innodb-flush-log-at-trx-commit=2)
    [ ! -e "$dir/mariadb/options" ] || mapfile -t -O ${#options[@]} options <"$dir/mariadb/options"
    # shellcheck disable=SC2086 # $as is several words
    (cd / && PATH=$PATH:/usr/sbin exec $as mariadbd "${options[@]}") >>"$dir/mariadb.log" 2>&1 &
    service_pids+=($!)
    wait_ready $! "$dir/mariadb.log" mariadb --no-defaults --host=127.0.0.1 --port="$port" --user=test \
        --password=secret-of-the-tests --execute='SELECT 1' sessions
}
