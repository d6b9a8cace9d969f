//! Login with sessions in Redis: the counterpart of the actix-session example of the same name.
//!
//! ```sh
//! cargo run --example authentication --features redis
//! curl -c jar -H 'Content-Type: application/json' -d '{"username":"ada","password":"hunter2"}' http://localhost:8080/login
//! curl -b jar http://localhost:8080/secret
//! ```

use actix_web::{App, Error, HttpResponse, HttpServer, Responder, dev::Service, error, web};
use serde::Deserialize;
use session_manager::{Manager, RedisStore, SameSite, ServerSide, Session, TypedKey, manager};

const USER: TypedKey<i64> = TypedKey::new("user_id");

#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

/// Returns the user's id if the password is correct.
fn authenticate(credentials: &Credentials) -> Result<i64, Error> {
    // A real application compares with a password hash from its database.
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
    // Prevents session fixation: an id that an attacker planted in this browser becomes invalid.
    session.renew();
    USER.add(&session, &id)?;
    Ok("Welcome!")
}

/// Requires a logged-in user. Each request extends the idle timeout of the session.
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
        // Lets scripts read the cookie, as in the original; by default they cannot.
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
