use super::{url::Target, *};

fn split(url: &str) -> (String, Vec<(&'static str, String)>) {
    let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    (target.url, target.settings)
}

fn refused(url: &str) -> SetupError {
    match Target::parse(url) {
        Ok(target) => panic!("{url} was taken for {}", target.url),
        Err(error) => error,
    }
}

#[test]
fn settings_are_taken_out_of_the_url_and_the_client_keeps_the_rest_as_it_is() {
    for (url, rest, settings) in [
        ("memory:", "memory:", &[][..]),
        ("signed:?name=a", "signed:", &[("cookie_name", "a")]),
        ("private://?idle=5m&", "private://", &[("idle", "5m")]),
        (
            "postgres://a:p%40w@h:1/d?sslmode=prefer&idle=5m&options[a]=b%20c&table=t&user=u",
            "postgres://a:p%40w@h:1/d?sslmode=prefer&options[a]=b%20c&user=u",
            &[("idle", "5m"), ("table", "t")],
        ),
        (
            "mariadb://h/d?secure=true&charset=utf8mb4",
            "mariadb://h/d?charset=utf8mb4",
            &[("secure", "true")],
        ),
        (
            "sqlite:/a b/c#1.db?sweep=1h&mode=rwc",
            "sqlite:/a b/c#1.db?mode=rwc",
            &[("sweep", "1h")],
        ),
        (
            "sqlite:?mode=memory&name=a",
            "sqlite:?mode=memory",
            &[("cookie_name", "a")],
        ),
        (
            "redis://:p@h/2?prefix=a%26b%3A+c&protocol=resp3",
            "redis://:p@h/2?protocol=resp3",
            &[("prefix", "a&b:+c")],
        ),
        (
            "valkey+sentinel://u:p@h:1,h:2/name/3?prefix=a,b",
            "valkey+sentinel://u:p@h:1,h:2/name/3",
            &[("prefix", "a,b")],
        ),
        (
            "redis://u:p@h:1?protocol=3,redis://u:p@h:2?idle_timeout=1d",
            "redis://u:p@h:1?protocol=3,redis://u:p@h:2",
            &[("idle", "1d")],
        ),
        (
            "redis+unix:///run/redis.sock?pass=p&db=1&%6eame=s",
            "redis+unix:///run/redis.sock?pass=p&db=1",
            &[("cookie_name", "s")],
        ),
        // A password with the delimiters that the last `@` makes clear.
        ("mysql://a:p@s:1@h/d", "mysql://a:p@s:1@h/d", &[]),
    ] {
        let settings = settings
            .iter()
            .map(|(name, text)| (*name, (*text).to_owned()));
        assert_eq!(split(url), (rest.to_owned(), settings.collect()), "{url}");
    }
}

#[test]
fn an_unknown_scheme_is_an_error_that_knows_the_closest_one_and_names_all_features() {
    for (url, expected) in [
        ("reddis://h", Some("redis")),
        ("Redis://h", Some("redis")),
        ("postgress://h", Some("postgres")),
        ("memroy:", Some("memory")),
        ("memory", Some("memory")),
        ("redis//h:1", Some("redis")),
        ("https://h", None),
        ("://", None),
        ("://h", None),
        ("a secret that was put into the wrong variable", None),
    ] {
        let error = refused(url);
        let SetupError::UnknownScheme { closest } = error else {
            panic!("{url}: {error}");
        };
        assert_eq!(closest, expected, "{url}");
        for feature in [
            "cookies",
            "memory",
            "sqlite",
            "postgres",
            "mysql",
            "redis",
            "redis-tls",
        ] {
            assert!(
                error.to_string().contains(&format!("`{feature}`")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_parameter_that_neither_is_a_setting_nor_known_to_the_client_is_an_error() {
    for (url, number, expected) in [
        ("memory:?idel=5m", 1, Some("idle")),
        ("memory:?=5m", 1, None),
        ("memory:?%ff=5m", 1, None),
        ("memory:?idle=5m&protocol=3", 2, None),
        ("postgres://h/d?sslmod=require", 1, Some("sslmode")),
        ("postgres://h/d?charset=utf8mb4", 1, None),
        ("mysql://h/d?application_name=a", 1, None),
        ("sqlite:a.db?modus=ro", 1, Some("mode")),
        ("redis://h?db=1", 1, None),
        ("redis+cluster://h,h?protocol=3", 1, None),
        ("redis://h?protocol=3,redis://h?protocol=3&x=1", 3, None),
    ] {
        let SetupError::UnknownParameter { position, closest } = refused(url) else {
            panic!("{url}: {}", refused(url));
        };
        assert_eq!((position, closest), (number, expected), "{url}");
    }
}

#[test]
fn a_malformed_url_is_an_error_before_anything_is_connected() {
    for url in [
        "",
        " memory:",
        "memory:\n",
        "redis://h\0",
        "memory:x",
        "signed:/",
        "private:key",
        "private:?secret=key",
        "sqlite:",
        "sqlite://",
        "sqlite:?mode=ro",
        "redis:h:1",
        "postgres:/h/d",
        "mysql://a:p#w@h/d",
        "mysql://a:p/w@h/d",
        "mysql://a:p?w@h/d",
        "postgres://h/d?name=a@b",
        "redis://h?name=%",
        "redis://h?name=%4",
        "redis://h?name=%zz",
        "redis://h?name=%ff",
        "redis://h,rediss://h",
    ] {
        let error = refused(url);
        assert!(
            matches!(error, SetupError::MalformedUrl { .. }),
            "{url:?}: {error}"
        );
    }
}

#[test]
fn every_parameter_sets_a_field() {
    for (_, name) in PARAMETERS {
        let mut config = Config::default();
        // No text is a value of all settings.
        let is_set = ["true", "15m", "lax", "fail", "7"]
            .iter()
            .any(|text| config.set(name, text).is_ok());
        assert!(is_set, "{name}");
        let again = ["true", "15m", "lax", "fail", "7"].iter().any(|text| {
            matches!(config.set(name, text), Err(SetupError::SetTwice { setting }) if setting == name)
        });
        assert!(again, "{name} sets nothing");
    }
}

/// The error for a url whose feature is not compiled in.
#[allow(dead_code, reason = "all features may be compiled in")]
async fn lacks(url: &str, feature: &str) {
    let mut config = Config::new(url);
    config.secret = Some("a secret of at least thirty-two bytes".to_owned());
    let error = Manager::from_config(config).await.unwrap_err();
    assert!(
        matches!(error, SetupError::MissingFeature { feature: lacking, .. } if lacking == feature),
        "{url}: {error}"
    );
    assert!(
        error.to_string().contains(&format!("`{feature}`")),
        "{error}"
    );
}

#[tokio::test]
async fn a_feature_that_is_not_compiled_in_is_named() {
    #[cfg(not(feature = "cookies"))]
    {
        lacks("signed:", "cookies").await;
        lacks("private:", "cookies").await;
    }
    #[cfg(not(feature = "memory"))]
    lacks("memory:", "memory").await;
    #[cfg(not(feature = "sqlite"))]
    lacks("sqlite::memory:", "sqlite").await;
    #[cfg(not(feature = "postgres"))]
    lacks("postgres://h", "postgres").await;
    #[cfg(not(feature = "mysql"))]
    lacks("mariadb://h", "mysql").await;
    #[cfg(not(feature = "redis"))]
    {
        lacks("redis://h", "redis").await;
        lacks("valkey+sentinel://h/name", "redis").await;
    }
    #[cfg(not(feature = "redis-tls"))]
    lacks("rediss://h", "redis-tls").await;
    #[cfg(not(feature = "sql-tls"))]
    {
        lacks("postgres://h?sslmode=verify-full", "sql-tls").await;
        lacks("mysql://h?ssl-mode=REQUIRED", "sql-tls").await;
    }
}

#[test]
fn the_futures_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    is_send(Manager::from_url("memory:"));
    is_send(Manager::from_config(Config::default()));
    is_send(set_from_env());
}
