//! A WebSocket uses the session of the request that opened it, until the user logs out.
//!
//! ```sh
//! cargo run --example websocket --features memory
//! ```
//!
//! Open <http://127.0.0.1:7000> in two tabs, count, and log out in one of them: the other one's socket
//! closes. With a store that processes share, so does one in another process:
//!
//! ```sh
//! SESSION_URL=redis://127.0.0.1 cargo run --example websocket --features memory,redis
//! ```

use std::pin::pin;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, rt, web};
use actix_ws::{Message, MessageStream};
use session_manager::{Error, Manager, Session, manager};

async fn page(session: Session) -> Result<impl Responder, Error> {
    // A WebSocket can only write to an existing session, so this page starts one.
    session.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
    Ok(web::Html::new(include_str!("websocket.html")))
}

async fn log_out(session: Session) -> &'static str {
    session.destroy();
    "Logged out. The sockets of the other tabs are closed."
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
    let mut ended = pin!(session.ended());
    loop {
        let message = tokio::select! {
            result = &mut ended => {
                match result {
                    Ok(()) => drop(socket.text("You were logged out elsewhere.").await),
                    Err(error) => eprintln!("{error}"),
                }
                break;
            }
            Some(Ok(message)) = messages.recv() => message,
            else => break,
        };
        let sent = match message {
            Message::Text(_) => match count(&session).await {
                Ok(count) => socket.text(count.to_string()).await,
                // The user logged out at this moment: `ended` is about to say so.
                Err(Error::Ended) => continue,
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
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("SESSION_URL").unwrap_or("memory:".into());
    manager::set(Manager::from_url(&url).await?);
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
    Ok(server.run().await?)
}
