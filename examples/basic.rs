//! The smallest application: one route writes to the session, one reads it.
//!
//! ```sh
//! SESSION_SECRET=$(openssl rand -base64 48) cargo run --example basic
//! ```
//!
//! Then open <http://127.0.0.1:7000/put> and <http://127.0.0.1:7000/get>.

use actix_web::{App, HttpRequest, HttpServer, web};
use session_manager::{Key, Manager, Message, SignedCookie, manager};

async fn put(req: HttpRequest) -> Result<&'static str, session_manager::Error> {
    manager::get().add(&req, "key", "value")?;
    manager::get().flash(&req, Message::success("Stored"))?;
    Ok("stored")
}

async fn get(req: HttpRequest) -> Result<String, session_manager::Error> {
    Ok(manager::get().get(&req, "key")?.unwrap_or_default())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    manager::set(Manager::new(SignedCookie::new(Key::from_env(
        "SESSION_SECRET",
    )?)));
    HttpServer::new(|| {
        App::new()
            .wrap(manager::middleware())
            .route("/put", web::get().to(put))
            .route("/get", web::get().to(get))
    })
    .bind(("127.0.0.1", 7000))?
    .run()
    .await?;
    Ok(())
}
