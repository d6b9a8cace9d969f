//! What an attacker tries: forged cookies, exhausted resources, secrets in logs, and the advisories
//! against other session crates.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "axum", feature = "memory"))]
mod advisories;
mod bad_input;
#[cfg(all(feature = "axum", feature = "memory"))]
mod denial;
#[cfg(all(
    feature = "actix-session",
    feature = "axum",
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite",
    feature = "tower-sessions-0-14"
))]
mod secrets;
