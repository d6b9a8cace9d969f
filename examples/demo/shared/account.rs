//! A page of the application: it shows what is known of the session, and changes the password only after
//! a fresh login.

use minijinja::context;
use serde::Deserialize;
use session_manager::{Error, Lifetime, Message, Session};

use super::{
    Reply,
    auth::{self, Auth},
    devices::{ago, span},
    pages,
};

pub const PATH: &str = "/account";

pub fn show(auth: &Auth, session: &Session) -> Result<Reply, Error> {
    let now = session.manager().settings().now();
    let context = context! {
        began => session.created().map(|created| ago(now.since(created))),
        expires => session.expires().map(|expires| format!("in {}", span(expires.since(now)))),
        is_remembered => matches!(session.lifetime(), Some(Lifetime::Persistent { .. })),
        is_fresh => auth.is_fresh(session),
        span => auth.fresh.as_secs(),
    };
    pages::page(session, PATH, "account.html", context)
}

#[derive(Deserialize)]
pub struct Confirm {
    password: String,
}

pub fn confirm(auth: &Auth, session: &Session, form: &Confirm) -> Result<Reply, Error> {
    let user = auth::user(session)?.unwrap_or_default();
    if (auth.is_right)(&user, &form.password) {
        // The rights of this session grow, so its id changes.
        session.renew();
        session.mark_authenticated()?;
    } else {
        session.flash(Message::error("That is not your password"))?;
    }
    Ok(Reply::see_other(PATH))
}

/// Changes nothing but what the page says, because the demo has no table of users.
pub fn change(auth: &Auth, session: &Session) -> Result<Reply, Error> {
    session.flash(if auth.is_fresh(session) {
        Message::success("The password was changed")
    } else {
        Message::warning("Confirm your password first")
    })?;
    Ok(Reply::see_other(PATH))
}
