//! actix-web-flash-messages, unmodified, on the request's own session.

use std::net::SocketAddr;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ResponseHead, web};
use actix_web_flash_messages::{
    FlashMessage, FlashMessagesFramework, IncomingFlashMessages,
    storage::{FlashMessageStore, LoadError, StoreError},
};
use consumers::{get, serve_actix, tests_on};
use session_manager::{Manager, manager};

tests_on! {
    server_side: a_message_is_read_once;
    signed_cookies: a_message_is_read_once;
}

/// The store of the page `using-other-crates`.
struct SessionFlashes;

impl FlashMessageStore for SessionFlashes {
    fn load(&self, request: &HttpRequest) -> Result<Vec<FlashMessage>, LoadError> {
        let messages = manager::get().load(request, "flash-messages");
        let messages = messages.map_err(|error| LoadError::GenericError(error.into()))?;
        Ok(messages.unwrap_or_default())
    }

    fn store(
        &self,
        messages: &[FlashMessage],
        request: HttpRequest,
        _: &mut ResponseHead,
    ) -> Result<(), StoreError> {
        let manager = manager::get();
        let stored = match messages {
            [] => manager.pop(&request, "flash-messages").map(|_| ()),
            messages => manager.add(&request, "flash-messages", messages),
        };
        stored.map_err(|error| StoreError::GenericError(error.into()))
    }
}

async fn save() -> HttpResponse {
    FlashMessage::info("saved").send();
    FlashMessage::warning("soon full").send();
    HttpResponse::SeeOther()
        .insert_header(("location", "/"))
        .finish()
}

async fn home(messages: IncomingFlashMessages) -> String {
    let messages = messages
        .iter()
        .map(|it| format!("{}: {}", it.level(), it.content()));
    messages.collect::<Vec<_>>().join(", ")
}

fn serve(manager: &Manager) -> SocketAddr {
    let manager = manager.clone();
    serve_actix(move |tell| async move {
        let server = HttpServer::new(move || {
            App::new()
                .route("/", web::get().to(home))
                .route("/save", web::get().to(save))
                .wrap(FlashMessagesFramework::builder(SessionFlashes).build())
                .wrap(manager.middleware())
        });
        let server = server.workers(1).disable_signals();
        let server = server.bind(("127.0.0.1", 0)).unwrap();
        tell.send(server.addrs()[0]).unwrap();
        server.run().await.unwrap();
    })
}

fn a_message_is_read_once(manager: &Manager) {
    let server = serve(manager);
    let nothing = get(server, "/", "");
    assert_eq!((nothing.body.as_str(), nothing.cookie), ("", None));
    let saved = get(server, "/save", "");
    assert_eq!(saved.status, 303);
    let cookie = saved.cookie.unwrap();
    let read = get(server, "/", &cookie);
    assert_eq!(read.body, "info: saved, warning: soon full");
    let cookie = read.cookie.unwrap_or(cookie);
    assert_eq!(get(server, "/", &cookie).body, "");
}
