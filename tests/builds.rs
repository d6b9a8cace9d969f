//! What Cargo makes of this crate, in programs that are built by it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn cargo(directory: &Path, arguments: &[&str]) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(directory);
    cargo
        .env_remove("SESSION_SECRET")
        .env_remove("SESSION_ACCEPT")
        .output()
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A program that depends on copies of this crate, which have its `[package]` section and no code.
fn program_on(name: &str, versions: &[&str]) -> PathBuf {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let write = |path: &str, text: &str| {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let mut dependencies = String::new();
    let manifest = fs::read_to_string(this.join("Cargo.toml")).unwrap();
    let package = manifest.split("\n[").next().unwrap();
    let own_version = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(package.contains(&own_version), "{package}");
    for version in versions {
        let copy = package.replace(&own_version, &format!("version = \"{version}\""));
        write(
            &format!("v{version}/Cargo.toml"),
            &format!("{copy}\n[workspace]\n"),
        );
        write(&format!("v{version}/src/lib.rs"), "");
        write(&format!("v{version}/README.md"), "");
        write(&format!("v{version}/build.rs"), "fn main() {}");
        let name = version.replace('.', "-");
        dependencies +=
            &format!("v{name} = {{ package = \"session-manager\", path = \"../v{version}\" }}\n");
    }
    let head =
        "[package]\nname = \"program\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n";
    write("program/Cargo.toml", &(head.to_owned() + &dependencies));
    write("program/src/main.rs", "fn main() {}");
    directory.join("program")
}

#[test]
fn cargo_refuses_a_program_with_two_versions_of_this_crate() {
    let resolve = |name, versions| {
        let program = program_on(name, versions);
        let output = cargo(&program, &["generate-lockfile", "--offline"]);
        (output.status.success(), text(output.stderr))
    };
    let (resolved, error) = resolve("one-version", &["0.1.0"]);
    assert!(resolved, "{error}");
    let (resolved, error) = resolve("two-versions", &["0.1.0", "0.2.0"]);
    assert!(!resolved, "{error}");
    for part in [
        "links to the native library `session-manager`",
        "0.1.0",
        "0.2.0",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// Debug assertions do not make a debug build.
#[test]
fn a_release_build_with_debug_assertions_has_safe_defaults() {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    let profile = ["--package", "release-build", "--profile", "release-checked"];
    let output = cargo(this, &[&["run", "--quiet"][..], &profile].concat());
    assert!(output.status.success(), "{}", text(output.stderr));
    let output = text(output.stdout);
    let lines: Vec<_> = output.lines().collect();
    let begin = [
        "debug assertions: true",
        "ERROR sessions are signed with a key drawn for this process",
        "www.example.com: _session=",
        "WARN a client requested a loopback host over plain http",
        "127.0.0.1:8080: _session=",
        "localhost:8080: _session=",
        "127.0.0.1:7000: _session=",
        "signed: the environment variable SESSION_SECRET is not set",
        "ERROR no session was opened for this request",
        "not mounted: 500 Internal Server Error, 21 bytes",
        "inspector: the inspector is for development, and this is a release build",
        "inspector, if told so: /inspector",
    ];
    assert_eq!(lines.len(), begin.len(), "{output}");
    for (line, begin) in lines.iter().zip(begin) {
        assert!(line.starts_with(begin), "{begin}: {output}");
    }
    assert!(lines[3].contains("`secure(false)`"), "{output}");
    for (line, is_secure) in [(2, true), (4, true), (5, true), (6, false)] {
        assert_eq!(lines[line].contains("; Secure"), is_secure, "{output}");
    }
}
