#!/usr/bin/env bash
# Installs those of these Cargo tools that are missing: `.ci/tools.sh cargo-deny cargo-semver-checks`.
set -euo pipefail

for tool; do
    command -v "$tool" >/dev/null || cargo install --locked "$tool"
done
