//! A page of the application: it shows what is known of the session, and changes the password only after
//! a fresh login.

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, middleware::from_fn, web};
use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Lifetime, Message, Session};

use crate::{
    auth::{self, Auth},
    csrf,
    devices::{ago, span},
    pages,
};

const PATH: &str = "/account";

pub fn routes(auth: Auth) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.service(
            web::scope(PATH)
                .app_data(web::Data::new(auth))
                .wrap(from_fn(csrf::actix::protect))
                .wrap(from_fn(auth::required))
                .route("", web::get().to(show))
                .route("/confirm", web::post().to(confirm))
                .route("/password", web::post().to(change)),
        );
    }
}

async fn show(
    req: HttpRequest,
    session: Session,
    auth: web::Data<Auth>,
) -> Result<HttpResponse, actix_web::Error> {
    let now = session.manager().settings().now();
    let context = context! {
        began => session.created().map(|created| ago(now.since(created))),
        expires => session.expires().map(|expires| format!("in {}", span(expires.since(now)))),
        is_remembered => matches!(session.lifetime(), Some(Lifetime::Persistent { .. })),
        is_fresh => auth.is_fresh(&session),
        span => auth.fresh.as_secs(),
    };
    pages::page(&req, "account.html", context)
}

#[derive(Deserialize)]
struct Confirm {
    password: String,
}

async fn confirm(
    req: HttpRequest,
    session: Session,
    auth: web::Data<Auth>,
    form: web::Form<Confirm>,
) -> Result<HttpResponse, Error> {
    let user = auth::user(&req)?.unwrap_or_default();
    if (auth.is_right)(&user, &form.password) {
        // The rights of this session grow, so its id changes.
        session.renew();
        session.mark_authenticated()?;
    } else {
        session.flash(Message::error("That is not your password"))?;
    }
    Ok(see_the_account())
}

/// Changes nothing but what the page says, because the demo has no table of users.
async fn change(session: Session, auth: web::Data<Auth>) -> Result<HttpResponse, Error> {
    session.flash(if auth.is_fresh(&session) {
        Message::success("The password was changed")
    } else {
        Message::warning("Confirm your password first")
    })?;
    Ok(see_the_account())
}

fn see_the_account() -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, PATH))
        .finish()
}
