//! What migrating sessions from one backend to another asks of both.

use std::{fmt, sync::Arc};

use super::{Commit, CommitOutcome, OpenOutcome};
use crate::{
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    record::{Record, id::StoreId},
    settings::Settings,
};

/// What [`Builder::migrate_from`](crate::Builder::migrate_from) asks of a backend beyond opening and
/// committing: an ability that [`Backend::migration`](crate::Backend::migration) returns.
///
/// A session keeps one identity while it migrates, its *successor*: the token that it has in a
/// server-side backend. The successor follows from the old cookie alone, so that any number of requests
/// and processes that migrate one session come to the same id. The first of them creates the record
/// there and the others merge into it. A log-out buries the id ([`bury`](Adopt::bury)), so that a
/// request that was under way cannot create the record again (CVE-2025-46336).
pub trait Migration: Send + Sync {
    /// Returns the token that the session of this cookie value has in a server-side backend; `None` if
    /// this backend did not make the cookie or its time is over.
    ///
    /// It must be the same in every process, and must not follow from anything but the cookie and the
    /// backend's key.
    fn successor(&self, token: &str, settings: &Settings) -> Option<String>;

    /// Returns until when a cookie that was made before `now` may open its session. The default is the
    /// absolute timeout from `now` on.
    fn opens_until(&self, now: Timestamp, settings: &Settings) -> Timestamp {
        now.plus(settings.expiry().absolute)
    }

    /// Takes the session out of this backend in favour of one that keeps it in a cookie. Of any number
    /// of calls for one session, one is told [`Claim::Taken`].
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the backend cannot tell.
    fn claim(self: Arc<Self>, claim: &Commit<'_>) -> BackendFuture<'static, Result<Claim, Error>>;

    /// Returns what this backend keeps records with, if it does; `None` for one that keeps sessions in
    /// cookies.
    fn records(self: Arc<Self>) -> Option<Arc<dyn Adopt>>;
}

/// What a server-side backend does with sessions that migrate to it.
pub trait Adopt: Send + Sync {
    /// Returns the token that the client is to get for a successor, such as the same with a signature.
    fn token(&self, successor: &str, settings: &Settings) -> String;

    /// Opens the session of a successor.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`](crate::Backend::open).
    fn open_successor(
        self: Arc<Self>,
        successor: &str,
        settings: &Settings,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>>;

    /// Creates the session of a successor with all that is stored and what the request did to it; or,
    /// if another request was faster, merges what this one did. Returns what becomes of the cookie, and
    /// whether this call created the record.
    ///
    /// # Errors
    ///
    /// As [`Backend::commit`](crate::Backend::commit).
    fn adopt(
        self: Arc<Self>,
        successor: &str,
        commit: &Commit<'_>,
    ) -> BackendFuture<'static, Result<(CommitOutcome, bool), Error>>;

    /// Ends the session under `id` if there is one, and leaves a mark there until `until`: a record that
    /// opens nothing and that no [`adopt`](Self::adopt) replaces.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the store fails.
    fn bury(
        self: Arc<Self>,
        id: StoreId,
        now: Timestamp,
        until: Timestamp,
    ) -> BackendFuture<'static, Result<(), Error>>;
}

/// What became of [`Migration::claim`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Claim {
    /// The session is the caller's, as it was opened.
    Taken,
    /// The session is there, but was written since it was opened: this is it now.
    Changed(Record),
    /// The session is gone: it ended, or another call took it.
    Gone,
}

/// A session that was found by the cookie of an older manager.
#[derive(Clone, Debug)]
pub struct Migrating {
    pub(crate) record: Record,
    pub(crate) place: Place,
}

/// Where a session is that was found by the cookie of an older manager.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the new backend already, under this token.
    Here(Token),
    /// In the old one.
    Old(Origin),
}

/// Where a session comes from that the new backend does not have yet.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Its token in a server-side backend.
    pub(crate) successor: Option<Token>,
    /// Its token in the old backend.
    pub(crate) token: Token,
    /// Where it comes from, if the old backend does not have it yet either.
    pub(crate) inner: Option<Box<Origin>>,
}

/// The value of a session cookie. It prints as nothing.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
