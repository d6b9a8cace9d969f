//! A manager from a url, the environment or a configuration file.

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use cookie::SameSite;
use serde::Deserialize;

use self::{
    backend::{Chosen, Keys},
    setting::{Setting, optional, secret, secrets},
    url::Target,
};
use super::{Manager, builder::Builder, default::default_builder, global::set_at};
use crate::{backend::missing::Missing, settings::OnStoreError};

mod backend;
mod error;
mod setting;
mod url;

pub use error::SetupError;

/// The environment variable that [`set_from_env`] reads the url from.
const URL: &str = "SESSION_URL";

/// The configuration of a [`Manager`], which serde reads from TOML, JSON, YAML and the like.
///
/// Only [`url`](Self::url) is required. Every other field except the secrets may also be a query
/// parameter of the url, under the same name; a setting in both is an error. Unknown fields are an
/// error. Durations are a number and a unit, `ms`, `s`, `m`, `h` or `d`: `"30d"`.
///
/// ```toml
/// url = "redis://127.0.0.1:6379"
/// secret = "0123456789abcdef0123456789abcdef"
/// accept = ["the secret that signed until last week"]
/// cookie_name = "__Host-shop"
/// idle = "20m"
/// absolute = "30d"
/// persistent = true
/// ```
///
/// `Debug` shows neither the url nor a secret. If the file cannot be read, however, the error of
/// the format's own parser may quote the line that it stopped at.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use session_manager::{Config, Manager};
///
/// let config: Config = serde_json::from_str(r#"{ "url": "memory:", "idle": "20m" }"#)?;
/// let manager = Manager::from_config(config).await?;
/// assert_eq!(manager.backend_name(), "memory");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The backend, as in [`Manager::from_url`].
    pub url: String,
    /// The secret that signs or encrypts cookies, and signs the ids of server-side sessions.
    /// Default: the environment variable `SESSION_SECRET`.
    #[serde(default, deserialize_with = "secret")]
    pub secret: Option<String>,
    /// Former secrets, whose cookies stay valid: to rotate the secret. Default: the environment
    /// variable `SESSION_ACCEPT`, which separates them by commas.
    #[serde(default, deserialize_with = "secrets")]
    pub accept: Vec<String>,
    /// [`Builder::cookie_name`].
    #[serde(default, deserialize_with = "optional", alias = "name")]
    pub cookie_name: Option<String>,
    /// [`Builder::cookie_path`].
    #[serde(default, deserialize_with = "optional", alias = "cookie_path")]
    pub path: Option<String>,
    /// [`Builder::cookie_domain`].
    #[serde(default, deserialize_with = "optional", alias = "cookie_domain")]
    pub domain: Option<String>,
    /// [`Builder::secure`].
    pub secure: Option<bool>,
    /// [`Builder::http_only`].
    pub http_only: Option<bool>,
    /// [`Builder::same_site`]: `strict`, `lax` or `none`.
    #[serde(default, deserialize_with = "optional")]
    pub same_site: Option<SameSite>,
    /// [`Builder::partitioned`].
    pub partitioned: Option<bool>,
    /// [`Builder::persistent`].
    pub persistent: Option<bool>,
    /// [`Builder::idle_timeout`].
    #[serde(default, deserialize_with = "optional", alias = "idle_timeout")]
    pub idle: Option<Duration>,
    /// [`Builder::absolute_timeout`].
    #[serde(default, deserialize_with = "optional", alias = "absolute_timeout")]
    pub absolute: Option<Duration>,
    /// [`Builder::on_store_error`]: `fail` or `anonymous`.
    #[serde(default, deserialize_with = "optional")]
    pub on_store_error: Option<OnStoreError>,
    /// [`Builder::commit_on_server_error`].
    pub commit_on_server_error: Option<bool>,
    /// [`Builder::load_on_demand`].
    pub load_on_demand: Option<bool>,
    /// The time limit of a store call: [`ServerSide::time_limit`](crate::ServerSide::time_limit).
    #[serde(default, deserialize_with = "optional")]
    pub time_limit: Option<Duration>,
    /// The maximum size of a server-side session in bytes:
    /// [`ServerSide::max_size`](crate::ServerSide::max_size).
    pub max_size: Option<usize>,
    /// The prefix of all keys in Redis:
    /// [`RedisStore::with_prefix`](crate::RedisStore::with_prefix).
    #[serde(default, deserialize_with = "optional")]
    pub prefix: Option<String>,
    /// The table in an SQL database:
    /// [`PostgresStore::with_table`](crate::PostgresStore::with_table).
    #[serde(default, deserialize_with = "optional")]
    pub table: Option<String>,
    /// The interval at which expired rows are deleted from an SQL database. Default: 10 minutes.
    #[serde(default, deserialize_with = "optional")]
    pub sweep: Option<Duration>,
}

