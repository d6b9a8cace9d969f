//! Login and logout, written like a library crate.
//!
//! It depends on session-manager and the web framework, but not on the backend, the templates or
//! other crates that use the session.

mod device;

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::LOCATION,
    middleware::Next,
    web,
};
use serde::Deserialize;
use session_manager::{Error, Lifetime, Message, Session, manager};

/// All crates share one session, so a crate prefixes its keys with its name.
const USER: &str = "auth.user";

const LOGIN: &str = "/login";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a login lasts whose user asked to be remembered.
const REMEMBERED: Lifetime = Lifetime::Persistent {
    idle: Duration::from_secs(30 * DAY.as_secs()),
    absolute: Duration::from_secs(90 * DAY.as_secs()),
};

/// The application's part of the login: the password check, the form and the next page.
#[derive(Clone, Copy)]
pub struct Auth {
    /// Returns `true` if the password is correct.
    pub is_right: fn(name: &str, password: &str) -> bool,
    /// Renders a form that posts `name` and `password` to its own URL.
    pub form: fn(&HttpRequest) -> Result<HttpResponse, actix_web::Error>,
    /// The page after logging in.
    pub home: &'static str,
    /// How long a login is fresh: a page that changes the password asks for it again afterwards.
    pub fresh: Duration,
    /// Runs at login, for other crates that need to know of it.
    pub at_login: fn(&Session) -> Result<(), Error>,
}

impl Auth {
    /// Returns `true` if the user entered the password a short time ago.
    pub fn is_fresh(&self, session: &Session) -> bool {
        session.authenticated_within(self.fresh)
    }
}

/// Mounts `/login` and `/logout`.
pub fn routes(auth: Auth) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        // Only a POST changes state: browsers do not send a `SameSite=Lax` cookie with a POST from
        // another site, and the application checks the token of every POST.
        app.app_data(web::Data::new(auth))
            .service(web::resource(LOGIN).get(form).post(log_in))
            .route("/logout", web::post().to(log_out));
    }
}

/// Returns the name of the logged-in user.
pub fn user(req: &HttpRequest) -> Result<Option<String>, Error> {
    manager::get().get(req, USER)
}

/// A middleware that redirects anonymous requests to the login:
/// `scope.wrap(from_fn(auth::required))`.
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
    /// A checkbox that is not checked sends nothing.
    remember: Option<String>,
}

async fn log_in(
    req: HttpRequest,
    session: Session,
    auth: web::Data<Auth>,
    web::Form(Credentials {
        name,
        password,
        remember,
    }): web::Form<Credentials>,
) -> Result<HttpResponse, Error> {
    if !(auth.is_right)(&name, &password) {
        // Quotes the input unchanged, because the template escapes it. It is truncated, because the
        // message may have to fit in a cookie.
        let name: String = name.chars().take(40).collect();
        session.flash(Message::error(format!(
            "“{name}” and this password do not match"
        )))?;
        return Ok(see_other(LOGIN));
    }
    // Prevents session fixation: an id that an attacker planted in this browser becomes invalid.
    session.renew();
    session.mark_authenticated()?;
    session.set_lifetime(match remember {
        Some(_) => REMEMBERED,
        None => Lifetime::Browser,
    })?;
    (auth.at_login)(&session)?;
    session.add(USER, &name)?;
    match session.set_user(&name) {
        Ok(()) => session.set_note(&device::name(&req))?,
        // Cookie sessions cannot be listed, but a login works without the list.
        Err(Error::NoUserIndex { .. }) => {}
        Err(error) => return Err(error),
    }
    session.flash(Message::success(format!("Welcome, {name}")))?;
    Ok(see_other(auth.home))
}

/// Handles `/logout`. Other handlers call it to end the current session.
pub async fn log_out(session: Session) -> Result<HttpResponse, Error> {
    session.destroy();
    // Starts a new session that contains only this message.
    session.flash(Message::info("You are logged out"))?;
    Ok(see_other(LOGIN))
}

/// Answers a form with a redirect, so that reloading the page does not send the form again.
fn see_other(to: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, to))
        .finish()
}
