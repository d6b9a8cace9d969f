//! Internals for the fuzz targets in `fuzz/`, built only with `--cfg fuzzing`.

use std::sync::Arc;

use ::redis::Value as CommitOutcome;

use crate::{
    backend::{Backend, OpenOutcome, OpenRequest, Refused},
    cookie::{Attributes, Found, SessionCookie},
    message::Message,
    record::{Record, entries::Entries},
    settings::Settings,
    store::redis,
    value::Value,
};

// Included a second time, to avoid building a database client.
#[path = "store/values.rs"]
mod values;

/// Finds the session cookie `name` in `Cookie` headers; an error if it is present but unusable.
pub fn find<'h>(name: &str, headers: &[&'h [u8]]) -> Result<Option<&'h str>, &'static str> {
    let attributes = Attributes {
        name: name.to_owned(),
        ..Attributes::default()
    };
    let cookie = SessionCookie::new(attributes).map_err(|_| "the cookie name is invalid")?;
    match cookie.find(headers.iter().copied()) {
        Found::Nothing => Ok(None),
        Found::One(value) => Ok(Some(value)),
        Found::Refused(_, why) => Err(why),
    }
}

/// Opens a cookie with a backend that answers at the first poll.
pub fn opened(backend: &Arc<dyn Backend>, token: &str, settings: &Settings) -> OpenOutcome {
    let opening = Arc::clone(backend).open(OpenRequest {
        token: Some(token),
        old: None,
        settings,
        request: &(),
    });
    match opening.now() {
        Ok(Ok(opened)) => opened,
        other => panic!("{other:?}"),
    }
}

/// Opens a cookie that contains its session.
pub fn open(
    backend: &Arc<dyn Backend>,
    token: &str,
    settings: &Settings,
) -> Result<Record, Refused> {
    match opened(backend, token, settings) {
        OpenOutcome::Loaded(record) => Ok(record),
        OpenOutcome::Refused(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Returns `true` if a request with this `Host`, with or without a proxy's header, counts as a
/// request to a loopback host.
pub fn is_to_loopback(host: Option<&[u8]>, has_proxy_mark: bool) -> bool {
    crate::web::is_to_loopback(host, |field| has_proxy_mark && field == "via")
}

/// Decodes the record in a Redis hash.
pub fn redis_record(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Record> {
    let text = |bytes: &[u8]| CommitOutcome::BulkString(bytes.to_vec());
    let fields = fields
        .iter()
        .map(|(field, value)| (text(field), text(value)));
    redis::read(&CommitOutcome::Map(fields.collect())).ok()?
}

/// Decodes the values in a database row.
pub fn sql_entries(object: &str) -> Option<Entries> {
    values::entries(object).ok()
}

/// Encodes the values of a database row.
pub fn sql_object(set: &[(Box<str>, Value)]) -> String {
    values::object(
        set.iter().map(|(key, value)| (&**key, value.borrowed())),
        &[],
    )
}

/// Decodes a stored flash message.
pub fn message(stored: Value<&str>) -> Option<Message> {
    Message::from_stored(stored)
}

/// Encodes a flash message.
pub fn stored_message(message: &Message) -> Option<Value> {
    Value::encode(&message.to_stored()).ok()
}