/// The names of the query parameters that are settings, and the field of [`Config`] of each.
const PARAMETERS: [(&str, &str); 23] = [
    ("cookie_name", "cookie_name"),
    ("name", "cookie_name"),
    ("path", "path"),
    ("cookie_path", "path"),
    ("domain", "domain"),
    ("cookie_domain", "domain"),
    ("secure", "secure"),
    ("http_only", "http_only"),
    ("same_site", "same_site"),
    ("partitioned", "partitioned"),
    ("persistent", "persistent"),
    ("idle", "idle"),
    ("idle_timeout", "idle"),
    ("absolute", "absolute"),
    ("absolute_timeout", "absolute"),
    ("on_store_error", "on_store_error"),
    ("commit_on_server_error", "commit_on_server_error"),
    ("load_on_demand", "load_on_demand"),
    ("time_limit", "time_limit"),
    ("max_size", "max_size"),
    ("prefix", "prefix"),
    ("table", "table"),
    ("sweep", "sweep"),
];

impl Config {
    /// Returns the configuration for `url` with all defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_manager::Config;
    ///
    /// let mut config = Config::new("signed:");
    /// config.idle = Some(Duration::from_secs(20 * 60));
    /// ```
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// Sets the field `name` from the text of a query parameter.
    fn set(&mut self, name: &'static str, text: &str) -> Result<(), SetupError> {
        match name {
            "cookie_name" => put(&mut self.cookie_name, name, text),
            "path" => put(&mut self.path, name, text),
            "domain" => put(&mut self.domain, name, text),
            "secure" => put(&mut self.secure, name, text),
            "http_only" => put(&mut self.http_only, name, text),
            "same_site" => put(&mut self.same_site, name, text),
            "partitioned" => put(&mut self.partitioned, name, text),
            "persistent" => put(&mut self.persistent, name, text),
            "idle" => put(&mut self.idle, name, text),
            "absolute" => put(&mut self.absolute, name, text),
            "on_store_error" => put(&mut self.on_store_error, name, text),
            "commit_on_server_error" => put(&mut self.commit_on_server_error, name, text),
            "load_on_demand" => put(&mut self.load_on_demand, name, text),
            "time_limit" => put(&mut self.time_limit, name, text),
            "max_size" => put(&mut self.max_size, name, text),
            "prefix" => put(&mut self.prefix, name, text),
            "table" => put(&mut self.table, name, text),
            "sweep" => put(&mut self.sweep, name, text),
            _ => Ok(()),
        }
    }

    /// Applies the settings of the cookie, the timeouts and the requests.
    fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(name) = &self.cookie_name {
            builder = builder.cookie_name(name);
        }
        if let Some(path) = &self.path {
            builder = builder.cookie_path(path);
        }
        if let Some(domain) = &self.domain {
            builder = builder.cookie_domain(domain);
        }
        if let Some(secure) = self.secure {
            builder = builder.secure(secure);
        }
        if let Some(http_only) = self.http_only {
            builder = builder.http_only(http_only);
        }
        if let Some(same_site) = self.same_site {
            builder = builder.same_site(same_site);
        }
        if let Some(partitioned) = self.partitioned {
            builder = builder.partitioned(partitioned);
        }
        if let Some(persistent) = self.persistent {
            builder = builder.persistent(persistent);
        }
        if let Some(idle) = self.idle {
            builder = builder.idle_timeout(idle);
        }
        if let Some(absolute) = self.absolute {
            builder = builder.absolute_timeout(absolute);
        }
        if let Some(policy) = self.on_store_error {
            builder = builder.on_store_error(policy);
        }
        if let Some(commit) = self.commit_on_server_error {
            builder = builder.commit_on_server_error(commit);
        }
        if self.load_on_demand == Some(true) {
            builder = builder.load_on_demand();
        }
        builder
    }
}

