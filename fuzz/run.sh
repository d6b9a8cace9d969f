#!/usr/bin/env bash
# Runs every fuzz target for the given number of seconds, without `cargo fuzz`: `fuzz/run.sh 7`.
#
# The corpus is kept in the target folder and reused by the next run.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?missing argument: the number of seconds per target}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../target}
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --quiet --release
for target in $(basename -s .rs fuzz_targets/*.rs); do
    corpus="$CARGO_TARGET_DIR/fuzz/$target"
    found="$CARGO_TARGET_DIR/fuzz/found/$target-"
    mkdir -p "$corpus" "$(dirname "$found")"
    printf '\n%s: ' "$target"
    "$CARGO_TARGET_DIR/$host/release/$target" "$corpus" "seeds/$target" \
        -max_total_time="$seconds" -timeout=300 -max_len=8192 -verbosity=1 -print_final_stats=1 \
        -artifact_prefix="$found" >"$found"log 2>&1 ||
        { tail -n 40 "$found"log; exit 1; }
    awk '/DONE/ { cov = $4; ft = $6; corp = $8 }
         /number_of_executed_units/ { n = $2 } /average_exec/ { s = $2 }
         END { print n " inputs, " s " a second, " cov " edges, " ft " features, corpus " corp }' "$found"log
done
