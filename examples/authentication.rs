//! Logging in, with sessions in Redis: what the example of the same name in actix-session does.
//!
//! ```sh
//! cargo run --example authentication --features redis
//! curl -c jar -H 'Content-Type: application/json' -d '{"username":"ada","password":"hunter2"}' http://localhost:8080/login
//! curl -b jar http://localhost:8080/secret
//! ```

use actix_web::{App, Error, HttpResponse, HttpServer, Responder, dev::Service, error, web};
use serde::Deserialize;
use session_manager::{Manager, RedisStore, SameSite, ServerSide, Session, SessionKey, manager};

const USER: SessionKey<i64> = SessionKey::new("user_id");

#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

/// The user's id, if the password is right.
fn authenticate(credentials: &Credentials) -> Result<i64, Error> {
    // Where a real application asks its database for a hash.
    if credentials.password != "hunter2" {
        return Err(unauthorized());
    }
    tracing::info!("{:?} logs in", credentials.username);
    Ok(42)
}

fn unauthorized() -> Error {
    error::InternalError::from_response("", HttpResponse::Unauthorized().json("Unauthorized"))
        .into()
}

async fn log_in(
    credentials: web::Json<Credentials>,
    session: Session,
) -> Result<impl Responder, Error> {
    let id = authenticate(&credentials)?;
    // An id that somebody planted in this browser before is worth nothing from here on.
    session.renew();
    USER.add(&session, &id)?;
    Ok("Welcome!")
}

/// For those who are logged in. Any request of theirs keeps the session alive.
async fn secret(session: Session) -> Result<impl Responder, Error> {
    USER.load(&session)?.ok_or_else(unauthorized)?;
    Ok("secret revealed")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init();
    tracing::info!("connecting to Redis");
    let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
    let builder = Manager::builder(ServerSide::new(store))
        // Scripts may read the cookie, as in the original; the default is that they may not.
        .http_only(false)
        .same_site(SameSite::Strict);
    manager::set(builder.build()?);
    tracing::info!("serving http://localhost:8080");
    HttpServer::new(|| {
        App::new()
            .wrap(manager::middleware())
            .wrap_fn(|request, service| {
                tracing::info!("{} {}", request.method(), request.path());
                service.call(request)
            })
            .route("/login", web::post().to(log_in))
            .route("/secret", web::get().to(secret))
    })
    .bind(("127.0.0.1", 8080))?
    .run()
    .await?;
    Ok(())
}
