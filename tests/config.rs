//! A manager from one line of configuration: a url, the environment, or a file.

mod common;

use std::{
    error::Error as _,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use common::{
    Log, Server, Web,
    alone::alone,
    key_of, on_every_framework,
    watch::{keep_secret, shows_nothing},
};
use session_manager::{
    Config, ConfigError, Key, KeyError, Manager, MemoryStore, MySqlStore, PostgresStore,
    PrivateCookie, RedisStore, ServerSide, SetupError, SignedCookie, SqliteStore, Store,
    StoreError, Timestamp, manager,
    store::{StoreId, Verifier, Write},
};
use tokio::runtime::Runtime;

const SECRET: &str = "a secret of at least thirty-two bytes";
const OLD_SECRET: &str = "the secret that signed until last week";
const PASSWORD: &str = "a-password-of-a-store";

/// The runtime of all connections; it lives as long as the process.
fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

/// A configuration with a secret, so that no test depends on the environment.
fn config(url: &str) -> Config {
    keep_secret(SECRET);
    let mut config = Config::new(url);
    config.secret = Some(SECRET.to_owned());
    config
}

fn open(config: Config) -> Result<Manager, SetupError> {
    runtime().block_on(Manager::from_config(config))
}

fn opened(url: &str) -> Manager {
    open(config(url)).unwrap()
}

fn refused(config: Config) -> SetupError {
    open(config).unwrap_err()
}

/// A number that no other call in any test of this run gets.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}_{next}", std::process::id())
}

/// A directory that is removed when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("session-manager-config-{}", unique()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Stores a value and reads it; returns the `Set-Cookie` line.
fn serves(web: Web, manager: &Manager) -> String {
    let server = Server::scripts(web, manager.middleware());
    let answer = server.raw("/run/add.key.value", &[]);
    assert_eq!(
        server.with_cookie("/run/get.key", answer.cookie()).body,
        "value"
    );
    answer.set_cookie().unwrap().to_owned()
}

/// A cookie in which `manager` stored a value.
fn cookie_of(web: Web, manager: &Manager) -> String {
    let server = Server::scripts(web, manager.middleware());
    server.raw("/run/add.key.value", &[]).cookie()
}

fn opens(web: Web, manager: &Manager, cookie: &str) -> bool {
    let server = Server::scripts(web, manager.middleware());
    server.with_cookie("/run/get.key", cookie).body == "value"
}

fn every_setting_of_the_url_takes_effect(web: Web) {
    let manager = opened(
        "signed:?cookie_name=__Secure-shop&path=/shop&domain=example.com&secure=true&http_only=false\
         &same_site=none&partitioned=true&persistent=true&idle=15m&absolute=30d",
    );
    let set = cookie_line(web, &manager);
    for attribute in [
        "__Secure-shop=",
        "; Path=/shop",
        "; Domain=example.com",
        "; Secure",
        "; SameSite=None",
        "; Partitioned",
        "; Max-Age=900",
    ] {
        assert!(set.contains(attribute), "{attribute}: {set}");
    }
    assert!(!set.contains("HttpOnly"), "{set}");
    let expiry = manager.settings().expiry();
    let (start, minute) = (Timestamp::from_millis(0), Duration::from_secs(60));
    assert_eq!(expiry.deadline(start, start), start.plus(15 * minute));
    let absolute = start.plus(30 * 24 * 60 * minute);
    assert_eq!(expiry.deadline(start, absolute), absolute);
}

fn cookie_line(web: Web, manager: &Manager) -> String {
    let server = Server::scripts(web, manager.middleware());
    let answer = server.raw("/run/add.key.value", &[]);
    answer.set_cookie().unwrap().to_owned()
}

