//! Where sessions live: `SESSION_STORE` says it, and nothing else in the demo knows.

use std::{
    env::{self, VarError},
    error::Error,
};

// All of it, because which stores there are depends on the features.
use session_manager::*;

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
        "postgres" => Manager::new(ServerSide::new(PostgresStore::connect(&url).await?)),
        #[cfg(feature = "mysql")]
        "mysql" => Manager::new(ServerSide::new(MySqlStore::connect(&url).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Manager::new(ServerSide::new(SqliteStore::connect(&url).await?)),
        feature => Err(format!(
            "SESSION_STORE asks for {feature}, which was not compiled in: \
             cargo run --example demo --features {feature}"
        ))?,
    };
    manager::set(manager);
    Ok(())
}
