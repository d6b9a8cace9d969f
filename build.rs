//! Tells the crate by which profile it is built.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(debug_profile)");
    // `debug` or `release`: which of the two a profile is, or inherits from.
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        println!("cargo::rustc-cfg=debug_profile");
    }
}