fn the_secret_signs_cookies_and_ids_and_accepted_ones_rotate(web: Web) {
    let old = |backend: &str| {
        let mut old = config(backend);
        old.secret = Some(OLD_SECRET.to_owned());
        open(old).unwrap()
    };
    let rotated = |backend: &str| {
        let mut rotated = config(backend);
        rotated.accept = vec![OLD_SECRET.to_owned()];
        open(rotated).unwrap()
    };
    let dir = Dir::new();
    let file = format!("sqlite:{}", dir.file("sessions.db"));
    for url in ["signed:", "private:", &file] {
        let cookie = cookie_of(web, &old(url));
        assert!(opens(web, &old(url), &cookie), "{url}");
        assert!(!opens(web, &opened(url), &cookie), "{url}: another secret");
        assert!(opens(web, &rotated(url), &cookie), "{url}: rotated");
    }
    // The same keys as those of an application that calls the constructors.
    let by_hand = Manager::new(SignedCookie::new(key_of(SECRET)));
    assert!(opens(web, &opened("signed:"), &cookie_of(web, &by_hand)));
    let by_hand = Manager::new(PrivateCookie::new(key_of(SECRET)));
    assert!(opens(web, &opened("private:"), &cookie_of(web, &by_hand)));
}

fn sessions_in_memory_and_in_sqlite_are_kept(web: Web) {
    let dir = Dir::new();
    let file = dir.file("a file.db");
    for (url, name) in [
        ("memory:".to_owned(), "memory"),
        ("sqlite::memory:".to_owned(), "SQLite"),
        ("sqlite:?mode=memory&idle=5m".to_owned(), "SQLite"),
        (
            format!("sqlite:{file}?table=shop_sessions&sweep=1h"),
            "SQLite",
        ),
        (
            format!("sqlite://{}?mode=rwc", file.replace(' ', "%20")),
            "SQLite",
        ),
    ] {
        let manager = opened(&url);
        assert_eq!(manager.backend_name(), name);
        serves(web, &manager);
    }
    // A percent-encoded path is the same file.
    let store = runtime().block_on(SqliteStore::connect(&file)).unwrap();
    let by_hand = Manager::new(ServerSide::new(store).signed_with(key_of(SECRET)));
    let cookie = cookie_of(
        web,
        &opened(&format!("sqlite:{}", file.replace(' ', "%20"))),
    );
    assert!(opens(web, &by_hand, &cookie));
    let other_table = opened(&format!("sqlite:{file}?table=shop_sessions"));
    assert!(!opens(web, &other_table, &cookie));
}

fn limits_of_a_server_side_backend_take_effect(web: Web) {
    let manager = opened("memory:?max_size=100&time_limit=500ms&load_on_demand=true");
    let server = Server::scripts(web, manager.middleware());
    let answer = server.raw("/run/fill.key.200,fill.key.90", &[]).body;
    assert_eq!(answer, "too large 203 of 100,null");
}

/// Writes a record that has expired.
async fn expired<S: Store>(store: &S) {
    let mut bytes = [7; 32];
    let unique = unique();
    bytes[..unique.len()].copy_from_slice(unique.as_bytes());
    let (past, now) = (Timestamp::from_millis(1_000), Timestamp::from_millis(500));
    let write = Write::touch(Verifier::from_bytes([1; 32]), now, now, past);
    assert!(
        store
            .create(StoreId::from_bytes(bytes), &write)
            .await
            .unwrap()
    );
}

#[test]
fn expired_rows_are_swept_until_the_last_handle_of_the_manager_is_dropped() {
    let dir = Dir::new();
    let file = dir.file("sessions.db");
    let url = format!("sqlite:{file}?sweep=20ms");
    let manager = opened(&url);
    let handle = manager.clone();
    runtime().block_on(async {
        let store = SqliteStore::connect(&file).await.unwrap();
        let left_after_a_while = async || {
            expired(&store).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            store.sweep().await.unwrap()
        };
        assert_eq!(left_after_a_while().await, 0);
        drop(manager);
        assert_eq!(left_after_a_while().await, 0, "there is another handle");
        drop(handle);
        assert_eq!(left_after_a_while().await, 1);
    });
}