/// Sets a field that is not set yet.
fn put<T: Setting>(
    field: &mut Option<T>,
    name: &'static str,
    text: &str,
) -> Result<(), SetupError> {
    let value = T::read(text).ok_or(SetupError::InvalidValue {
        setting: name,
        expected: T::EXPECTED,
    })?;
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(SetupError::SetTwice { setting: name }),
    }
}

/// Shows neither the url nor a secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("scheme", &url::scheme(&self.url))
            .field("has_secret", &self.secret.is_some())
            .field("accepted_secrets", &self.accept.len())
            .field("cookie_name", &self.cookie_name)
            .field("idle", &self.idle)
            .field("absolute", &self.absolute)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// Creates a manager from a url: connects, creates the table in an SQL database if it is
    /// missing, and deletes expired rows at an interval, until the last handle of the manager is
    /// dropped.
    ///
    /// | url | backend | feature |
    /// |---|---|---|
    /// | `signed:` | [`SignedCookie`](crate::SignedCookie) | `cookies` |
    /// | `private:` | [`PrivateCookie`](crate::PrivateCookie) | `cookies` |
    /// | `memory:` | [`MemoryStore`](crate::MemoryStore) | `memory` |
    /// | `sqlite:sessions.db` | [`SqliteStore`](crate::SqliteStore) | `sqlite` |
    /// | `postgres://…`, `postgresql://…` | [`PostgresStore`](crate::PostgresStore) | `postgres` |
    /// | `mysql://…`, `mariadb://…` | [`MySqlStore`](crate::MySqlStore) | `mysql` |
    /// | `redis://…`, `valkey://…`, and all others of [`RedisStore`](crate::RedisStore) | [`RedisStore`](crate::RedisStore) | `redis` |
    /// | `rediss://…`, `valkeys://…` | [`RedisStore`](crate::RedisStore) over TLS | `redis-tls` |
    ///
    /// The query parameters are the fields of [`Config`] under their names, except for the url and
    /// the secrets, and those of the store's client:
    /// `postgres://app@db.internal/app?sslmode=require&cookie_name=shop&idle=20m`. In a parameter,
    /// write `&`, `%`, `#` and `@` percent-encoded.
    ///
    /// The environment variable `SESSION_SECRET` signs or encrypts cookies, and `SESSION_ACCEPT`
    /// lists former secrets whose cookies stay valid, separated by commas. If `SESSION_SECRET` is
    /// set, it also signs the ids of server-side sessions
    /// ([`ServerSide::signed_with`](crate::ServerSide::signed_with)): setting it on a running site
    /// therefore ends the sessions that have an unsigned id. Without it, `signed:` uses the
    /// development key of the [default manager](super::SESSION_MANAGER) in a debug build, and is an
    /// error in a release build; `private:` is an error in both.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the url is malformed or has an unknown scheme or parameter, a feature is not
    /// compiled in, the secret is missing or too short, the store cannot be reached or refuses. No
    /// error quotes the url.
    ///
    /// ```no_run
    /// use session_manager::{Manager, SetupError, manager};
    ///
    /// # async fn f() -> Result<(), SetupError> {
    /// manager::set(Manager::from_url("redis://127.0.0.1:6379?prefix=shop:&idle=20m").await?);
    /// # Ok(()) }
    /// ```
    pub async fn from_url(url: impl AsRef<str>) -> Result<Self, SetupError> {
        Self::from_config(Config::new(url.as_ref())).await
    }

    /// Creates a manager from a [`Config`], as [`from_url`](Self::from_url) does.
    ///
    /// # Errors
    ///
    /// As [`from_url`](Self::from_url), and if a setting is both in the url and in a field.
    pub async fn from_config(config: Config) -> Result<Self, SetupError> {
        Ok(Builder::from_config(config).await?.build()?)
    }
}

