//! A page of the application: it shows the content and the size of the session.

use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Message, Session};

use super::{Reply, csrf, pages};

pub const PATH: &str = "/session";

/// The prefix of keys that visitors choose. Without it, storing `auth.user` would log in as any
/// user.
const PREFIX: &str = "note.";

const MAX_KEY: usize = 40;

pub fn show(session: &Session) -> Result<Reply, Error> {
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
    pages::page(session, PATH, "session.html", context! { entries })
}

#[derive(Deserialize)]
pub struct Note {
    key: String,
    value: String,
}

pub fn store(session: &Session, note: &Note) -> Result<Reply, Error> {
    put(session, &note.key, &note.value)
}

/// Stores more than a cookie can hold.
pub fn fill(session: &Session) -> Result<Reply, Error> {
    put(session, "five-kilobytes", &"x".repeat(5 * 1024))
}

fn put(session: &Session, key: &str, value: &str) -> Result<Reply, Error> {
    // Flash messages quote the key.
    if key.chars().count() > MAX_KEY {
        let message = format!("A key has {MAX_KEY} characters at most");
        session.flash(Message::error(message))?;
        return Ok(Reply::see_other(PATH));
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
    Ok(Reply::see_other(PATH))
}

#[derive(Deserialize)]
pub struct Remove {
    key: String,
}

pub fn remove(session: &Session, form: &Remove) -> Result<Reply, Error> {
    let key = &form.key;
    session.flash(match session.pop(&format!("{PREFIX}{key}")) {
        Some(_) => Message::success(format!("Removed “{key}”")),
        None => Message::warning("That was already removed"),
    })?;
    Ok(Reply::see_other(PATH))
}
