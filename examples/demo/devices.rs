//! A page of the application: it lists the sessions of the user and can end them.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, middleware::from_fn, web};
use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Message, Session};

use crate::{auth, csrf, pages};

const PATH: &str = "/devices";

pub fn routes(app: &mut web::ServiceConfig) {
    app.service(
        web::scope(PATH)
            .wrap(from_fn(csrf::actix::protect))
            .wrap(from_fn(auth::required))
            .route("", web::get().to(show))
            .route("/end", web::post().to(end))
            .route("/end-others", web::post().to(end_others)),
    );
}

async fn show(req: HttpRequest, session: Session) -> Result<HttpResponse, actix_web::Error> {
    let user = auth::user(&req)?.unwrap_or_default();
    let now = session.manager().settings().now();
    let present = session.handle();
    let devices = match session.manager().user_sessions(&user).await {
        Ok(mut sessions) => {
            sessions.sort_by_key(|other| Some(&other.handle) != present.as_ref());
            let devices = sessions.into_iter().map(|other| {
                let is_present = Some(&other.handle) == present.as_ref();
                let seen = if is_present { now } else { other.last_seen };
                context! {
                    name => other.note,
                    since => ago(now.since(other.created)),
                    seen => ago(now.since(seen)),
                    handle => other.handle,
                    is_present,
                }
            });
            Some(devices.collect::<Vec<_>>())
        }
        // The server cannot list cookie sessions; the page explains this.
        Err(Error::NoUserIndex { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    pages::page(&req, "devices.html", context! { devices })
}

#[derive(Deserialize)]
struct End {
    handle: String,
}

async fn end(
    req: HttpRequest,
    session: Session,
    form: web::Form<End>,
) -> Result<HttpResponse, Error> {
    if session.handle().as_ref() == Some(&form.handle) {
        return auth::log_out(session).await;
    }
    // Ends only sessions of this user; a handle of another user has no effect.
    let user = auth::user(&req)?.unwrap_or_default();
    let manager = session.manager();
    session.flash(
        match manager.destroy_user_session(&user, &form.handle).await? {
            true => Message::success("The session was ended"),
            false => Message::warning("The session had already ended"),
        },
    )?;
    Ok(see_the_devices())
}

async fn end_others(req: HttpRequest, session: Session) -> Result<HttpResponse, Error> {
    let user = auth::user(&req)?.unwrap_or_default();
    let manager = session.manager();
    session.flash(
        match manager.destroy_other_user_sessions(&user, &session).await? {
            0 => Message::info("There are no other sessions"),
            1 => Message::success("The other session was ended"),
            count => Message::success(format!("The {count} other sessions were ended")),
        },
    )?;
    Ok(see_the_devices())
}

fn see_the_devices() -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, PATH))
        .finish()
}

/// Formats the time since an event, such as `3 hours ago`.
pub fn ago(since: Duration) -> String {
    match since.as_secs() / 60 {
        0 => "just now".to_owned(),
        _ => format!("{} ago", span(since)),
    }
}

/// Formats a time span, such as `3 hours`.
pub fn span(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    let (count, unit) = match minutes {
        0 => return "less than a minute".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{s}")
}
