#!/usr/bin/env bash
# The SQL stores, measured on throw-away databases: `benches/sql_stores.sh [calls|rows]`.
#
#   calls   each operation beside its floor, one prepared statement by primary key
#   rows    the same calls among 1,000 rows and 1,000,000, a sweep beside requests, and what an hour of
#           touches leaves behind in PostgreSQL
#
# Without an argument, both. ONLY=postgres, mysql or sqlite measures that one. Needs PostgreSQL and MariaDB
# (Debian: postgresql, mariadb-server). Neither synchronizes the disk, so that the figures are those of the
# statements and not of the disk.
set -euo pipefail
cd "$(dirname "$0")/.."
services=$(mktemp -d)
service_pids=()
# shellcheck source=tests/services/sql.sh
source tests/services/sql.sh
# shellcheck disable=SC2317 # called by the trap
end() {
    kill "${service_pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$services"
}
trap end EXIT
trap 'exit 130' INT TERM

cargo bench --quiet --features mysql,postgres,sqlite --bench sql_stores --no-run
start_postgres "$services"
start_mariadb "$services"
# Their processor time counts.
export BENCH_POSTGRES_PID=${service_pids[0]} BENCH_MYSQL_PID=${service_pids[1]}
echo "$(rustc --version), $(nproc) cores, $(psql --version), $(mariadb --version | sed 's/,.*//')"
cargo bench --quiet --features mysql,postgres,sqlite --bench sql_stores -- "$@"
