#!/usr/bin/env bash
# Installs a Rust toolchain and makes it the default: `.ci/rust.sh stable`, `beta`, `nightly`, or `oldest`,
# the oldest that Cargo.toml admits. For machines of CI: it changes the default of the user.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?missing argument: stable, beta, nightly or oldest}
if [ "$version" = oldest ]; then
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
fi
rustup toolchain install "$version" --profile minimal --component clippy,rustfmt
rustup default "$version"
cargo --version
