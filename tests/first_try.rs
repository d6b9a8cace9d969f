//! The mistakes of a first try: each is explained where a developer looks.

mod common;

use std::{path::Path, time::Duration};

use common::{
    App, Log, Server, Web, alone::alone, backends, block_on, key, on_every_framework, watch,
};
use session_manager::{
    ConfigError, Error, HasSession, Manager, MemoryStore, MySqlStore, PostgresStore, PrivateCookie,
    RedisStore, ServerSide, Session, SignedCookie, SqliteStore, StoreError,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn a_forgotten_middleware_is_told_once_on_standard_error_if_nothing_receives_the_log(web: Web) {
    let output = alone(web, &[], || {
        watch::nobody_listens();
        let server = Server::start(web, App::new());
        for _ in 0..2 {
            assert_eq!(server.visitor().get("/run/len").status, 500);
        }
    });
    if let Some(output) = output {
        let told = "session-manager: no session was opened for this request";
        assert_eq!(output.matches(told).count(), 1, "{output}");
    }
}

fn a_forgotten_middleware_is_only_logged_if_something_receives_the_log(web: Web) {
    let output = alone(web, &[], || {
        let log = Log::of_process();
        let server = Server::start(web, App::new());
        assert_eq!(server.visitor().get("/run/len").status, 500);
        assert_eq!(log.lines("manager::middleware()").len(), 1);
    });
    if let Some(output) = output {
        assert!(!output.contains("session-manager: no session"), "{output}");
    }
}

fn a_forgotten_middleware_is_a_page_with_the_cure_in_a_debug_build(web: Web) {
    let answer = Server::start(web, App::new()).visitor().get("/run/len");
    assert_eq!(answer.status, 500);
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain"), "{kind}");
    for part in [
        "Internal Server Error",
        "manager::middleware()",
        "Order matters",
        "debug build",
    ] {
        assert!(answer.body.contains(part), "{part}: {answer:?}");
    }
}

fn on_demand() -> Manager {
    let builder = Manager::builder(ServerSide::new(MemoryStore::new()));
    builder.load_on_demand().build().unwrap()
}

/// The first visitor has no cookie, the returning one has.
fn a_session_on_demand_is_not_loaded_with_and_without_a_cookie(web: Web) {
    let manager = on_demand();
    let in_handler = manager.clone();
    let app = App::new().get_request("/sync", move |request, _| {
        let manager = in_handler.clone();
        async move {
            let got = manager.get(&request, "key");
            assert!(matches!(got, Err(Error::NotLoaded)), "{got:?}");
            let added = manager.add(&request, "key", 1);
            assert!(matches!(added, Err(Error::NotLoaded)), "{added:?}");
            assert!(matches!(request.session(), Err(Error::NotLoaded)));
            manager.open(&request).await?;
            assert!(request.session().is_ok());
            Ok(manager.get(&request, "key")?.unwrap_or_default())
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    assert_eq!(server.raw("/sync", &[]).body, "");
    assert_eq!(server.with_cookie("/sync", "_session=forged").body, "");
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(server.with_cookie("/sync", cookie).body, "value");
}

fn a_session_on_demand_that_nothing_asks_for_leaves_the_response_as_it_is(web: Web) {
    let server = Server::scripts(web, on_demand().middleware());
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    for answer in [
        server.raw("/idle", &[]),
        server.with_cookie("/idle", cookie),
    ] {
        assert_eq!(answer.body, "idle");
        for field in ["set-cookie", "vary", "cache-control"] {
            assert_eq!(answer.header(field), None, "{answer:?}");
        }
    }
}

#[test]
fn an_idle_timeout_beyond_the_absolute_one_is_refused_if_the_application_set_it() {
    let builder = || Manager::builder(SignedCookie::new(key()));
    let refused = builder().idle_timeout(30 * DAY).persistent(true).build();
    let error = refused.unwrap_err();
    assert!(matches!(error, ConfigError::IdleTimeoutTooLong { .. }));
    let text = error.to_string();
    for part in ["30 days", "7 days", "absolute_timeout"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let refused = builder().absolute_timeout(DAY).idle_timeout(2 * DAY);
    assert!(refused.build().is_err());
    // The order of the calls does not count, and equal timeouts are valid.
    let valid = builder().idle_timeout(30 * DAY).absolute_timeout(30 * DAY);
    assert!(valid.build().is_ok());
    // The default idle timeout gives way.
    assert!(builder().absolute_timeout(DAY / 2).build().is_ok());
    assert!(builder().build().is_ok());
}

/// The `Debug` text of an error that has no part of the url.
#[track_caller]
fn shown<T>(result: Result<T, StoreError>) -> String {
    let error = result.err().expect("the url is refused");
    let text = format!("{error:?}");
    for secret in ["s3cret", "ada", "x.db", "{"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(!text.contains("is up"), "{text}");
    text
}

#[test]
fn a_url_of_another_program_is_refused_with_the_scheme_that_is_expected() {
    block_on(async {
        for url in [
            "postgres://ada:s3cret@localhost/x.db",
            "sqlite:x.db",
            "ada:s3cret@localhost:6379",
            "http+cluster://ada:s3cret@localhost",
            "redis://localhost,postgres://ada:s3cret@localhost",
            "localhost",
            "",
        ] {
            let text = shown(RedisStore::connect(url).await);
            assert!(text.contains("`redis://`"), "{url}: {text}");
        }
        for url in ["redis://ada:s3cret@localhost", "mysql://localhost", "x.db"] {
            let text = shown(PostgresStore::connect(url).await);
            assert!(text.contains("`postgres://`"), "{url}: {text}");
        }
        for url in ["postgres://ada:s3cret@localhost", "sqlite:x.db", ""] {
            let text = shown(MySqlStore::connect(url).await);
            assert!(text.contains("`mysql://`"), "{url}: {text}");
        }
        let text = shown(RedisStore::connect("postgres://localhost").await);
        assert!(text.contains("PostgresStore"), "{text}");
    });
}

#[test]
fn a_scheme_that_is_not_sqlites_makes_no_file_of_that_name() {
    for url in ["sqlite3:x.db", "file:x.db", "redis://ada:s3cret@localhost"] {
        let text = block_on(async { shown(SqliteStore::connect(url).await) });
        assert!(text.contains("`sqlite:`"), "{text}");
        assert!(!Path::new(url).exists(), "{url}");
    }
}

#[test]
fn a_missing_folder_of_a_sqlite_file_is_named() {
    let missing = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-such-folder");
    let path = missing.join("sessions.db");
    for url in [
        path.display().to_string(),
        format!("sqlite:{}", path.display()),
    ] {
        let error = block_on(async { SqliteStore::connect(url).await.unwrap_err() });
        let text = format!("{error:?}");
        let folder = format!("the folder `{}` does not exist", missing.display());
        assert!(text.contains(&folder), "{text}");
    }
    assert!(!missing.exists());
}

#[test]
fn a_store_error_that_main_prints_has_the_advice_and_its_sources() {
    let refused = std::io::Error::other("connection refused");
    let error = StoreError::failed("Redis", refused);
    let text = format!("{error:?}");
    assert!(text.contains("whether the store is up"), "{text}");
    assert!(text.contains("connection refused"), "{text}");
    assert!(!text.contains('{'), "{text}");
}

fn too_large_names_the_key_that_was_written(web: Web) {
    let app = App::new().get("/", async |session: Session, _| {
        session.add("cart", "small")?;
        let long = "x".repeat(5000);
        let added = session.add("cart", &long).unwrap_err();
        let named = session.namespace("shop").add("list", &long).unwrap_err();
        let flashed = session.flash(&*long).unwrap_err();
        let keys = [&added, &named, &flashed].map(|error| match error {
            Error::TooLarge {
                key, size, limit, ..
            } => {
                assert!(size > limit);
                key.clone()
            }
            error => panic!("{error}"),
        });
        assert_eq!(keys, [Some("cart".into()), Some("shop.list".into()), None]);
        assert!(added.to_string().contains("`cart`"), "{added}");
        let text = flashed.to_string();
        assert!(text.chars().all(|c| !c.is_control()), "{text}");
        Ok("")
    });
    for (backend, builder) in backends() {
        let app = app.clone().wrap(builder().build().unwrap().middleware());
        let answer = block_on(app.call(web, "/"));
        assert_eq!(answer.status, 200, "{backend}");
    }
}

fn two_sessions_tell_caches_once(web: Web) {
    let admin = Manager::builder(PrivateCookie::new(key()));
    let admin = admin.cookie_name("admin").build().unwrap();
    let in_handler = admin.clone();
    let app = App::new().get_request("/", move |request, _| {
        let admin = in_handler.clone();
        async move {
            admin.add(&request, "key", 1)?;
            request.session()?.add("key", 2)?;
            Ok("")
        }
    });
    let main = Manager::new(SignedCookie::new(key()));
    let app = app.wrap(main.middleware()).wrap(admin.middleware());
    for path in ["/", "/"] {
        let answer = block_on(app.clone().call(web, path));
        assert_eq!(answer.all("cache-control").count(), 1, "{answer:?}");
        assert_eq!(answer.all("vary").count(), 1, "{answer:?}");
    }
}

/// What a search of the documentation finds: the methods and the names that other crates have for them.
#[test]
fn the_names_of_other_crates_find_the_methods_in_the_documentation() {
    let methods = [
        ("add", "insert set put"),
        ("get", "get_string read"),
        ("load", "get_as get_value"),
        ("pop", "remove unset delete"),
        ("pop_load", "remove unset remove_as remove_value"),
        ("flash", "message notice"),
        ("flashes", "messages"),
    ];
    let whole = [
        ("contains_key", "has exists"),
        ("keys", "entries"),
        ("handle", "id session_id"),
        ("clear", "remove_all"),
        ("destroy", "purge flush logout log_out invalidate delete"),
        ("renew", "cycle_id regenerate rotate reset_id"),
        ("set_user", "login log_in"),
        ("save", "commit"),
        ("revalidate", "reload refresh"),
    ];
    let values = &methods[..5];
    check_aliases(
        include_str!("../src/session.rs"),
        &[&methods[..], &whole].concat(),
    );
    check_aliases(include_str!("../src/request.rs"), &methods);
    check_aliases(include_str!("../src/session/namespace.rs"), values);
}

#[track_caller]
fn check_aliases(source: &str, methods: &[(&str, &str)]) {
    for (method, names) in methods {
        let begins = |line: &str| {
            let line = line.trim_start().trim_start_matches("pub ");
            let line = line.trim_start_matches("async ");
            let rest = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.strip_prefix(method));
            rest.is_some_and(|rest| rest.starts_with(['(', '<']))
        };
        let lines: Vec<_> = source.lines().collect();
        let public = |line: &&str| line.trim_start().starts_with("pub ") && begins(line);
        let at = lines.iter().position(public).unwrap();
        let attributes: Vec<_> = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.trim_start().starts_with("#["))
            .collect();
        for name in names.split(' ') {
            let alias = format!("\"{name}\"");
            let has = attributes
                .iter()
                .any(|line| line.contains("doc(alias(") && line.contains(&alias));
            assert!(has, "`{name}` does not find `{method}`");
        }
    }
}

on_every_framework!(
    a_forgotten_middleware_is_told_once_on_standard_error_if_nothing_receives_the_log,
    a_forgotten_middleware_is_only_logged_if_something_receives_the_log,
    a_forgotten_middleware_is_a_page_with_the_cure_in_a_debug_build,
    a_session_on_demand_is_not_loaded_with_and_without_a_cookie,
    a_session_on_demand_that_nothing_asks_for_leaves_the_response_as_it_is,
    too_large_names_the_key_that_was_written,
    two_sessions_tell_caches_once,
);
