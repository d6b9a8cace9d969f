#!/usr/bin/env bash
# The programs that the tests need; sourced by tests/run.sh.
#
#   install_needs LOG    installs missing programs with apt-get, as root or through sudo. If that is not
#                        possible, it prints what is missing to standard error and returns 1.

missing_programs=()
missing_packages=()

# need PROGRAM PACKAGE [UBUNTU-PACKAGE]: records the package if the program is missing.
need() {
    local program=$1 package=$2
    [ -z "${3:-}" ] || ! is_ubuntu || package=$3
    command -v "$program" >/dev/null || missing "$program" "$package"
}

missing() {
    missing_programs+=("$1")
    missing_packages+=("$2")
}

is_ubuntu() {
    grep -qE '^(ID|ID_LIKE)=.*ubuntu' "${OS_RELEASE:-/etc/os-release}" 2>/dev/null
}

list_needs() {
    need chromium chromium chromium-browser
    need chromedriver chromium-driver chromium-chromedriver
    need redis-server redis-server
    need redis-sentinel redis-sentinel
    need redis-cli redis-tools
    need mariadbd mariadb-server
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing postgres postgresql
    need python3 python3
    # It downloads axe-core and, without valkey-server, Valkey.
    python3 -m pip --version >/dev/null 2>&1 || missing pip python3-pip
    need openssl openssl
    # The compiler for libFuzzer.
    need c++ g++
}

# as_root COMMAND...: runs a command as root, through sudo if needed. sudo may ask for a password only
# on a terminal.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

install_needs() {
    local log=$1 why='' i
    list_needs
    [ ${#missing_programs[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        why='there is no apt-get here'
    elif [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        why='this is not root, and there is no sudo'
    elif ! as_root true 2>"$log"; then
        why="sudo refuses: $(cat "$log")"
    else
        echo "installing: ${missing_packages[*]}"
        if as_root apt-get update -qq >"$log" 2>&1 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                "${missing_packages[@]}" >>"$log" 2>&1; then
            missing_programs=() missing_packages=()
            list_needs
            [ ${#missing_programs[@]} -gt 0 ] || return 0
            why="apt-get installed the packages, but PATH has no such programs"
        else
            cat "$log" >&2
            why='apt-get failed'
        fi
    fi
    echo "These programs are missing, and cannot be installed from here ($why):" >&2
    for i in "${!missing_programs[@]}"; do
        echo "    ${missing_programs[i]} (package ${missing_packages[i]})" >&2
    done
    return 1
}