#[test]
fn a_file_says_the_same_as_a_url_in_toml_json_and_yaml() {
    keep_secret(SECRET);
    keep_secret(OLD_SECRET);
    let toml = format!(
        r#"
            url = "memory:"
            secret = "{SECRET}"
            accept = ["{OLD_SECRET}"]
            cookie_name = "__Host-shop"
            same_site = "strict"
            secure = true
            idle = "20m"
            absolute = "30d"
            persistent = true
            on_store_error = "anonymous"
            max_size = 4096
        "#
    );
    let json = format!(
        r#"{{
            "url": "memory:", "secret": "{SECRET}", "accept": ["{OLD_SECRET}"],
            "name": "__Host-shop", "same_site": "strict", "secure": true, "idle_timeout": "20m",
            "absolute_timeout": "30d", "persistent": true, "on_store_error": "anonymous",
            "max_size": 4096, "prefix": null
        }}"#
    );
    let from_toml: Config = toml::from_str(&toml).unwrap();
    let from_json: Config = serde_json::from_str(&json).unwrap();
    // Not the JSON, which is YAML too.
    let yaml = toml.replace(" = ", ": ").replace("            ", "");
    let from_yaml: Config = serde_yaml_ng::from_str(&yaml).unwrap();
    for config in [from_toml, from_json, from_yaml] {
        assert_eq!(config.secret.as_deref(), Some(SECRET));
        assert_eq!(config.accept, [OLD_SECRET]);
        assert_eq!(config.idle, Some(Duration::from_secs(20 * 60)));
        assert_eq!(config.absolute, Some(Duration::from_secs(30 * 86_400)));
        let text = format!("{config:?}\n{config:#?}");
        shows_nothing("a `Debug` text", &text);
        assert!(text.contains("memory"), "{text}");
        let manager = open(config).unwrap();
        let set = cookie_line(Web::Actix, &manager);
        assert!(set.contains("__Host-shop="), "{set}");
        assert!(set.contains("; SameSite=Strict"), "{set}");
        assert!(set.contains("; Max-Age=1200"), "{set}");
    }
}

