#!/usr/bin/env bash
# How many instructions a request of each row of the bench `overhead` takes: `benches/instructions.sh`.
#
# valgrind counts them, so that two builds compare on a machine however busy. What the kernel does is not
# among them: a system call counts as nothing. Prints requests' averages; the second column is the
# application, and each row's cost with sessions includes that of the bare application.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bench=$(cargo bench --features axum,memory --bench overhead --no-run --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/overhead-[^"]*\)".*/\1/p')
valgrind --quiet --tool=callgrind --callgrind-out-file="$work/out" --combine-dumps=no \
    --toggle-collect='overhead::count_batch*' --dump-after='overhead::count_case*' \
    "$bench" --bench --count >"$work/cases"
# One part for each case, in their order.
number=0
while IFS=$'\t' read -r requests application row; do
    number=$((number + 1))
    count=$(sed -n 's/^totals: //p' "$work/out.$number")
    printf '%7d  %-26s  %s\n' "$((count / requests))" "$application" "$row"
done <"$work/cases"
