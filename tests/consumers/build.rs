//! Takes code of other crates out of the sources that Cargo downloaded: actix-session's acceptance
//! suite, which the crate compiles for its own tests only, and examples, of which the lines with the
//! session layer are replaced, and nothing else that runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let packages = packages();
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    suite(&folder(&packages, "actix-session", "0.11."), &out);
    for example in &EXAMPLES {
        let folder = folder(&packages, example.package, example.version);
        let file = folder.join("examples").join(example.file);
        let text = fs::read_to_string(&file).unwrap();
        let name = format!("{}.rs", example.package.replace('-', "_"));
        fs::write(out.join(name), example.adapt(&text)).unwrap();
    }
}

fn packages() -> serde_json::Value {
    let cargo = env::var("CARGO").unwrap();
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--format-version", "1", "--offline"]);
    // Without it, Cargo wants what only other platforms download.
    metadata.args(["--filter-platform", &env::var("TARGET").unwrap()]);
    let metadata = metadata.output().unwrap();
    let said = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{said}");
    serde_json::from_slice(&metadata.stdout).unwrap()
}

/// Returns where the source of a package is.
fn folder(packages: &serde_json::Value, name: &str, version: &str) -> PathBuf {
    let packages = packages["packages"].as_array().unwrap();
    let is_it = |it: &&serde_json::Value| {
        it["name"] == name && it["version"].as_str().unwrap().starts_with(version)
    };
    let package = packages.iter().find(is_it).unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}

fn suite(folder: &Path, out: &Path) {
    let source = fs::read_to_string(folder.join("src").join("lib.rs")).unwrap();
    let begin = source.find("pub mod test_helpers {").unwrap();
    let suite = source[begin..]
        .replace("crate::", "actix_session::")
        .replace("test_helpers::key,", "")
        .replace(
            "mod acceptance_tests {",
            "mod acceptance_tests { use super::key;",
        );
    fs::write(out.join("suite.rs"), suite).unwrap();
}

/// An example of another crate, and the lines that differ here.
struct Example {
    package: &'static str,
    version: &'static str,
    file: &'static str,
    /// Where a test needs another port.
    port: (&'static str, &'static str),
    /// The layer.
    layer: &'static [(&'static str, &'static str)],
    /// Set-up of a log, with crates that nothing else here needs.
    log: &'static [&'static str],
}

impl Example {
    fn adapt(&self, text: &str) -> String {
        let lines = text.lines().filter(|line| !line.starts_with("//!"));
        let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
        let mut replace = |from: &str, to: &str| {
            let found = text.matches(from).count();
            assert_eq!(found, 1, "{} of {}: {from}", self.file, self.package);
            text = text.replace(from, to);
        };
        // A module of a test calls it.
        replace("async fn main", "pub async fn main");
        replace(self.port.0, self.port.1);
        self.layer.iter().for_each(|(from, to)| replace(from, to));
        self.log.iter().for_each(|log| replace(log, ""));
        text
    }
}

const TOWER_PORT: (&str, &str) = ("3000", "consumers::port(3000)");
const ACTIX_PORT: (&str, &str) = ("8080)", "consumers::port(8080))");

const EXAMPLES: [Example; 4] = [
    Example {
        package: "tower-sessions",
        version: "0.14.",
        file: "counter.rs",
        port: TOWER_PORT,
        layer: &[(
            "    let session_store = MemoryStore::default();
    let session_layer = SessionManagerLayer::new(session_store)
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(Duration::seconds(10)));
",
            "    let session_layer = (session_manager::manager::middleware(), \
             session_manager::web::TowerSessions014::new());
",
        )],
        log: &[],
    },
    Example {
        package: "axum-messages",
        version: "0.8.",
        file: "basic.rs",
        port: TOWER_PORT,
        layer: &[(
            "    let session_store = MemoryStore::default();
    let session_layer = SessionManagerLayer::new(session_store).with_secure(false);
",
            "    let session_layer = (session_manager::manager::middleware(), \
             session_manager::web::TowerSessions014::new());
",
        )],
        log: &[],
    },
    Example {
        package: "actix-identity",
        version: "0.9.",
        file: "identity.rs",
        port: ACTIX_PORT,
        layer: &[
            (
                "        let session_mw =
            SessionMiddleware::builder(CookieSessionStore::default(), secret_key.clone())
                // disable secure cookie for local testing
                .cookie_secure(false)
                // Set a ttl for the cookie if the identity should live longer than the user session
                .session_lifecycle(
                    PersistentSession::default().session_ttl(expiration.try_into().unwrap()),
                )
                .build();
",
                "",
            ),
            (
                ".wrap(session_mw)",
                ".wrap(session_manager::web::ActixSessions::new())
            .wrap(session_manager::manager::middleware())",
            ),
        ],
        log: &[
            "    env_logger::init_from_env(env_logger::Env::new().default_filter_or(\"info\"));\n",
        ],
    },
    Example {
        package: "actix-session",
        version: "0.11.",
        file: "basic.rs",
        port: ACTIX_PORT,
        layer: &[
            ("storage::RedisSessionStore, ", ""),
            (
                "    let storage = RedisSessionStore::new(\"127.0.0.1:6379\").await.unwrap();\n",
                "",
            ),
            (
                ".wrap(SessionMiddleware::new(storage.clone(), signing_key.clone()))",
                ".wrap(session_manager::web::ActixSessions::new())
            .wrap(session_manager::manager::middleware())",
            ),
        ],
        log: &[
            "use tracing::level_filters::LevelFilter;\n",
            "use tracing_subscriber::EnvFilter;\n",
            "    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder()
                .with_default_directive(LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .init();
",
            "    tracing::info!(\"setting up Redis session storage\");\n",
            "    tracing::info!(\"starting HTTP server at http://localhost:8080\");\n",
        ],
    },
];
