//! What holds on actix-web alone. `every_framework.rs` has what all frameworks share.

use crate::common::{Server, Web, key};
use actix_web::{
    App, Error as ActixError, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    error, guard,
    middleware::{Next, from_fn},
    web::{self, ServiceConfig},
};
use session_manager::{HasSession, Manager, Message, Session, SignedCookie, manager};

fn signed() -> Manager {
    Manager::new(SignedCookie::new(key()))
}

fn serve(routes: fn(&mut ServiceConfig)) -> Server {
    Server::actix(move || App::new().wrap(signed().middleware()).configure(routes))
}

/// Reads what another server wrote.
fn check() -> Server {
    Server::scripts(Web::Actix, signed().middleware())
}

/// A function of a library crate: any request will do.
fn count(req: &(impl HasSession + ?Sized)) -> i32 {
    let count = manager::get().load(req, "count").unwrap().unwrap_or(0) + 1;
    manager::get().add(req, "count", count).unwrap();
    count
}

#[test]
fn middleware_guard_handler_and_response_share_one_session() {
    async fn middleware(
        req: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
        assert_eq!(count(&req), 1);
        let response = next.call(req).await?;
        assert_eq!(count(&response), 5);
        Ok(response)
    }
    async fn handler(req: HttpRequest, session: Session) -> String {
        assert_eq!(count(&req), 3);
        assert_eq!(count(&session), 4);
        session.get("count").unwrap()
    }
    let server = serve(|config| {
        let guarded = web::get().guard(guard::fn_guard(|context| count(context) == 2));
        config.service(
            web::resource("/")
                .route(guarded.to(handler))
                .wrap(from_fn(middleware)),
        );
    });
    // The inner middleware is mounted on the resource, so that the session is open before it.
    let answer = server.raw("/", &[]);
    assert_eq!((answer.status, &*answer.body), (200, "4"));
    assert_eq!(
        check().with_cookie("/run/get.count", answer.cookie()).body,
        "5"
    );
}

#[test]
fn an_error_of_inner_middleware_discards_the_session_only_if_5xx() {
    async fn refuse(
        req: ServiceRequest,
        _: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
        req.session()?.flash(Message::warning("Log in first"))?;
        let error = match req.path() {
            "/401" => error::ErrorUnauthorized("who are you?"),
            _ => error::ErrorInternalServerError("broken"),
        };
        Err::<ServiceResponse, _>(error)
    }
    let server = serve(|config| {
        config.service(
            web::scope("")
                .wrap(from_fn(refuse))
                .default_service(web::to(HttpResponse::Ok)),
        );
    });
    let answer = server.raw("/401", &[]);
    assert_eq!((answer.status, &*answer.body), (401, "who are you?"));
    assert_eq!(answer.header("vary"), Some("Cookie"));
    assert_eq!(
        check().with_cookie("/run/flashes", answer.cookie()).body,
        "Log in first"
    );

    let answer = server.raw("/500", &[]);
    assert_eq!((answer.status, &*answer.body), (500, "broken"));
    assert_eq!(answer.set_cookie(), None);
}
