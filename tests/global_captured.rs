//! A library that asked for the manager too early, as qor/admin does, and kept it.
#![cfg(all(feature = "actix", feature = "cookies"))]

mod common;

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use common::Server;
use session_manager::{Error, Key, Manager, SignedCookie, manager};

/// Everything that the library does goes through the manager that it kept.
struct Library(Arc<Manager>);

async fn sign_in(library: web::Data<Library>, req: HttpRequest) -> Result<String, Error> {
    library.0.add(&req, "user", "ada")?;
    Ok(manager::get().get(&req, "user")?.unwrap_or_default())
}

async fn user(library: web::Data<Library>, req: HttpRequest) -> Result<String, Error> {
    Ok(library.0.get(&req, "user")?.unwrap_or_default())
}

#[test]
fn a_manager_kept_from_before_set_reads_and_writes_the_session_that_the_middleware_opened() {
    let library = web::Data::new(Library(manager::get()));
    let secret = Key::generate();
    manager::set(Manager::new(SignedCookie::new(secret.clone())));
    let server = Server::start(manager::middleware(), move |config| {
        config
            .app_data(library.clone())
            .route("/sign-in", web::get().to(sign_in))
            .route("/user", web::get().to(user));
    });
    let signed_in = server.raw("/sign-in", &[]);
    assert_eq!(
        signed_in.body, "ada",
        "the application sees what the library wrote"
    );
    assert_eq!(server.with_cookie("/user", signed_in.cookie()).body, "ada");

    let same_key = Manager::new(SignedCookie::new(secret));
    let check = Server::start(same_key.middleware(), common::script::routes);
    let read = check.with_cookie("/run/get.user", signed_in.cookie());
    assert_eq!(read.body, "ada", "it was signed with the application's key");
}