#[test]
fn a_file_with_a_mistake_is_an_error_without_its_values() {
    keep_secret(SECRET);
    for (json, part) in [
        (r#"{}"#.to_owned(), "missing field `url`"),
        (
            format!(r#"{{ "url": "memory:", "sekret": "{SECRET}" }}"#),
            "unknown field `sekret`",
        ),
        (
            format!(r#"{{ "url": "memory:", "secret": ["{SECRET}"] }}"#),
            "a secret",
        ),
        (
            format!(r#"{{ "url": "memory:", "accept": "{SECRET}" }}"#),
            "a list of secrets",
        ),
        (
            r#"{ "url": "memory:", "secret": 1234567890123456 }"#.to_owned(),
            "a secret",
        ),
        (r#"{ "url": "memory:", "idle": 20 }"#.to_owned(), "`90s`"),
        (r#"{ "url": "memory:", "idle": "0s" }"#.to_owned(), "`90s`"),
        (r#"{ "url": "memory:", "idle": "-5m" }"#.to_owned(), "`90s`"),
        (
            r#"{ "url": "memory:", "idle": "99999999999d" }"#.to_owned(),
            "`36500d`",
        ),
        (
            r#"{ "url": "memory:", "same_site": "loose" }"#.to_owned(),
            "`strict`",
        ),
        (
            r#"{ "url": "memory:", "on_store_error": "panic" }"#.to_owned(),
            "`anonymous`",
        ),
        (
            r#"{ "url": "memory:", "secure": "maybe" }"#.to_owned(),
            "boolean",
        ),
    ] {
        let error = match serde_json::from_str::<Config>(&json) {
            Err(error) => error.to_string(),
            Ok(config) => panic!("{json} was read as {config:?}"),
        };
        assert!(error.contains(part), "{part}: {error}");
        assert!(!error.contains("123456789"), "{error}");
        shows_nothing("an error", &error);
    }
}

#[test]
fn bad_settings_are_typed_errors_that_name_the_setting_and_what_it_must_be() {
    for (url, name) in [
        ("memory:?idle=0s", "idle"),
        ("memory:?idle=-5m", "idle"),
        ("memory:?idle=20", "idle"),
        ("memory:?idle", "idle"),
        ("memory:?absolute=999999999999999999999999d", "absolute"),
        ("memory:?absolute=36501d", "absolute"),
        ("memory:?max_size=0", "max_size"),
        ("memory:?max_size=-1", "max_size"),
        ("memory:?time_limit=0ms", "time_limit"),
        ("sqlite::memory:?sweep=0s", "sweep"),
        ("sqlite::memory:?table=drop%20table", "table"),
        ("sqlite::memory:?table=", "table"),
        ("redis://127.0.0.1:1?prefix=", "prefix"),
        ("redis://127.0.0.1:1?prefix=a%0Ab", "prefix"),
        ("signed:?secure=yes", "secure"),
        ("signed:?same_site=loose", "same_site"),
        ("signed:?name=", "cookie_name"),
    ] {
        let error = refused(config(url));
        let SetupError::InvalidValue { setting, .. } = error else {
            panic!("{url}: {error}");
        };
        assert_eq!(setting, name, "{url}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    for (url, setting) in [
        ("signed:?table=t", "table"),
        ("private:?max_size=9", "max_size"),
        ("memory:?prefix=p", "prefix"),
        ("memory:?sweep=1h", "sweep"),
        ("sqlite::memory:?prefix=p", "prefix"),
        ("redis://127.0.0.1:1?table=t", "table"),
    ] {
        let error = refused(config(url));
        assert!(
            matches!(error, SetupError::NotApplicable { setting: told, .. } if told == setting),
            "{url}: {error}"
        );
    }
    for url in ["memory:?idle=5m&idle=6m", "memory:?name=a&cookie_name=a"] {
        let error = refused(config(url));
        assert!(
            matches!(error, SetupError::SetTwice { .. }),
            "{url}: {error}"
        );
    }
    let mut both = config("memory:?idle=5m");
    both.idle = Some(Duration::from_secs(300));
    assert!(matches!(
        refused(both),
        SetupError::SetTwice { setting: "idle" }
    ));
    // Refused before anything is connected.
    for url in [
        "redis://127.0.0.1:1?name=a%20b",
        "redis://127.0.0.1:1?name=__Host-a&domain=example.com",
        "redis://127.0.0.1:1?same_site=none&secure=false",
        "redis://127.0.0.1:1?path=shop",
    ] {
        let error = refused(config(url));
        assert!(
            matches!(error, SetupError::Settings { .. }),
            "{url}: {error}"
        );
        assert!(error.source().unwrap().is::<ConfigError>());
    }
}

#[test]
fn fields_that_an_application_sets_to_zero_are_refused_too() {
    let changes: [fn(&mut Config); 5] = [
        |config| config.idle = Some(Duration::ZERO),
        |config| config.absolute = Some(Duration::ZERO),
        |config| config.sweep = Some(Duration::ZERO),
        |config| config.time_limit = Some(Duration::ZERO),
        |config| config.max_size = Some(0),
    ];
    for change in changes {
        let mut config = config("sqlite::memory:");
        change(&mut config);
        let error = refused(config);
        assert!(error.to_string().contains("zero"), "{error}");
    }
    // The longest ones are long.
    let mut config = config("sqlite::memory:");
    config.idle = Some(Duration::MAX);
    config.absolute = Some(Duration::MAX);
    config.sweep = Some(Duration::MAX);
    config.time_limit = Some(Duration::MAX);
    config.persistent = Some(true);
    serves(Web::Actix, &open(config).unwrap());
}

#[test]
fn a_secret_that_is_empty_or_too_short_is_an_error() {
    for url in ["signed:", "private:", "memory:", "sqlite::memory:"] {
        for secret in ["", "short"] {
            let mut config = config(url);
            config.secret = Some(secret.to_owned());
            let error = refused(config.clone());
            assert!(
                matches!(&error, SetupError::Secret { source: KeyError::TooShort { len, .. } } if *len == secret.len()),
                "{url}: {error}"
            );
            config.secret = Some(SECRET.to_owned());
            config.accept = vec![secret.to_owned()];
            assert!(
                matches!(refused(config), SetupError::Secret { .. }),
                "{url}"
            );
        }
    }
}

/// Everything that an error shows, with its sources.
fn shown(error: &SetupError) -> String {
    let mut shown = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        shown.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    shown
}

#[test]
fn no_error_shows_a_password_even_if_the_url_is_malformed() {
    keep_secret(PASSWORD);
    let log = Log::of_process();
    let mut urls = Vec::new();
    for scheme in [
        "postgres",
        "mysql",
        "redis",
        "valkey",
        "redis+cluster",
        "redis+sentinel",
    ] {
        for rest in [
            // Nothing listens on the port.
            "//app:PASSWORD@127.0.0.1:1/app",
            "//app:PASSWORD@127.0.0.1:1?idle=1m",
            "//:PASSWORD@127.0.0.1:99999/0",
            "//app:PASSWORD@/app",
            "//app:PASSWORD@",
            "//app:PASSWORD",
            "//app:pa/PASSWORD@127.0.0.1:1/app",
            "//app:pa?PASSWORD@127.0.0.1:1/app",
            "//app:pa?name=PASSWORD@127.0.0.1:1",
            "//app:1?PASSWORD",
            "//app:1?x=PASSWORD",
            "//app:1/PASSWORD",
            "//app:1/PASSWORD@127.0.0.1:1/1",
            "//app:pa#PASSWORD@127.0.0.1:1/app",
            "//app:pa%zzPASSWORD@127.0.0.1:1/app",
            "//app:pa PASSWORD@127.0.0.1:1/app",
            "//app:PASSWORD@127.0.0.1:1/app?idle=PASSWORD",
            "//app:PASSWORD@127.0.0.1:1/app?idle=%zzPASSWORD",
            "//app:PASSWORD@127.0.0.1:1/app?idl=PASSWORD",
            "//app@127.0.0.1:1/app?pasword=PASSWORD",
            "//app@127.0.0.1:1/app?password=PASSWORD",
            "//app@127.0.0.1:1/app?secret=PASSWORD",
            ":PASSWORD@127.0.0.1:1/app",
            "/app:PASSWORD@127.0.0.1:1/app",
            "//app:PASSWORD@127.0.0.1:1,redis://app:PASSWORD@127.0.0.1:2",
            "//app:PASSWORD@127.0.0.1:1?name=a,redis://app:PASSWORD@127.0.0.1:2?idle=1",
        ] {
            urls.push(format!("{scheme}:{rest}"));
        }
    }
    for other in [
        "PASSWORD",
        "PASSWORD:",
        "PASSWORD://",
        "app:PASSWORD@127.0.0.1/app",
        "redi://app:PASSWORD@127.0.0.1:1",
        "signed:PASSWORD",
        "memory:?PASSWORD",
        "memory:?PASSWORD=1",
        "private:?secret=PASSWORD",
        "sqlite:/no/such/directory/PASSWORD",
        "sqlite:x?vfs=PASSWORD&PASSWORD=x",
        " redis://app:PASSWORD@127.0.0.1:1",
    ] {
        urls.push(other.to_owned());
    }
    for url in urls {
        let config = config(&url.replace("PASSWORD", PASSWORD));
        shows_nothing("a `Debug` text", &format!("{config:?} {config:#?}"));
        match open(config) {
            Err(error) => shows_nothing(&url, &shown(&error)),
            Ok(manager) => panic!("{url} was taken for {manager:?}"),
        }
    }
    // The log is watched as well.
    assert_eq!(log.lines(PASSWORD), [""; 0]);
}

#[test]
fn a_store_that_cannot_be_reached_is_an_error_that_keeps_its_source() {
    for url in [
        "redis://127.0.0.1:1",
        "postgres://app@127.0.0.1:1/app?sslmode=disable",
        "mysql://app@127.0.0.1:1/app?ssl-mode=DISABLED",
    ] {
        let error = refused(config(url));
        let SetupError::Store { source } = &error else {
            panic!("{url}: {error}");
        };
        assert!(error.source().unwrap().is::<StoreError>(), "{url}");
        let cause = source.source().unwrap().to_string();
        assert!(error.to_string().contains(&cause), "{error}");
    }
}

#[test]
fn a_missing_folder_of_sqlite_is_an_error_that_names_the_cure() {
    let error = refused(config("sqlite:/no/such/directory/sessions.db"));
    let SetupError::Store { source } = &error else {
        panic!("{error}");
    };
    assert!(matches!(source, StoreError::Config { .. }), "{error}");
    assert!(error.to_string().contains("folder"), "{error}");
}

#[test]
fn without_a_runtime_a_store_is_an_error_and_no_panic() {
    let poll = |url: &str| {
        let mut future = std::pin::pin!(Manager::from_config(config(url)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(opened) => opened,
            std::task::Poll::Pending => panic!("{url} waits for something"),
        }
    };
    for url in [
        "redis://127.0.0.1:1",
        "postgres://127.0.0.1:1/app",
        "mysql://127.0.0.1:1/app",
        "sqlite::memory:",
    ] {
        let error = poll(url).unwrap_err();
        assert!(
            matches!(error, SetupError::NoRuntime { .. }),
            "{url}: {error}"
        );
    }
    for url in ["signed:", "private:", "memory:"] {
        assert!(poll(url).is_ok());
    }
}

fn set() -> Result<(), SetupError> {
    runtime().block_on(manager::set_from_env()).map(drop)
}

#[test]
fn the_environment_sets_the_process_wide_manager() {
    let variables = [
        ("SESSION_URL", "memory:?name=from_env"),
        ("SESSION_SECRET", SECRET),
    ];
    alone(None, &variables, || {
        keep_secret(SECRET);
        let former = runtime().block_on(manager::set_from_env()).unwrap();
        assert_eq!(former.backend_name(), "signed cookie");
        assert_eq!(manager::get().backend_name(), "memory");
        let server = Server::scripts(Web::Actix, manager::middleware());
        let answer = server.raw("/run/add.key.value", &[]);
        let cookie = answer.cookie();
        assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "value");
        // 48 bytes of id and 16 of signature.
        assert_eq!(cookie.len(), "from_env=".len() + 86, "{cookie}");
        // `from_url` reads the same secret.
        let signed = runtime().block_on(Manager::from_url("signed:")).unwrap();
        let by_hand = Manager::new(SignedCookie::new(Key::from_env("SESSION_SECRET").unwrap()));
        assert!(opens(Web::Actix, &signed, &cookie_of(Web::Actix, &by_hand)));
    });
}

#[test]
fn without_a_secret_the_ids_of_a_store_are_not_signed() {
    alone(None, &[("SESSION_URL", "memory:")], || {
        set().unwrap();
        assert!(!manager::is_insecure_default());
        let cookie = cookie_of(Web::Actix, &manager::get());
        assert_eq!(cookie.len(), "_session=".len() + 64, "{cookie}");
    });
}

#[test]
fn without_a_url_the_default_manager_is_set() {
    alone(None, &[], || {
        manager::set(Manager::new(ServerSide::new(MemoryStore::new())));
        set().unwrap();
        assert_eq!(manager::get().backend_name(), "signed cookie");
        assert!(manager::is_insecure_default());
        let log = Log::of_process();
        serves(Web::Actix, &manager::get());
        assert_eq!(log.lines("development key").len(), 1);
    });
}

#[test]
fn without_a_url_the_secret_signs() {
    alone(None, &[("SESSION_SECRET", SECRET)], || {
        set().unwrap();
        assert!(!manager::is_insecure_default());
        let by_hand = Manager::new(SignedCookie::new(key_of(SECRET)));
        assert!(opens(
            Web::Actix,
            &by_hand,
            &cookie_of(Web::Actix, &manager::get())
        ));
    });
}

#[test]
fn former_secrets_of_the_environment_are_accepted() {
    let accept = format!(" {OLD_SECRET} , ");
    for url in [Some("signed:"), Some("private:"), None] {
        let mut variables = vec![("SESSION_SECRET", SECRET), ("SESSION_ACCEPT", &*accept)];
        variables.extend(url.map(|url| ("SESSION_URL", url)));
        let ran = alone(None, &variables, || {
            let url = std::env::var("SESSION_URL").unwrap_or("signed:".into());
            let mut old = config(&url);
            old.secret = Some(OLD_SECRET.into());
            let cookie = cookie_of(Web::Actix, &open(old).unwrap());
            // Before any manager is set, it is the default, which signs.
            let by_default = opens(Web::Actix, &manager::get(), &cookie);
            assert_eq!(by_default, url == "signed:");
            set().unwrap();
            assert!(opens(Web::Actix, &manager::get(), &cookie));
        });
        if ran.is_none() {
            return;
        }
    }
}

#[test]
fn signed_without_a_secret_has_the_development_key_in_a_debug_build_with_a_warning() {
    alone(None, &[("SESSION_URL", "signed:?name=dev")], || {
        set().unwrap();
        assert!(manager::is_insecure_default());
        let log = Log::of_process();
        let set = serves(Web::Actix, &manager::get());
        assert!(set.starts_with("dev="), "{set}");
        assert_eq!(log.lines("SESSION_SECRET").len(), 1);
    });
}

#[test]
fn variables_that_are_empty_or_bad_are_errors_and_the_manager_stays() {
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("SESSION_URL", "")], "it is empty"),
        (&[("SESSION_URL", "redi://h")], "did you mean `redis`"),
        (&[("SESSION_URL", "private:")], "SESSION_SECRET is not set"),
        (
            &[("SESSION_URL", "signed:"), ("SESSION_SECRET", "")],
            "0 bytes long",
        ),
        (
            &[("SESSION_URL", "memory:"), ("SESSION_SECRET", "short")],
            "5 bytes long",
        ),
        (
            &[("SESSION_SECRET", SECRET), ("SESSION_ACCEPT", "short")],
            "SESSION_ACCEPT is 5 bytes long",
        ),
        (&[("SESSION_ACCEPT", SECRET)], "SESSION_SECRET is not set"),
        (&[("SESSION_SECRET", "")], "SESSION_SECRET is 0 bytes long"),
        (
            &[("SESSION_SECRET", "short")],
            "SESSION_SECRET is 5 bytes long",
        ),
    ];
    for (variables, part) in cases {
        let said = alone(None, variables, || {
            let error = set().unwrap_err();
            assert_eq!(manager::get().settings().cookie_name(), "_session");
            println!("refused: {error:?}");
        });
        let Some(said) = said else { return };
        let line = said
            .lines()
            .find(|line| line.contains("refused: "))
            .unwrap();
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
#[cfg(unix)]
fn a_variable_that_is_not_unicode_is_an_error() {
    use std::os::unix::ffi::OsStrExt;

    const MARK: &str = "SESSION_MANAGER_TEST_NOT_UNICODE";
    if std::env::var_os(MARK).is_some() {
        let error = set().unwrap_err();
        let variable = std::env::var(MARK).unwrap();
        assert!(error.to_string().contains(&variable), "{error}");
        return;
    }
    for variable in ["SESSION_URL", "SESSION_SECRET"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child
            .args(["--exact", "a_variable_that_is_not_unicode_is_an_error"])
            .env(MARK, variable)
            .env_remove("SESSION_URL")
            .env_remove("SESSION_SECRET")
            .env(variable, std::ffi::OsStr::from_bytes(b"\xff"));
        let output = child.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

/// The url of a server that `tests/run.sh` starts.
fn server(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: tests/run.sh starts what it names"))
}

/// `url` with further parameters.
fn with(url: &str, parameters: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{parameters}")
}

/// A manager on the server, whose prefix is its own: another prefix opens nothing, and a store that is
/// made by hand opens the same sessions.
fn on_redis(web: Web, url: &str) {
    let prefix = format!("config {}:", unique());
    let url = |prefix: &str| {
        with(
            url,
            &format!("prefix={}&name=redis", prefix.replace(' ', "%20")),
        )
    };
    let manager = opened(&url(&prefix));
    assert_eq!(manager.backend_name(), "Redis");
    let set = serves(web, &manager);
    assert!(set.starts_with("redis="), "{set}");
    let cookie = cookie_of(web, &manager);
    assert!(opens(web, &opened(&url(&prefix)), &cookie));
    assert!(!opens(web, &opened(&url("other:")), &cookie));
    let (bare, _) = url("")
        .split_once("?prefix")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let store = runtime().block_on(RedisStore::connect(&bare)).unwrap();
    let by_hand = ServerSide::new(store.with_prefix(&prefix)).signed_with(key_of(SECRET));
    let by_hand = Manager::builder(by_hand)
        .cookie_name("redis")
        .build()
        .unwrap();
    assert!(opens(web, &by_hand, &cookie));
}

fn redis(web: Web) {
    let url = server("SESSION_TEST_REDIS");
    on_redis(web, &url);
    on_redis(web, &url.replace("redis://", "valkey://"));
    // The client keeps its own parameter.
    serves(web, &opened(&format!("{url}/1?protocol=resp3&idle=5m")));
    let error = refused(config(&format!("{url}?protocol=resp9")));
    assert!(matches!(error, SetupError::Store { .. }), "{error}");
}

fn redis_cluster(web: Web) {
    let url = server("SESSION_TEST_REDIS_CLUSTER");
    on_redis(web, &url);
    let list = url
        .replace("redis+cluster://", "redis://")
        .replace(',', ",redis://");
    on_redis(web, &list);
}

fn redis_sentinels(web: Web) {
    on_redis(web, &server("SESSION_TEST_REDIS_SENTINEL"));
}

/// A manager on a database: creates its table, and keeps sessions in it.
macro_rules! on_database {
    ($name:ident, $variable:literal, $store:ident, $backend:literal, $scheme:literal, $alias:literal, $own:literal) => {
        fn $name(web: Web) {
            let url = server($variable);
            let table = format!("config_{}", unique());
            let parameters = format!("table={table}&sweep=50ms&{}", $own);
            for url in [url.clone(), url.replace($scheme, $alias)] {
                let manager = opened(&with(&url, &parameters));
                assert_eq!(manager.backend_name(), $backend);
                serves(web, &manager);
                let cookie = cookie_of(web, &manager);
                runtime().block_on(async {
                    let store = $store::connect_lazy(&url).unwrap();
                    let store = store.with_table(&table).unwrap();
                    expired(&store).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    assert_eq!(store.sweep().await.unwrap(), 0, "it sweeps");
                    drop(manager);
                    expired(&store).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    assert_eq!(store.sweep().await.unwrap(), 1, "it swept on");
                });
                // The table is there, and the session in it.
                assert!(opens(web, &opened(&with(&url, &parameters)), &cookie));
                assert!(!opens(web, &opened(&url), &cookie), "another table");
            }
            let error = refused(config(&with(&url, "sslmode=perhaps")));
            assert!(matches!(error, SetupError::Store { .. }), "{error}");
        }
    };
}

on_database!(
    postgres,
    "SESSION_TEST_POSTGRES",
    PostgresStore,
    "PostgreSQL",
    "postgres://",
    "postgresql://",
    "application_name=a%20test"
);
on_database!(
    mariadb,
    "SESSION_TEST_MYSQL",
    MySqlStore,
    "MySQL",
    "mysql://",
    "mariadb://",
    "charset=utf8mb4"
);

on_every_framework!(
    every_setting_of_the_url_takes_effect,
    the_secret_signs_cookies_and_ids_and_accepted_ones_rotate,
    sessions_in_memory_and_in_sqlite_are_kept,
    limits_of_a_server_side_backend_take_effect,
    #[ignore = "needs Redis: tests/run.sh"]
    redis,
    #[ignore = "needs a Redis Cluster: tests/run.sh"]
    redis_cluster,
    #[ignore = "needs Redis Sentinels: tests/run.sh"]
    redis_sentinels,
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    postgres,
    #[ignore = "needs MariaDB: tests/run.sh"]
    mariadb,
);
