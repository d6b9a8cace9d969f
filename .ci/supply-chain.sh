#!/usr/bin/env bash
# Checks what this crate is built on: `.ci/supply-chain.sh`, or one part of it by name.
#
#   deny      licences, sources and crates that must not be there twice or at all, as deny.toml says,
#             and RustSec's advisories where their database can be reached
#   oldest    the oldest versions that Cargo.toml admits build; of direct dependencies, because what
#             those ask of theirs is not ours to mend
#   rust      the oldest Rust that Cargo.toml admits builds every feature
#
# A part that cannot be checked here, because its tool is missing or the advisories' database cannot be
# fetched, prints a line `NOT CHECKED: …`; with STRICT=1 it fails instead. tests/run.sh runs `deny`, which
# takes seconds, and counts those lines in its summary; the others compile everything once more, in
# folders that they delete.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

left_out() {
    echo "NOT CHECKED: $1"
    [ -z "${STRICT:-}" ]
}

deny() {
    if ! command -v cargo-deny >/dev/null; then
        left_out 'licences, sources, advisories: cargo install --locked cargo-deny'
        return
    fi
    cargo deny --log-level error --all-features check licenses bans sources
    # Only a database that cannot be fetched is no failure: an advisory is.
    if cargo deny --log-level error --all-features check advisories >"$work/log" 2>&1; then
        echo 'advisories ok'
    elif grep -q 'failed to fetch advisory database' "$work/log"; then
        left_out 'advisories (database could not be fetched)'
    else
        cat "$work/log"
        return 1
    fi
}

# A copy of what is published, and of no test: what tests need is not asked of a dependent.
copy() {
    cp -r build.rs src docs README.md LICENSE-MIT LICENSE-APACHE "$work"
    awk '/^\[/ { skip = /^\[(dev-dependencies|workspace|\[)/ } !skip' Cargo.toml >"$work/Cargo.toml"
}

oldest() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        left_out 'the oldest versions: rustup toolchain install nightly'
        return
    fi
    copy
    (
        cd "$work"
        cargo +nightly update --quiet -Z direct-minimal-versions
        CARGO_TARGET_DIR="$work/target" cargo check --quiet --lib --all-features
    )
    echo 'the oldest versions build'
}

rust() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! cargo "+$version" --version >/dev/null 2>&1; then
        left_out "Rust $version: rustup toolchain install $version --profile minimal"
        return
    fi
    CARGO_TARGET_DIR="$work/target" cargo "+$version" check --quiet --lib --all-features --locked
    echo "Rust $version builds it"
}

[ $# -gt 0 ] || set -- deny oldest rust
for part in "$@"; do
    case $part in
    deny | oldest | rust) "$part" ;;
    *) echo "no part is called $part: see the head of this file" >&2 && exit 2 ;;
    esac
done
