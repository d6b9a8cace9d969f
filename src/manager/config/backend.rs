//! Creates the backend that a url names.

use std::{any::Any, sync::Arc};

use super::{Config, SetupError, url::Target};
use crate::{backend::Backend, manager::default::Insecure};
#[cfg(any(feature = "cookies", feature = "server-side"))]
use crate::{
    key::{Key, KeyError},
    manager::default::{ACCEPT, SECRET},
};

/// The backend that a scheme names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Signed,
    Private,
    Memory,
    Sqlite,
    Postgres,
    MySql,
    Redis,
    RedisTls,
}

/// A backend, and what its manager keeps for it.
pub(super) struct Chosen {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) insecure: Option<Insecure>,
    /// Deletes expired rows until it is dropped.
    pub(super) sweeping: Option<Sweeping>,
}

pub(in crate::manager) type Sweeping = Box<dyn Any + Send + Sync>;

impl Kind {
    fn feature(self) -> &'static str {
        match self {
            Self::Signed | Self::Private => "cookies",
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Redis => "redis",
            Self::RedisTls => "redis-tls",
        }
    }

    /// Checks that every setting applies to this backend.
    pub(super) fn check(self, scheme: &'static str, config: &Config) -> Result<(), SetupError> {
        let is_sql = matches!(self, Self::Sqlite | Self::Postgres | Self::MySql);
        let is_redis = matches!(self, Self::Redis | Self::RedisTls);
        let is_server_side = is_sql || is_redis || self == Self::Memory;
        for (setting, is_set, applies) in [
            ("prefix", config.prefix.is_some(), is_redis),
            ("table", config.table.is_some(), is_sql),
            ("sweep", config.sweep.is_some(), is_sql),
            ("time_limit", config.time_limit.is_some(), is_server_side),
            ("max_size", config.max_size.is_some(), is_server_side),
        ] {
            if is_set && !applies {
                return Err(SetupError::NotApplicable { setting, scheme });
            }
        }
        // A field that the application set itself can be zero.
        for (setting, is_zero) in [
            ("sweep", config.sweep.is_some_and(|sweep| sweep.is_zero())),
            (
                "time_limit",
                config.time_limit.is_some_and(|limit| limit.is_zero()),
            ),
            ("max_size", config.max_size == Some(0)),
        ] {
            if is_zero {
                return Err(SetupError::InvalidValue {
                    setting,
                    expected: "more than zero",
                });
            }
        }
        Ok(())
    }
}

/// The keys of a configuration.
#[cfg(any(feature = "cookies", feature = "server-side"))]
#[cfg_attr(
    not(any(
        feature = "cookies",
        feature = "memory",
        feature = "redis",
        feature = "postgres",
        feature = "mysql",
        feature = "sqlite"
    )),
    allow(dead_code, reason = "no url names a store of the application's own")
)]
pub(super) struct Keys {
    key: Option<Key>,
    accept: Vec<Key>,
}

/// Without a backend there are no keys.
#[cfg(not(any(feature = "cookies", feature = "server-side")))]
pub(super) struct Keys;

#[cfg(not(any(feature = "cookies", feature = "server-side")))]
impl Keys {
    pub(super) fn of(_: &Config) -> Result<Self, SetupError> {
        Ok(Self)
    }
}

