//! A page of the application: it shows the content and the size of the session.

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, web};
use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Message, Session};

use crate::{csrf, pages};

/// The prefix of keys that visitors choose. Without it, storing `auth.user` would log in as any
/// user.
const PREFIX: &str = "note.";

const MAX_KEY: usize = 40;

pub fn routes(app: &mut web::ServiceConfig) {
    app.route("/session", web::get().to(show))
        .route("/session/store", web::post().to(store))
        .route("/session/fill", web::post().to(fill))
        .route("/session/remove", web::post().to(remove));
}

async fn show(req: HttpRequest, session: Session) -> Result<HttpResponse, actix_web::Error> {
    let entries: Vec<_> = session
        .keys()
        .into_iter()
        // A page that is compressed could reveal the secret (BREACH).
        .filter(|key| key != csrf::KEY)
        .map(|key| {
            context! {
                value => session.get(&key),
                note => key.strip_prefix(PREFIX),
                key,
            }
        })
        .collect();
    pages::page(&req, "session.html", context! { entries })
}

#[derive(Deserialize)]
struct Note {
    key: String,
    value: String,
}

async fn store(session: Session, note: web::Form<Note>) -> Result<HttpResponse, Error> {
    put(&session, &note.key, &note.value)
}

/// Stores more than a cookie can hold.
async fn fill(session: Session) -> Result<HttpResponse, Error> {
    put(&session, "five-kilobytes", &"x".repeat(5 * 1024))
}

fn put(session: &Session, key: &str, value: &str) -> Result<HttpResponse, Error> {
    // Flash messages quote the key.
    if key.chars().count() > MAX_KEY {
        let message = format!("A key has {MAX_KEY} characters at most");
        session.flash(Message::error(message))?;
        return Ok(see_the_session());
    }
    // If notes filled the cookie completely, flash messages would no longer fit. A placeholder
    // reserves room for them while the note is added.
    const ROOM: &str = "room for messages";
    let stored = session
        .add(ROOM, " ".repeat(600))
        .and_then(|()| session.add(&format!("{PREFIX}{key}"), value));
    session.pop(ROOM);
    match stored {
        Ok(()) => session.flash(Message::success(format!("Stored “{key}”")))?,
        // The session is unchanged: nothing is truncated, and the browser drops nothing.
        Err(error @ Error::TooLarge { .. }) => {
            session.flash(Message::error(format!("Not stored: {error}")))?;
        }
        Err(error) => return Err(error),
    }
    Ok(see_the_session())
}

#[derive(Deserialize)]
struct Remove {
    key: String,
}

async fn remove(session: Session, form: web::Form<Remove>) -> Result<HttpResponse, Error> {
    let key = &form.key;
    session.flash(match session.pop(&format!("{PREFIX}{key}")) {
        Some(_) => Message::success(format!("Removed “{key}”")),
        None => Message::warning("That was already removed"),
    })?;
    Ok(see_the_session())
}

fn see_the_session() -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, "/session"))
        .finish()
}
