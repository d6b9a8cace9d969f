#!/usr/bin/env bash
# Runs what can be run under Miri: `tests/miri.sh`. It needs `rustup component add miri rust-src
# --toolchain nightly`, and on two cores up to an hour, much of it to build; tests/run.sh leaves it out.
#
# This crate has no `unsafe`. What it stands on has (arc-swap, imbl, hashlink, the executors), and
# Miri checks that as it is used here: memory, data races, what is never freed, and on each thread the
# orders of memory that a processor may choose. Tests of threads and schedules run fewer rounds there
# (`cfg!(miri)`).
#
# Not run: whatever has a socket, a process or a foreign library in it, which is every other test
# binary; and the tests of `backend::cookies` that try every cut of a sealed cookie, whose
# cryptography takes Miri over ten minutes each and has no thread in it.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo +nightly miri --version >/dev/null 2>&1 || {
    echo 'Miri is missing: rustup component add miri rust-src --toolchain nightly' >&2
    exit 1
}
# The clock and the operating system's randomness.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"

miri() {
    printf '\n== %s (%ds)\n' "$*" "$SECONDS"
    cargo +nightly miri test --quiet --no-default-features "$@"
}

miri --lib
with=(--features actix,axum,cookies,memory,tracing)
miri "${with[@]}" --lib -- --skip backend::cookies
miri "${with[@]}" --test global_scopes
miri "${with[@]}" --test races interleavings::
