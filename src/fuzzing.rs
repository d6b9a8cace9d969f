//! What the fuzz targets in `fuzz/` call and nobody else can: built with `--cfg fuzzing` alone.

use std::sync::Arc;

use ::redis::Value as Reply;

use crate::{
    backend::{Backend, Opened, Opening, Refused},
    cookie::{Attributes, Found, SessionCookie},
    message::Message,
    record::{Record, entries::Entries},
    settings::Settings,
    store::redis,
    value::Value,
};

// Here a second time, so that no database's client has to be built.
#[path = "store/values.rs"]
mod values;

/// The session cookie `name` in these `Cookie` headers; an error if it is there, but of no use.
pub fn find<'h>(name: &str, headers: &[&'h [u8]]) -> Result<Option<&'h str>, &'static str> {
    let attributes = Attributes {
        name: name.to_owned(),
        ..Attributes::default()
    };
    let cookie = SessionCookie::new(attributes).map_err(|_| "it is no name")?;
    match cookie.find(headers.iter().copied()) {
        Found::Nothing => Ok(None),
        Found::One(value) => Ok(Some(value)),
        Found::Refused(why) => Err(why),
    }
}

/// Opens a cookie with a backend that answers when it is first polled.
pub fn opened(backend: &Arc<dyn Backend>, token: &str, settings: &Settings) -> Opened {
    let opening = Arc::clone(backend).open(Opening {
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

/// Opens a cookie that holds its session.
pub fn open(
    backend: &Arc<dyn Backend>,
    token: &str,
    settings: &Settings,
) -> Result<Record, Refused> {
    match opened(backend, token, settings) {
        Opened::Loaded(record) => Ok(record),
        Opened::Refused(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Returns `true` if a request with this `Host`, and with or without a proxy's header, is taken for
/// one to a loopback host.
pub fn is_to_loopback(host: Option<&[u8]>, has_proxy_mark: bool) -> bool {
    crate::web::is_to_loopback(host, |field| has_proxy_mark && field == "via")
}

/// The record in a hash of Redis.
pub fn redis_record(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Record> {
    let text = |bytes: &[u8]| Reply::BulkString(bytes.to_vec());
    let fields = fields
        .iter()
        .map(|(field, value)| (text(field), text(value)));
    redis::read(&Reply::Map(fields.collect())).ok()?
}

/// The values in a row of a database.
pub fn sql_entries(object: &str) -> Option<Entries> {
    values::entries(object).ok()
}

/// What a database is given as the values of a row.
pub fn sql_object(set: &[(Box<str>, Value)]) -> String {
    values::object(
        set.iter().map(|(key, value)| (&**key, value.borrowed())),
        &[],
    )
}

/// The flash message that was stored so.
pub fn message(stored: Value<&str>) -> Option<Message> {
    Message::from_stored(stored)
}

/// The stored form of a flash message.
pub fn stored_message(message: &Message) -> Option<Value> {
    Value::encode(&message.to_stored()).ok()
}
