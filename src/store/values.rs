//! The values of a record as one JSON object, such as `{"name":"tAda","age":"j36"}`.
//!
//! Each value is a string whose first letter is its type. Databases therefore leave it unchanged
//! (their JSON types keep neither the order of keys nor the text of numbers), a merge replaces it
//! whole, and `null` can mean "remove this key".

use std::fmt;

use serde::{Deserializer, de};

use crate::{record::entries::Entries, value::Value};

/// Text.
const TEXT: char = 't';
/// The text of a JSON value.
const JSON: char = 'j';
/// A JSON string, for text that contains NUL, which PostgreSQL cannot store.
const QUOTED: char = 'x';

/// Encodes the values to set and the keys to remove as one JSON object.
pub(crate) fn object<'a>(
    set: impl Iterator<Item = (&'a str, Value<&'a str>)>,
    remove: &[Box<str>],
) -> String {
    let mut object = String::from("{");
    for (name, value) in set {
        let value = match value {
            Value::Text(text) if text.contains('\0') => format!("{QUOTED}{}", quoted(text)),
            Value::Text(text) => format!("{TEXT}{text}"),
            Value::Json(json) => format!("{JSON}{json}"),
        };
        push(&mut object, name, &quoted(&value));
    }
    for name in remove {
        push(&mut object, name, "null");
    }
    object.push('}');
    object
}

fn push(object: &mut String, name: &str, value: &str) {
    if object.len() > 1 {
        object.push(',');
    }
    object.push('"');
    push_key(object, name);
    object.push_str("\":");
    object.push_str(value);
}

/// Returns `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes a key without characters that JSON must escape, because some databases compare keys in
/// their escaped form.
fn push_key(object: &mut String, name: &str) {
    for char in name.chars() {
        match char {
            '\0'..='\x1f' | '"' | '\\' | '%' => {
                object.push_str(&format!("%{:02x}", u32::from(char)));
            }
            char => object.push(char),
        }
    }
}

/// Decodes a written key; `None` if it is invalid.
fn key(written: String) -> Option<String> {
    if !written.contains('%') {
        return Some(written);
    }
    let mut parts = written.split('%');
    let mut key = String::from(parts.next()?);
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        key.push(u8::from_str_radix(code, 16).ok()?.into());
        key.push_str(rest);
    }
    Some(key)
}

fn value(mut written: String) -> Option<Value<String>> {
    match written.chars().next()? {
        TEXT => Some(Value::Text(written.split_off(1))),
        JSON => Some(Value::Json(written.split_off(1))),
        QUOTED => serde_json::from_str(&written[1..]).ok().map(Value::Text),
        _ => None,
    }
}

/// Decodes a session's note from its written value; `None` if it is empty or invalid.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn note(written: String) -> Option<String> {
    match value(written)? {
        Value::Text(note) | Value::Json(note) => Some(note),
    }
}

/// Decodes the values from a JSON object.
#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite",
    fuzzing,
    test
))]
pub(crate) fn entries(object: &str) -> Result<Entries, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(object);
    let entries = deserialize(&mut reader)?;
    reader.end()?;
    Ok(entries)
}

/// Deserializes the values as a part of a larger JSON text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Entries, D::Error> {
    let entries = reader.deserialize_map(Visitor)?;
    Ok(entries.into_iter().collect())
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Vec<(String, Value<String>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("values in the format that session-manager writes")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let unknown = || de::Error::custom("not in the format that session-manager writes");
        let mut entries = Vec::with_capacity(map.size_hint().unwrap_or_default());
        while let Some((name, text)) = map.next_entry()? {
            entries.push((
                key(name).ok_or_else(unknown)?,
                value(text).ok_or_else(unknown)?,
            ));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_to_the_byte() {
        let set = [
            ("", Value::Text("")),
            ("%00\0%", Value::Text("\0\"\\")),
            ("\"\\\n", Value::Json("\"\\u0000\"")),
            ("ключ", Value::Text("%25")),
        ];
        let written = object(set.into_iter(), &[]);
        assert!(
            !written.contains("\\u0000\""),
            "no NUL that a database would see"
        );
        let read = entries(&written).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), set);
        assert_eq!(
            object(set.into_iter().take(1), &["a%".into()]),
            r#"{"":"t","a%25":null}"#
        );
    }

    #[test]
    fn what_this_crate_did_not_write_is_no_value() {
        for bad in [
            "",
            "[]",
            "{",
            "{}{}",
            r#"{"a":1}"#,
            r#"{"a":null}"#,
            r#"{"a":""}"#,
            r#"{"a":"z"}"#,
            r#"{"a":"xnone"}"#,
            r#"{"a%":"t"}"#,
            r#"{"a%zz":"t"}"#,
            r#"{"a%é":"t"}"#,
            r#"{"a":"é"}"#,
        ] {
            assert!(entries(bad).is_err(), "{bad}");
        }
    }
}
