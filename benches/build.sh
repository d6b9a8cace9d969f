#!/usr/bin/env bash
# What a first build costs, beside actix-session, and the size of the program: `benches/build.sh`.
#
# Three applications of actix-web: a bare one, one with this crate, and one with actix-session's cookies,
# all with default features. For each: the crates it is built of, how long a build takes from nothing,
# with everything downloaded before, and the bytes of the stripped release build; medians over ROUNDS=3,
# the order rotating. Needs a machine on which nothing else runs, and the disk for one build at a time.
# It writes the table of docs/benchmarks.md.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
rounds=${ROUNDS:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# application NAME DEPENDENCY MIDDLEWARE HANDLER: a cargo package.
application() {
    mkdir -p "$work/$1/src"
    cat >"$work/$1/Cargo.toml" <<TOML
[package]
name = "$1"
edition = "2024"

[dependencies]
actix-web = "4"
$2
TOML
    cat >"$work/$1/src/main.rs" <<RUST
use actix_web::{App, HttpServer, web};

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    HttpServer::new(|| App::new()$3.route("/", web::get().to($4)))
        .bind(("127.0.0.1", 7000))?
        .run()
        .await
}
RUST
    cargo fetch --quiet --manifest-path "$work/$1/Cargo.toml"
}

application bare '' '' '|| async { "" }'
application ours "session-manager = { path = \"$root\" }" \
    '.wrap(session_manager::manager::middleware())' \
    '|session: session_manager::Session| async move { session.get("key").unwrap_or_default() }'
application actix-session 'actix-session = { version = "0.11", features = ["cookie-session"] }' \
    '.wrap(actix_session::SessionMiddleware::new(
            actix_session::storage::CookieSessionStore::default(),
            actix_web::cookie::Key::from(&[0; 64]),
        ))' \
    '|session: actix_session::Session| async move { session.get::<String>("key").unwrap().unwrap_or_default() }'
names=(bare ours actix-session)

seconds() { # NAME PROFILE
    local begun
    rm -rf "$work/target"
    begun=$(date +%s.%N)
    cargo build --quiet --offline --profile "$2" --target-dir "$work/target" --manifest-path "$work/$1/Cargo.toml"
    date +%s.%N | awk -v begun="$begun" '{ printf "%.1f\n", $1 - begun }'
}

for ((round = 0; round < rounds; round++)); do
    for turn in 0 1 2; do
        name=${names[(round + turn) % 3]}
        for profile in dev release; do
            seconds "$name" "$profile" >>"$work/$name-$profile"
        done
        strip -o "$work/$name-stripped" "$work/target/release/$name"
    done
done

median() {
    sort -n "$1" | sed -n "$(((rounds + 1) / 2))p"
}

{
    echo "$(cargo --version), $(nproc) cores, $rounds rounds"
    echo
    echo '| application | crates | debug build, s | release build, s | program, MB |'
    echo '|---|---|---|---|---|'
    for name in "${names[@]}"; do
        crates=$(cargo tree --quiet --offline -e normal --prefix none --no-dedupe \
            --manifest-path "$work/$name/Cargo.toml" | sed 's/ (.*//' | sort -u | wc -l)
        size=$(stat -c %s "$work/$name-stripped" | awk '{ printf "%.1f", $1 / 1e6 }')
        # Less the application itself.
        echo "| $name | $((crates - 1)) | $(median "$work/$name-dev") | $(median "$work/$name-release") | $size |"
    done
} | "$root/benches/page.py" build
