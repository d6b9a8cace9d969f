//! A page of the application: it lists the sessions of the user and can end them.

use std::time::Duration;

use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Message, Session};

use super::{Reply, auth, pages};

pub const PATH: &str = "/devices";

pub async fn show(session: Session, agent: &str) -> Result<Reply, Error> {
    let user = auth::user(&session)?.unwrap_or_default();
    // A session that migrated from a cookie is in no list yet.
    if session.user().is_none() {
        auth::list(&session, &user, agent)?;
        session.save().await?;
    }
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
        Err(error) => return Err(error),
    };
    pages::page(&session, PATH, "devices.html", context! { devices })
}

#[derive(Deserialize)]
pub struct End {
    handle: String,
}

pub async fn end(session: Session, form: End) -> Result<Reply, Error> {
    if session.handle().as_ref() == Some(&form.handle) {
        return auth::log_out(&session);
    }
    // Ends only sessions of this user; a handle of another user has no effect.
    let user = auth::user(&session)?.unwrap_or_default();
    let manager = session.manager();
    session.flash(
        match manager.destroy_user_session(&user, &form.handle).await? {
            true => Message::success("The session was ended"),
            false => Message::warning("The session had already ended"),
        },
    )?;
    Ok(Reply::see_other(PATH))
}

pub async fn end_others(session: Session) -> Result<Reply, Error> {
    let user = auth::user(&session)?.unwrap_or_default();
    let manager = session.manager();
    session.flash(
        match manager.destroy_other_user_sessions(&user, &session).await? {
            0 => Message::info("There are no other sessions"),
            1 => Message::success("The other session was ended"),
            count => Message::success(format!("The {count} other sessions were ended")),
        },
    )?;
    Ok(Reply::see_other(PATH))
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
