//! An example of a library crate for actix-web. Its route stores a visitor's list filter in the
//! crate's own namespace. Each test uses a separate manager.

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, web};
use serde::Deserialize;
use session_manager::{Error, HasSession, Message, Namespace, manager};

fn filters(req: &(impl HasSession + ?Sized)) -> Result<Namespace, Error> {
    Ok(manager::get().session(req)?.namespace("list-filter"))
}

/// Returns the visitor's filter for `list`.
pub fn get(req: &(impl HasSession + ?Sized), list: &str) -> Result<Option<String>, Error> {
    Ok(filters(req)?.get(list))
}

/// Mounts `POST /{list}/filter`, which takes a form with `text` and redirects to `/{list}`.
pub fn routes(list: &'static str) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        let handler = move |req, form| async move { set(&req, list, form) };
        app.route(&format!("/{list}/filter"), web::post().to(handler));
    }
}

#[derive(Deserialize)]
struct Filter {
    text: String,
}

fn set(req: &HttpRequest, list: &str, form: web::Form<Filter>) -> Result<HttpResponse, Error> {
    match filters(req)?.add(list, &form.text) {
        // Not a bug: the visitor can shorten the filter. The application's page shows the message.
        Err(Error::TooLarge { .. }) => {
            manager::get().flash(req, Message::error("That filter is too long"))?;
        }
        result => result?,
    }
    let to = (LOCATION, format!("/{list}"));
    Ok(HttpResponse::SeeOther().insert_header(to).finish())
}

#[cfg(test)]
mod tests {
    use actix_web::{
        App,
        rt::System,
        test::{self, TestRequest},
    };
    use session_manager::{Key, Manager, PrivateCookie, Session};

    use super::*;

    /// Posts `text` and returns the session.
    fn posted(text: &str) -> Session {
        let test = async {
            let app = App::new()
                .wrap(manager::middleware())
                .configure(routes("orders"));
            let app = test::init_service(app).await;
            let request = TestRequest::post()
                .uri("/orders/filter")
                .set_form([("text", text)]);
            let response = test::call_service(&app, request.to_request()).await;
            assert_eq!(response.headers().get(LOCATION).unwrap(), "/orders");
            response.request().session().unwrap()
        };
        let manager = Manager::new(PrivateCookie::new(Key::generate()));
        System::new().block_on(manager::scope(manager, test))
    }

    #[test]
    fn a_filter_is_remembered_under_the_crates_own_name() {
        let session = posted("open");
        assert_eq!(get(&session, "orders").unwrap().as_deref(), Some("open"));
        assert_eq!(session.keys(), ["list-filter.orders"]);
    }

    #[test]
    fn a_filter_that_is_too_long_leaves_a_message_instead() {
        let session = posted(&"long ".repeat(1_000));
        assert_eq!(get(&session, "orders").unwrap(), None);
        assert_eq!(session.flashes()[0].text, "That filter is too long");
    }
}
