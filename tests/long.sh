#!/usr/bin/env bash
# Runs at full length what `tests/run.sh` runs for seconds: `tests/long.sh`, about an hour with its builds
# and 60 seconds of fuzzing for each target; `tests/long.sh 3600` fuzzes each for an hour.
#
# In release mode, one after another, and it prints the figures of each:
# - swaps: on each framework a minute each of 10,000 requests a second or more while the manager is
#   replaced every 10 ms: its keys change, sessions move from cookies to Redis and back, and to Redis
#   (`tests/swap_under_load.rs`);
# - soak: ten minutes each of mixed traffic on memory, Redis and PostgreSQL, on MariaDB and SQLite, and on a
#   cluster and behind Sentinels, while they are killed, stopped, restarted, failed over, cut off, slow and
#   locked (`tests/soak.rs`);
# - fuzzing of every target (`fuzz/run.sh`).
#
# SWAP_SECONDS=60 SWAP_RATE=10000 SOAK_SECONDS=600 FUZZ_SECONDS=60 are the defaults. It needs two idle
# cores, and Redis, PostgreSQL and MariaDB, which `tests/run.sh` installs on Debian and Ubuntu.
set -euo pipefail
cd "$(dirname "$0")/.."

unset SESSION_SECRET SESSION_ACCEPT
export CARGO_TERM_COLOR=never
export SWAP_SECONDS=${SWAP_SECONDS:-60} SWAP_RATE=${SWAP_RATE:-10000} SOAK_SECONDS=${SOAK_SECONDS:-600}
fuzz_seconds=${1:-${FUZZ_SECONDS:-60}}

for test in swap_under_load soak; do
    cargo test --quiet --release --all-features --test "$test" -- --include-ignored --nocapture --test-threads=1
done
fuzz/run.sh "$fuzz_seconds"
printf '\nAll passed in %d s.\n' "$SECONDS"
