//! A page of the application: three races that a session can lose, to try. Its buttons work without a
//! script; `races.js` adds those that need one.

use std::time::{Duration, SystemTime};

use minijinja::context;
use serde::Deserialize;
use serde_json::json;
use session_manager::{Error, Message, Namespace, Session};

use super::{Demo, Reply, auth, pages};

pub const PATH: &str = "/races";

/// How long a write from one tab takes: enough to press the button in another.
const BY_HAND: Duration = Duration::from_secs(3);

/// How long a write of the script takes, so that all that the browser sends at once overlap.
const BY_SCRIPT: Duration = Duration::from_millis(300);

/// How long the slow request takes: enough to log out meanwhile.
const SLOW: Duration = Duration::from_secs(4);

/// The key of the counter, among those of [`entries`].
const COUNT: &str = "count";

/// What the requests of this page write.
fn entries(session: &Session) -> Namespace {
    session.namespace("races")
}

/// Returns how many entries are kept, and how many the counter has.
fn kept(session: &Session) -> Result<(usize, usize), Error> {
    let entries = entries(session);
    let count: Option<usize> = entries.load(COUNT)?;
    let keys = entries.len() - usize::from(count.is_some());
    Ok((keys, count.unwrap_or(0)))
}

pub fn show(session: &Session) -> Result<Reply, Error> {
    let (keys, count) = kept(session)?;
    let context = context! {
        keys,
        count,
        can_switch => cfg!(feature = "memory"),
        slow => SLOW.as_secs(),
    };
    pages::page(session, PATH, "races.html", context)
}

/// Answers the script: what the server sees in this session. It needs no login, because the script asks
/// whether there is one.
pub fn state(session: &Session) -> Result<Reply, Error> {
    let (keys, count) = kept(session)?;
    Ok(Reply::json(&json!({
        "user": auth::user(session)?,
        "backend": session.manager().backend_name(),
        "inCookie": pages::is_in_cookie(session),
        "keys": keys,
        "count": count,
    })))
}

/// Removes what earlier requests wrote.
pub fn begin(session: &Session) -> Result<Reply, Error> {
    entries(session).clear();
    Ok(Reply::done())
}

#[derive(Deserialize)]
pub struct Write {
    /// The number of the request, from the script.
    n: Option<u32>,
}

/// Adds an entry and counts, some time after the session was opened.
pub async fn write(session: Session, form: Write) -> Result<Reply, Error> {
    let (key, time) = match form.n {
        Some(n) => (n.to_string(), BY_SCRIPT),
        None => (now(), BY_HAND),
    };
    tokio::time::sleep(time).await;
    add(&session, &key)?;
    Ok(match form.n {
        Some(_) => Reply::done(),
        None => Reply::see_other(PATH),
    })
}

/// Writes long after the session was opened: a log-out meanwhile comes first.
pub async fn slow(session: Session) -> Result<Reply, Error> {
    tokio::time::sleep(SLOW).await;
    add(&session, &now())?;
    Ok(Reply::see_other(PATH))
}

fn add(session: &Session, key: &str) -> Result<(), Error> {
    let entries = entries(session);
    entries.add(key, "written")?;
    entries
        .update(COUNT, |count: Option<usize>| count.unwrap_or(0) + 1)
        .map(drop)
}

/// Returns a key that no other tab writes.
fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_micros().to_string()
}

/// Keeps the sessions of all visitors in memory from now on, and logs no user out.
#[cfg(feature = "memory")]
pub fn switch(demo: &Demo, session: &Session) -> Result<Reply, Error> {
    use std::sync::{Mutex, PoisonError};

    use session_manager::{Manager, MemoryStore, ServerSide, manager};

    // Of two visitors at once, one switches.
    static SWITCH: Mutex<()> = Mutex::new(());
    let _switching = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let old = manager::get();
    let message = if old.backend_name().ends_with("cookie") {
        let new = Manager::builder(ServerSide::new(MemoryStore::new())).migrate_from(old);
        match demo.observe(new).build() {
            Ok(new) => {
                manager::set(new);
                Message::success(
                    "Sessions are kept in memory from now on, and you are still logged in",
                )
            }
            Err(error) => Message::error(error.to_string()),
        }
    } else {
        Message::info(format!(
            "Sessions are kept in {} already",
            old.backend_name()
        ))
    };
    session.flash(message)?;
    Ok(Reply::see_other(PATH))
}

#[cfg(not(feature = "memory"))]
pub fn switch(_: &Demo, session: &Session) -> Result<Reply, Error> {
    session.flash(Message::warning("Start the demo with the feature `memory`"))?;
    Ok(Reply::see_other(PATH))
}
