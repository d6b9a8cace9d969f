#!/usr/bin/env bash
# Runs the benches and writes their tables into docs/benchmarks.md: `benches/all.sh`. About 20 minutes on
# two idle cores; `benches/build.sh` is not among them.
set -euo pipefail
cd "$(dirname "$0")/.."
for bench in overhead allocations two_threads memory_store; do
    cargo bench --quiet --features axum,memory --bench "$bench" | benches/page.py "$bench"
done
benches/sql_stores.sh | benches/page.py sql_stores
benches/http/run.sh
