//! What the layers for other session crates share.

#[cfg(feature = "server-side")]
pub(super) mod kept;

use std::{fmt, sync::Arc};

use serde_json::Value as Json;

use crate::{changes::Changes, session::Session, value::Value};

/// Reads a user's name from the value that another crate stores.
type ReadUser = dyn Fn(&Json) -> Option<String> + Send + Sync;

/// The key under which another crate stores the user, and what reads the user's name from its value.
#[derive(Clone)]
pub(super) struct UserKey {
    key: Box<str>,
    user: Arc<ReadUser>,
}

impl UserKey {
    pub(super) fn new(
        key: &str,
        user: impl Fn(&Json) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            key: key.into(),
            user: Arc::new(user),
        }
    }

    /// Sets the user in `changes` if they set the key, and the backend has an index of users.
    pub(super) fn set(&self, changes: &mut Changes, session: &Session) {
        let Some(value) = changes.entry(&self.key).and_then(|change| change.value()) else {
            return;
        };
        if session.manager().backend().users().is_none() {
            return;
        }
        if let Ok(json) = json(value)
            && let Some(user) = (self.user)(&json)
        {
            changes.set_user(user);
        }
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserKey").field(&self.key).finish()
    }
}

/// Decodes a stored value.
pub(super) fn json(value: Value<&str>) -> Result<Json, serde_json::Error> {
    match value {
        Value::Text(text) => Ok(Json::from(text)),
        Value::Json(json) => serde_json::from_str(json),
    }
}
