//! The cookies of actix-session's `CookieSessionStore`.

#[cfg(any(feature = "cookies", feature = "server-side"))]
use std::time::Duration;
use std::{collections::HashMap, fmt, sync::Arc};

use actix_session::config::CookieContentSecurity;
use actix_web::cookie::{Cookie, CookieJar, Key};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::value;
use crate::{
    backend::{Backend, Commit, CommitOutcome, OpenOutcome, OpenRequest, Refused},
    error::Error,
    future::BackendFuture,
    record::{Record, entries::Entries},
    settings::Settings,
};

#[cfg(any(feature = "cookies", feature = "server-side"))]
use crate::{
    backend::{
        migration::{Adopt, Claim, Migration},
        successor,
    },
    expiry::Timestamp,
    key::Key as SigningKey,
};

/// Opens the sessions that actix-session's `CookieSessionStore` put into cookies, so that
/// [`migrate_from`](crate::Builder::migrate_from) can take them over. It keeps none.
///
/// The manager needs the cookie's name, `id` unless the application chose another. These cookies say
/// nothing of when they end: one that was copied opens its session as long as `migrate_from` is there.
///
/// ```
/// use actix_web::cookie::Key;
/// use session_manager::{ActixSessionCookie, Manager, SignedCookie};
///
/// # let (their_key, key) = (Key::generate(), session_manager::Key::generate());
/// let old = Manager::builder(ActixSessionCookie::private(their_key)).cookie_name("id").build()?;
/// let manager = Manager::builder(SignedCookie::new(key)).migrate_from(old).build()?;
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ActixSessionCookie {
    key: Key,
    security: CookieContentSecurity,
}

impl ActixSessionCookie {
    /// Cookies that are encrypted with `key`: actix-session's default.
    pub fn private(key: Key) -> Self {
        Self {
            key,
            security: CookieContentSecurity::Private,
        }
    }

    /// Cookies that are signed with `key`: `CookieContentSecurity::Signed`.
    pub fn signed(key: Key) -> Self {
        Self {
            key,
            security: CookieContentSecurity::Signed,
        }
    }

    fn read(&self, token: &str, settings: &Settings) -> Result<Record, Refused> {
        let name = settings.cookie_name();
        let mut jar = CookieJar::new();
        jar.add_original(Self::parse(name, token)?);
        let opened = match self.security {
            CookieContentSecurity::Signed => jar.signed(&self.key).get(name),
            CookieContentSecurity::Private => jar.private(&self.key).get(name),
        };
        let opened = opened.ok_or(Refused::Forged)?;
        let entries = entries(opened.value())?;
        let now = settings.now();
        Ok(Record::new(
            now,
            settings.expiry().deadline(now, now),
            entries,
        ))
    }

    fn parse(name: &str, token: &str) -> Result<Cookie<'static>, Refused> {
        let cookie = Cookie::parse_encoded(format!("{name}={token}"));
        Ok(cookie.map_err(|_| Refused::Malformed)?.into_owned())
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`ActixSessionCookie` reads the cookies of actix-session and keeps none: give its manager to \
     `migrate_from`"
)]
struct KeepsNone;

impl Backend for ActixSessionCookie {
    fn name(&self) -> &'static str {
        "cookie of actix-session"
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let opened = request
            .token
            .map(|token| self.read(token, request.settings));
        BackendFuture::ready(Ok(match opened {
            None => OpenOutcome::Nothing,
            Some(Ok(record)) => OpenOutcome::Loaded(record),
            Some(Err(why)) => OpenOutcome::Refused(why),
        }))
    }

    #[cfg(any(feature = "cookies", feature = "server-side"))]
    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        Some(self)
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        BackendFuture::ready(if commit.changes.is_destroyed() {
            Ok(CommitOutcome::Remove)
        } else {
            Err(Error::unavailable(KeepsNone))
        })
    }
}

#[cfg(any(feature = "cookies", feature = "server-side"))]
impl Migration for ActixSessionCookie {
    fn successor(&self, token: &str, settings: &Settings) -> Option<String> {
        // Two visitors with the same data have the same signed cookie, and must not share a session.
        if matches!(self.security, CookieContentSecurity::Signed) {
            return None;
        }
        self.read(token, settings).ok()?;
        let key = SigningKey::from_secret(self.key.signing()).ok()?;
        let name = settings.cookie_name();
        // The value without percent-encoding, of which a client may choose another.
        let cookie = Self::parse(name, token).ok()?;
        let cookie = format!("{name}\0{}", cookie.value());
        Some(successor::successor(
            &successor::keyed(&key),
            cookie.as_bytes(),
        ))
    }

    /// These cookies name no end. Browsers keep none for longer (RFC 6265bis, section 5.5).
    fn opens_until(&self, now: Timestamp, _: &Settings) -> Timestamp {
        now.plus(Duration::from_secs(400 * 24 * 60 * 60))
    }

    fn claim(self: Arc<Self>, _: &Commit<'_>) -> BackendFuture<'static, Result<Claim, Error>> {
        BackendFuture::ready(Ok(Claim::Taken))
    }

    fn records(self: Arc<Self>) -> Option<Arc<dyn Adopt>> {
        None
    }
}

/// What the `CookieSessionStore` after actix-session 0.11 writes: each value is JSON, and not a string
/// that holds its text.
#[derive(Deserialize)]
struct Versioned<'j> {
    v: u64,
    #[serde(borrow)]
    state: HashMap<String, &'j RawValue>,
}

/// Reads the state of a session as any version of actix-session wrote it.
fn entries(state: &str) -> Result<Entries, Refused> {
    // A state without a version is a map of strings, so it never reads as `Versioned`.
    if let Ok(Versioned { v, state }) = serde_json::from_str(state) {
        if v != 1 {
            return Err(Refused::Version);
        }
        return Ok(state
            .iter()
            .map(|(key, json)| (key, value(json.get())))
            .collect());
    }
    let state: HashMap<String, String> =
        serde_json::from_str(state).map_err(|_| Refused::Malformed)?;
    Ok(state.iter().map(|(key, json)| (key, value(json))).collect())
}

impl fmt::Debug for ActixSessionCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixSessionCookie").finish_non_exhaustive()
    }
}
