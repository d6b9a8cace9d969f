//! One login across actix-web and axum: two applications share a manager, so logging in to one also
//! logs in to the other.
//!
//! ```sh
//! cargo run --example one_login --features axum,memory
//! ```
//!
//! Log in at <http://127.0.0.1:7000/log-in/ada> (actix-web), then open <http://127.0.0.1:7001>
//! (axum). Log out at <http://127.0.0.1:7001/log-out> and look at the first one again. Browsers
//! send a cookie to every port of its host; `Builder::cookie_domain` shares it between the hosts of
//! one domain.
//!
//! Applications in one process can share any backend. Applications in two processes share cookies
//! if they use the same key, or server-side sessions if they use the same store.

use actix_web::{App, HttpServer, web};
use axum::{Router, routing::get};
use session_manager::{Error, HasSession, Manager, MemoryStore, ServerSide, TypedKey, manager};

const USER: TypedKey<String> = TypedKey::new("auth.user");

// Functions of a library crate, which work with both frameworks.

fn log_in(request: &impl HasSession, name: &str) -> Result<(), Error> {
    manager::get().session(request)?.renew();
    USER.add(request, name)
}

fn log_out(request: &impl HasSession) -> Result<&'static str, Error> {
    manager::get().session(request)?.destroy();
    Ok("logged out")
}

fn who(request: &impl HasSession) -> Result<String, Error> {
    Ok(USER.load(request)?.unwrap_or("nobody".into()))
}

mod with_actix {
    use super::*;
    use actix_web::HttpRequest;

    pub(super) async fn log_in(req: HttpRequest, name: web::Path<String>) -> Result<String, Error> {
        super::log_in(&req, &name)?;
        Ok(format!("{name} is logged in"))
    }

    pub(super) async fn who(req: HttpRequest) -> Result<String, Error> {
        Ok(format!("actix-web knows you as {}", super::who(&req)?))
    }
}

mod with_axum {
    use super::*;
    use axum::extract::Request;

    pub(super) async fn who(req: Request) -> Result<String, Error> {
        Ok(format!("axum knows you as {}", super::who(&req)?))
    }

    pub(super) async fn log_out(req: Request) -> Result<&'static str, Error> {
        super::log_out(&req)
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    manager::set(Manager::new(ServerSide::new(MemoryStore::new())));

    let axum = Router::new()
        .route("/", get(with_axum::who))
        .route("/log-out", get(with_axum::log_out))
        .layer(manager::middleware());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:7001").await?;
    tokio::spawn(async { axum::serve(listener, axum).await });

    println!("http://127.0.0.1:7000/log-in/ada, then http://127.0.0.1:7001");
    HttpServer::new(|| {
        App::new()
            .wrap(manager::middleware())
            .route("/", web::get().to(with_actix::who))
            .route("/log-in/{name}", web::get().to(with_actix::log_in))
    })
    .bind(("127.0.0.1", 7000))?
    .run()
    .await
}
