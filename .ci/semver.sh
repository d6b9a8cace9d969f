#!/usr/bin/env bash
# Compares the public interface with that of the last release, the newest tag `v*`: `.ci/semver.sh`.
#
# Without a release, or without cargo-semver-checks, it prints a line `NOT CHECKED: …`; with STRICT=1 a missing
# tool fails.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! release=$(git describe --tags --match 'v*' --abbrev=0 2>/dev/null); then
    echo 'NOT CHECKED: compatibility with the last release, because no tag v* is there'
    exit
fi
if ! command -v cargo-semver-checks >/dev/null; then
    echo 'NOT CHECKED: compatibility: cargo install --locked cargo-semver-checks'
    [ -z "${STRICT:-}" ]
    exit
fi
cargo semver-checks --baseline-rev "$release" --all-features
