//! An example of an application whose two libraries share one session. It sets the manager and
//! mounts the middleware, and does not need their keys or types.
//!
//! `SESSION_SECRET=$(openssl rand -base64 48) cargo run -p shop`, then open
//! <http://127.0.0.1:7000/items/1>.

use actix_web::{App, HttpRequest, HttpServer, dev::Server, web};
use session_manager::{Error, Key, Manager, SignedCookie, manager};

async fn item(req: HttpRequest, item: web::Path<u32>) -> Result<String, Error> {
    recently_viewed::note(&req, *item)?;
    Ok(format!("Item {item}"))
}

async fn orders(req: HttpRequest) -> Result<String, Error> {
    let messages = manager::get().flashes(&req)?;
    let messages: Vec<_> = messages.iter().map(|message| &message.text).collect();
    let filter = list_filter::get(&req, "orders")?.unwrap_or_default();
    let items = recently_viewed::items(&req)?;
    Ok(format!("{messages:?} {filter:?} {items:?}"))
}

/// Returns the server and the port that it listens on.
fn serve(port: u16) -> std::io::Result<(Server, u16)> {
    let server = HttpServer::new(|| {
        App::new()
            .wrap(manager::middleware())
            .route("/items/{item}", web::get().to(item))
            .route("/orders", web::get().to(orders))
            .configure(list_filter::routes("orders"))
    });
    let server = server.bind(("127.0.0.1", port))?;
    let port = server.addrs()[0].port();
    Ok((server.run(), port))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::from_env("SESSION_SECRET")?;
    manager::set(Manager::new(SignedCookie::new(key)));
    serve(7000)?.0.await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_keep_what_they_know_in_the_visitors_one_session() {
        manager::set(Manager::new(SignedCookie::new(Key::generate())));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let (server, port) = serve(0).unwrap();
                tell.send(port).unwrap();
                server.await.unwrap();
            });
        });
        let port = told.recv().unwrap();
        let at = |path| format!("http://127.0.0.1:{port}{path}");
        let visitor = ureq::agent();
        body(visitor.get(at("/items/1")).call());
        body(visitor.get(at("/items/2")).call());
        let form = visitor.post(at("/orders/filter"));
        // Follows the redirect to the orders.
        let orders = body(form.send_form([("text", "open")]));
        assert_eq!(orders, r#"[] "open" [2, 1]"#);
        let jar = visitor.cookie_jar_lock();
        assert_eq!(jar.iter().count(), 1, "both libraries share one cookie");
        let stranger = body(ureq::get(at("/orders")).call());
        assert_eq!(stranger, r#"[] "" []"#);
    }

    fn body(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> String {
        response.unwrap().into_body().read_to_string().unwrap()
    }
}
