//! Takes actix-session's acceptance suite out of the source that Cargo downloaded. The crate compiles
//! it for its own tests only.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let cargo = env::var("CARGO").unwrap();
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--format-version", "1", "--offline"]);
    let metadata = metadata.output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|it| {
        it["name"] == "actix-session" && it["version"].as_str().unwrap().starts_with("0.11.")
    });
    let manifest = package.unwrap()["manifest_path"].as_str().unwrap();
    let source = Path::new(manifest).with_file_name("src").join("lib.rs");
    let source = fs::read_to_string(source).unwrap();
    let begin = source.find("pub mod test_helpers {").unwrap();
    let suite = source[begin..]
        .replace("crate::", "actix_session::")
        .replace("test_helpers::key,", "")
        .replace(
            "mod acceptance_tests {",
            "mod acceptance_tests { use super::key;",
        );
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("suite.rs");
    fs::write(out, suite).unwrap();
}