#[cfg(any(feature = "cookies", feature = "server-side"))]
impl Keys {
    pub(super) fn of(config: &Config) -> Result<Self, SetupError> {
        let key = match &config.secret {
            Some(secret) => Some(Key::from_secret(secret)?),
            None => match Key::from_env(SECRET) {
                Ok(key) => Some(key),
                Err(KeyError::NotSet { .. }) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let accept = match &*config.accept {
            [] => Key::list_from_env(ACCEPT)?,
            accept => (accept.iter().map(Key::from_secret)).collect::<Result<_, _>>()?,
        };
        if key.is_none() && !accept.is_empty() {
            return Err(not_set().into());
        }
        Ok(Self { key, accept })
    }
}

#[cfg(any(feature = "cookies", feature = "server-side"))]
fn not_set() -> KeyError {
    KeyError::NotSet {
        name: SECRET.into(),
    }
}

/// Creates the backend. Connects to its store, creates the table and starts sweeping.
pub(super) async fn choose(
    target: &Target,
    config: &Config,
    keys: Keys,
) -> Result<Chosen, SetupError> {
    match target.kind {
        #[cfg(feature = "cookies")]
        Kind::Signed => cookies::signed(keys),
        #[cfg(feature = "cookies")]
        Kind::Private => cookies::private(keys),
        #[cfg(feature = "memory")]
        Kind::Memory => {
            let store = crate::store::memory::MemoryStore::new();
            Ok(stores::server_side(store, config, keys, None))
        }
        #[cfg(feature = "redis")]
        Kind::Redis => stores::redis(target, config, keys).await,
        #[cfg(feature = "redis-tls")]
        Kind::RedisTls => stores::redis(target, config, keys).await,
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => stores::sqlite(target, config, keys).await,
        #[cfg(feature = "postgres")]
        Kind::Postgres => stores::postgres(target, config, keys).await,
        #[cfg(feature = "mysql")]
        Kind::MySql => stores::mysql(target, config, keys).await,
        #[allow(unreachable_patterns, reason = "depends on the features")]
        kind => {
            let _ = (config, keys);
            Err(SetupError::MissingFeature {
                scheme: target.scheme,
                feature: kind.feature(),
            })
        }
    }
}

#[cfg(feature = "cookies")]
mod cookies {
    use super::*;
    use crate::{
        backend::{private_cookie::PrivateCookie, signed_cookie::SignedCookie},
        manager::default::development_key,
    };

    pub(super) fn signed(keys: Keys) -> Result<Chosen, SetupError> {
        let (key, insecure) = match keys.key {
            Some(key) => (key, None),
            None => {
                let (key, insecure) = development_key(not_set())?;
                (key, Some(insecure))
            }
        };
        let accept = keys.accept.into_iter();
        let backend = accept.fold(SignedCookie::new(key), SignedCookie::accept);
        Ok(Chosen {
            backend: Arc::new(backend),
            insecure,
            sweeping: None,
        })
    }

    pub(super) fn private(keys: Keys) -> Result<Chosen, SetupError> {
        let key = keys.key.ok_or_else(not_set)?;
        let accept = keys.accept.into_iter();
        let backend = accept.fold(PrivateCookie::new(key), PrivateCookie::accept);
        Ok(Chosen {
            backend: Arc::new(backend),
            insecure: None,
            sweeping: None,
        })
    }
}

#[cfg(any(
    feature = "memory",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
mod stores {
    use super::*;
    use crate::{backend::server_side::ServerSide, store::Store};

    /// The interval of sweeping, unless the configuration has one.
    #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
    const SWEEP: std::time::Duration = std::time::Duration::from_secs(10 * 60);

    pub(super) fn server_side(
        store: impl Store,
        config: &Config,
        keys: Keys,
        sweeping: Option<Sweeping>,
    ) -> Chosen {
        let mut backend = ServerSide::new(store);
        if let Some(limit) = config.time_limit {
            backend = backend.time_limit(limit);
        }
        if let Some(bytes) = config.max_size {
            backend = backend.max_size(bytes);
        }
        if let Some(key) = keys.key {
            backend = backend.signed_with(key);
        }
        let accept = keys.accept.into_iter();
        Chosen {
            backend: Arc::new(accept.fold(backend, ServerSide::accept)),
            insecure: None,
            sweeping,
        }
    }

    /// The clients panic without a runtime.
    #[cfg(any(
        feature = "redis",
        feature = "postgres",
        feature = "mysql",
        feature = "sqlite"
    ))]
    fn need_runtime(target: &Target) -> Result<(), SetupError> {
        match tokio::runtime::Handle::try_current() {
            Ok(_) => Ok(()),
            Err(_) => Err(SetupError::NoRuntime {
                scheme: target.scheme,
            }),
        }
    }

    #[cfg(feature = "redis")]
    pub(super) async fn redis(
        target: &Target,
        config: &Config,
        keys: Keys,
    ) -> Result<Chosen, SetupError> {
        need_runtime(target)?;
        let mut store = crate::store::redis::RedisStore::connect(&target.url).await?;
        if let Some(prefix) = &config.prefix {
            store = store.with_prefix(prefix);
        }
        Ok(server_side(store, config, keys, None))
    }

    /// Writes the function for one SQL store.
    macro_rules! sql {
        ($name:ident, $feature:literal, $store:path) => {
            #[cfg(feature = $feature)]
            pub(super) async fn $name(
                target: &Target,
                config: &Config,
                keys: Keys,
            ) -> Result<Chosen, SetupError> {
                need_runtime(target)?;
                let mut store = <$store>::connect_lazy(&target.url)?;
                if let Some(table) = &config.table {
                    store = store
                        .with_table(table)
                        .map_err(|_| SetupError::InvalidValue {
                            setting: "table",
                            expected: "1 to 48 lower-case letters, digits and `_`, and must not begin \
                                       with a digit",
                        })?;
                }
                store.finish_connecting().await?;
                let sweeping = store.start_sweeping(config.sweep.unwrap_or(SWEEP));
                Ok(server_side(store, config, keys, Some(Box::new(sweeping))))
            }
        };
    }

    sql!(sqlite, "sqlite", crate::store::sql::sqlite::SqliteStore);
    sql!(
        postgres,
        "postgres",
        crate::store::sql::postgres::PostgresStore
    );
    sql!(mysql, "mysql", crate::store::sql::mysql::MySqlStore);
}
