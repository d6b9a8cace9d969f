//! Where sessions live: `SESSION_STORE` says it, and nothing else in the demo knows.

use std::{
    env::{self, VarError},
    error::Error,
};

// All of it, because which stores there are depends on the features.
use session_manager::*;

/// How often a database is rid of sessions whose time is over; Redis and memory do it themselves.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
const SWEEP: std::time::Duration = std::time::Duration::from_secs(10 * 60);

/// Keeps sessions in a store of SQL, swept as long as the demo runs.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
fn swept<S: Store>(store: S, sweeping: SweepHandle) -> Manager {
    // Dropped, it would end; the demo runs until the process ends.
    std::mem::forget(sweeping);
    Manager::new(ServerSide::new(store))
}

/// Sets the manager that `SESSION_STORE` asks for.
pub async fn choose() -> Result<(), Box<dyn Error>> {
    let url = match env::var("SESSION_STORE") {
        Err(VarError::NotPresent) => "signed".to_owned(),
        url => url.map_err(|error| format!("SESSION_STORE: {error}"))?,
    };
    // `redis+sentinel://…` is Redis. Messages quote no more than this: a url may hold a password.
    let scheme = url.split([':', '+']).next().unwrap_or_default();
    let engine = match scheme {
        "signed" | "private" | "memory" | "sqlite" => scheme,
        "redis" | "rediss" | "valkey" | "valkeys" => "redis",
        "postgres" | "postgresql" => "postgres",
        "mysql" | "mariadb" => "mysql",
        _ => Err(format!(
            "SESSION_STORE begins with `{scheme}`: make it `signed`, `private`, `memory`, or a url \
             that begins with `redis://`, `postgres://`, `mysql://` or `sqlite:`"
        ))?,
    };
    let manager = match engine {
        // Nothing to do: the default manager is a signed cookie, and reads SESSION_SECRET.
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
            "SESSION_STORE asks for {feature}, which was not compiled in: \
             cargo run --example demo --features {feature}"
        ))?,
    };
    manager::set(manager);
    Ok(())
}
