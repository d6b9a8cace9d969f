//! A WebSocket uses the session of the request that opened it, until the user logs out.
//!
//! ```sh
//! cargo run --example websocket --features memory
//! ```
//!
//! Open <http://127.0.0.1:7000> in two tabs, count, and log out in one of them.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, rt, web};
use actix_ws::{Message, MessageStream};
use session_manager::{Error, Manager, MemoryStore, ServerSide, Session, manager};

async fn page(session: Session) -> Result<impl Responder, Error> {
    // A WebSocket can only write to an existing session, so this page starts one.
    session.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
    Ok(web::Html::new(include_str!("websocket.html")))
}

async fn log_out(session: Session) -> &'static str {
    session.destroy();
    "Logged out. The other tabs notice it at their next count."
}

async fn open(
    request: HttpRequest,
    body: web::Payload,
    session: Session,
) -> actix_web::Result<HttpResponse> {
    let (response, socket, messages) = actix_ws::handle(&request, body)?;
    rt::spawn(talk(session, socket, messages));
    Ok(response)
}

async fn talk(session: Session, mut socket: actix_ws::Session, mut messages: MessageStream) {
    while let Some(Ok(message)) = messages.recv().await {
        let sent = match message {
            Message::Text(_) => match count(&session).await {
                Ok(count) => socket.text(count.to_string()).await,
                // The user logged out, so the connection must close.
                Err(Error::Ended) => {
                    let _ = socket.text("You were logged out elsewhere.").await;
                    break;
                }
                Err(error) => {
                    eprintln!("{error}");
                    break;
                }
            },
            Message::Ping(ping) => socket.pong(&ping).await,
            Message::Close(_) => break,
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
}

/// Code that outlives its request must commit explicitly, and must check that the user is still
/// logged in before it acts.
async fn count(session: &Session) -> Result<u32, Error> {
    session.revalidate().await?;
    let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
    session.save().await?;
    Ok(count)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    manager::set(Manager::new(ServerSide::new(MemoryStore::new())));
    let address = std::env::var("DEMO_ADDR").unwrap_or("127.0.0.1:7000".into());
    let server = HttpServer::new(|| {
        App::new()
            .wrap(manager::middleware())
            .route("/", web::get().to(page))
            .route("/socket", web::get().to(open))
            .route("/log-out", web::post().to(log_out))
    })
    .bind(address)?;
    println!("Open http://{}", server.addrs()[0]);
    server.run().await
}
