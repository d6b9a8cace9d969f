//! Tests that need a process of their own.

use std::process::Command;

use super::Web;

/// Runs `body` in a process of its own with these variables and none other of this crate. Returns what
/// that process wrote, and nothing in the process itself.
pub fn alone<F: FnOnce()>(
    web: impl Into<Option<Web>>,
    variables: &[(&str, &str)],
    body: F,
) -> Option<String> {
    const MARK: &str = "SESSION_MANAGER_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        body();
        return None;
    }
    // `crate::test::{{closure}}`
    let test = std::any::type_name::<F>().split("::").nth(1).unwrap();
    // A test on every framework is in a module of each.
    let test = match web.into() {
        Some(web) => format!("{web}::{test}"),
        None => test.to_owned(),
    };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", &test, "--nocapture"])
        .env(MARK, "1")
        .env_remove("SESSION_URL")
        .env_remove("SESSION_SECRET")
        .env_remove("SESSION_ACCEPT")
        .envs(variables.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 passed"),
        "the test did not run alone: {text}"
    );
    Some(text)
}