/// A builder from a configuration, for what text cannot express: an observer, a clock, an older
/// manager to migrate from.
impl Builder {
    /// Creates the builder of [`Manager::from_config`], which connects already.
    ///
    /// # Errors
    ///
    /// As [`Manager::from_config`].
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use session_manager::{Builder, Config, observer::{About, Event}};
    ///
    /// let manager = Builder::from_config(Config::new("memory:"))
    ///     .await?
    ///     .observe(|event: Event, _: &About<'_>| println!("{}", event.name()))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn from_config(mut config: Config) -> Result<Self, SetupError> {
        let target = Target::parse(&config.url)?;
        for (name, text) in &target.settings {
            config.set(name, text)?;
        }
        target.kind.check(target.scheme, &config)?;
        // Before anything is connected.
        config.apply(Builder::new(Arc::new(Missing))).build()?;
        let keys = Keys::of(&config)?;
        let Chosen {
            backend,
            insecure,
            sweeping,
        } = backend::choose(&target, &config, keys).await?;
        let builder = Builder::new(backend).insecure(insecure).sweeping(sweeping);
        Ok(config.apply(builder))
    }

    /// Creates the builder of [`manager::set_from_env`](set_from_env), which connects already.
    ///
    /// # Errors
    ///
    /// As [`manager::set_from_env`](set_from_env).
    ///
    /// ```no_run
    /// use session_manager::{Builder, manager, observer::{About, Event}};
    ///
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = Builder::from_env().await?;
    /// let observed = builder.observe(|event: Event, _: &About<'_>| println!("{}", event.name()));
    /// manager::set(observed.build()?);
    /// # Ok(()) }
    /// ```
    pub async fn from_env() -> Result<Self, SetupError> {
        match variable(URL)? {
            Some(url) => Self::from_config(Config::new(url)).await,
            None => by_default(),
        }
    }
}

/// Sets the process-wide manager to the one that the environment describes, and returns the former
/// one.
///
/// `SESSION_URL` is the url, `SESSION_SECRET` the secret, and `SESSION_ACCEPT` lists the former
/// ones, as in [`Manager::from_url`]. Without `SESSION_URL`, this sets the [default
/// manager](super::SESSION_MANAGER): a signed cookie, without `SESSION_SECRET` with the development
/// key in a debug build and with a random key in a release build.
/// [`is_insecure_default`](super::is_insecure_default) tells whether the secret is missing.
///
/// # Errors
///
/// [`SetupError`], as from [`Manager::from_url`]; also if `SESSION_URL` or `SESSION_SECRET` is set
/// and empty, or a secret is too short.
///
/// ```no_run
/// use session_manager::{SetupError, manager};
///
/// # async fn f() -> Result<(), SetupError> {
/// manager::set_from_env().await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn set_from_env() -> impl Future<Output = Result<Arc<Manager>, SetupError>> + Send + use<> {
    let caller = Location::caller();
    async move {
        let manager = Builder::from_env().await?.build()?;
        Ok(set_at(manager.into(), caller))
    }
}

/// Returns the builder of the default manager, unless it could not work or ignores a secret that is
/// too short.
fn by_default() -> Result<Builder, SetupError> {
    if cfg!(not(feature = "cookies")) {
        return Err(SetupError::MissingFeature {
            scheme: "signed",
            feature: "cookies",
        });
    }
    Keys::of(&Config::default())?;
    Ok(default_builder())
}

/// Returns the value of an environment variable, if it is set.
fn variable(name: &'static str) -> Result<Option<String>, SetupError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(SetupError::NotUnicode { variable: name }),
    }
}

#[cfg(test)]
mod tests;
