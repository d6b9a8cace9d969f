#!/usr/bin/env bash
# axe-core for the browser tests: `tests/services/axe.sh DIR` downloads it into DIR, unless it is there, and
# prints the path of its script. It is in a wheel on PyPI; its licence (MPL-2.0) keeps it out of this
# repository.
set -euo pipefail

wheel=axe-playwright-python==0.1.8
sha256=84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc
dir=$1/axe-$sha256

if [ ! -e "$dir/axe.min.js" ]; then
    new=$(mktemp -d)
    trap 'rm -rf "$new"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$new" "$wheel" >&2
    python3 -m zipfile -e "$new"/*.whl "$new/wheel"
    echo "$sha256 $new/wheel/axe_playwright_python/axe.min.js" | sha256sum --check --quiet >&2
    mkdir -p "$dir"
    # In one step, because another test may do the same.
    mv "$new/wheel/axe_playwright_python/axe.min.js" "$dir/axe.min.js.$$"
    mv "$dir/axe.min.js.$$" "$dir/axe.min.js"
fi
echo "$dir/axe.min.js"
