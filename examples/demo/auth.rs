//! Logging in and out, as a library crate would do it.
//!
//! It knows session-manager and the web framework, but neither the engine, nor the templates, nor
//! any other crate that uses the session.

mod device;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::LOCATION,
    middleware::Next,
    web,
};
use serde::Deserialize;
use session_manager::{Error, Message, Session, manager};

/// All crates share one session, so a crate puts its name before its keys.
const USER: &str = "auth.user";

const LOGIN: &str = "/login";

/// What an application says: who may log in, what the form looks like, where to go from there.
#[derive(Clone, Copy)]
pub struct Auth {
    /// Whether a name and a password belong together.
    pub is_right: fn(name: &str, password: &str) -> bool,
    /// Draws a form that posts `name` and `password` to where it came from.
    pub form: fn(&HttpRequest) -> Result<HttpResponse, actix_web::Error>,
    /// The page after logging in.
    pub home: &'static str,
}

/// Mounts `/login` and `/logout`.
pub fn routes(auth: Auth) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        // Only a POST changes anything: the session cookie is `SameSite=Lax`, so that another site
        // can make a visitor's browser send none.
        app.app_data(web::Data::new(auth))
            .service(web::resource(LOGIN).get(form).post(log_in))
            .route("/logout", web::post().to(log_out));
    }
}

/// Who is logged in.
pub fn user(req: &HttpRequest) -> Result<Option<String>, Error> {
    manager::get().get(req, USER)
}

/// A middleware that sends everybody else to the log-in: `scope.wrap(from_fn(auth::required))`.
pub async fn required(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if user(req.request())?.is_some() {
        return Ok(next.call(req).await?.map_into_boxed_body());
    }
    manager::get().flash(&req, Message::warning("Log in to see that page"))?;
    Ok(req.into_response(see_other(LOGIN)))
}

async fn form(req: HttpRequest, auth: web::Data<Auth>) -> Result<HttpResponse, actix_web::Error> {
    (auth.form)(&req)
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

async fn log_in(
    req: HttpRequest,
    session: Session,
    auth: web::Data<Auth>,
    web::Form(Credentials { name, password }): web::Form<Credentials>,
) -> Result<HttpResponse, Error> {
    if !(auth.is_right)(&name, &password) {
        // What was typed is quoted as it is: the template escapes it, as any other text. It is cut,
        // because the message may have to fit in a cookie.
        let name: String = name.chars().take(40).collect();
        session.flash(Message::error(format!(
            "“{name}” and this password do not belong together"
        )))?;
        return Ok(see_other(LOGIN));
    }
    // A session that somebody planted in this browser before is worth nothing from here on.
    session.renew();
    session.add(USER, &name)?;
    match session.set_user(&name) {
        Ok(()) => session.set_note(&device::name(&req))?,
        // A session that lives in its cookie is in nobody's list, and as good as any to log in with.
        Err(Error::NoUserIndex { .. }) => {}
        Err(error) => return Err(error),
    }
    session.flash(Message::success(format!("Welcome, {name}")))?;
    Ok(see_other(auth.home))
}

/// The handler of `/logout`, and what ends the present session anywhere else.
pub async fn log_out(session: Session) -> Result<HttpResponse, Error> {
    session.destroy();
    // A new session begins, with nothing in it but this.
    session.flash(Message::info("You are logged out"))?;
    Ok(see_other(LOGIN))
}

/// The answer to a form: the browser goes on with a GET, so that reloading sends nothing twice.
fn see_other(to: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, to))
        .finish()
}
