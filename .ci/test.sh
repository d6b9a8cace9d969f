#!/usr/bin/env bash
# Runs the tests that need no service, on every system and Rust: `.ci/test.sh`.
#
# What must not compile is left to tests/run.sh, because the words of the compiler differ from version to
# version.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests set the secret that they need.
unset SESSION_SECRET SESSION_ACCEPT
cargo test --all-features --no-fail-fast -- --skip what_must_not_compile
cargo test --no-default-features
