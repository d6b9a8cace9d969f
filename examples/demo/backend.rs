//! Chooses the backend from `SESSION_STORE`. The rest of the demo does not depend on it.

use std::{
    env::{self, VarError},
    error::Error,
};

// A glob import, because the available stores depend on the features.
use session_manager::*;

/// The interval at which expired sessions are deleted from a database; Redis and memory need no
/// sweep.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
const SWEEP: std::time::Duration = std::time::Duration::from_secs(10 * 60);

/// Returns a manager for a SQL store that is swept while the demo runs.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
fn swept<S: Store>(store: S, sweeping: store::SweepHandle) -> Manager {
    // Dropping the handle would end the sweeping, which must last as long as the process.
    std::mem::forget(sweeping);
    Manager::new(ServerSide::new(store))
}

/// Sets the manager that `SESSION_STORE` selects.
pub async fn choose() -> Result<(), Box<dyn Error>> {
    let url = match env::var("SESSION_STORE") {
        Err(VarError::NotPresent) => "signed".to_owned(),
        url => url.map_err(|error| format!("SESSION_STORE: {error}"))?,
    };
    // `redis+sentinel://…` is Redis. Error texts quote only the scheme, as a url may hold a
    // password.
    let scheme = url.split([':', '+']).next().unwrap_or_default();
    let backend = match scheme {
        "signed" | "private" | "memory" | "sqlite" => scheme,
        "redis" | "rediss" | "valkey" | "valkeys" => "redis",
        "postgres" | "postgresql" => "postgres",
        "mysql" | "mariadb" => "mysql",
        _ => Err(format!(
            "SESSION_STORE begins with `{scheme}`, which is unknown: set it to `signed`, `private`, \
             `memory`, or a url that begins with `redis://`, `postgres://`, `mysql://` or `sqlite:`"
        ))?,
    };
    let manager = match backend {
        // The default manager already uses a signed cookie with SESSION_SECRET.
        "signed" => return Ok(()),
        "private" => Manager::new(PrivateCookie::new(Key::from_env("SESSION_SECRET")?)),
        #[cfg(feature = "memory")]
        "memory" => Manager::new(ServerSide::new(MemoryStore::new())),
        #[cfg(feature = "redis")]
        "redis" => Manager::new(ServerSide::new(RedisStore::connect(&url).await?)),
        #[cfg(feature = "postgres")]
        "postgres" => {
            let store = PostgresStore::connect(&url).await?;
            let sweeping = store.start_sweeping(SWEEP);
            swept(store, sweeping)
        }
        #[cfg(feature = "mysql")]
        "mysql" => {
            let store = MySqlStore::connect(&url).await?;
            let sweeping = store.start_sweeping(SWEEP);
            swept(store, sweeping)
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let store = SqliteStore::connect(&url).await?;
            let sweeping = store.start_sweeping(SWEEP);
            swept(store, sweeping)
        }
        feature => Err(format!(
            "SESSION_STORE needs the feature `{feature}`, which is not compiled in: run \
             `cargo run --example demo --features {feature}`"
        ))?,
    };
    manager::set(manager);
    Ok(())
}
