//! Stored values: strings unchanged, everything else as JSON text.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::ser::{CompactFormatter, Formatter};

use crate::{finite, text};

/// The maximum nesting of arrays and objects: the deepest that `serde_json` reads.
const MAX_DEPTH: usize = 127;

/// The value under one key of a session. It stays text until the caller decodes it into a type.
///
/// Backends do not interpret values: [`Value::Text`] and [`Value::Json`] differ only in how
/// [`Session::load`](crate::Session::load) reads them. `S` is the text, owned or borrowed.
///
/// ```
/// use session_manager::store::Value;
///
/// assert_eq!(Value::encode("ready")?, Value::Text("ready".into()));
/// assert_eq!(Value::encode(&[1, 2])?, Value::Json("[1,2]".into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value<S = Box<str>> {
    /// A string, unchanged.
    Text(S),
    /// The JSON text of any other type.
    Json(S),
}

impl Value {
    /// Encodes `value` into its stored form.
    ///
    /// # Errors
    ///
    /// If JSON cannot express `value`, such as a map whose keys are not strings or a number that is
    /// not finite, which `serde_json` alone would write as `null`. Also if arrays and objects are
    /// nested more than 127 deep, because `serde_json` could not read them back.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        if let Some(text) = text::of(value) {
            return Ok(Self::Text(text));
        }
        let (mut bytes, mut seen) = (Vec::new(), Seen::default());
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Watch(&mut seen));
        value.serialize(&mut serializer)?;
        if seen.null {
            finite::check(value)?;
        }
        let json = String::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
        Ok(Self::Json(json.into_boxed_str()))
    }
}

/// Observations made while a value is written.
#[derive(Default)]
struct Seen {
    /// The number of arrays and objects that are open.
    depth: usize,
    null: bool,
}

/// Writes compact JSON and records nulls and nesting depth.
struct Watch<'s>(&'s mut Seen);

impl Watch<'_> {
    /// An error here stops the value's own recursion, so deep nesting cannot overflow the stack.
    fn deeper(&mut self) -> io::Result<()> {
        self.0.depth += 1;
        if self.0.depth > MAX_DEPTH {
            let why = format!("arrays and objects are nested more than {MAX_DEPTH} deep");
            return Err(io::Error::other(why));
        }
        Ok(())
    }
}

impl Formatter for Watch<'_> {
    fn write_null<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.null = true;
        CompactFormatter.write_null(writer)
    }

    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        CompactFormatter.end_object(writer)
    }
}

impl<S: AsRef<str>> Value<S> {
    /// Returns the text: the string itself, or the JSON text.
    ///
    /// ```
    /// assert_eq!(session_manager::store::Value::Json("7").as_str(), "7");
    /// ```
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text.as_ref(),
        }
    }

    /// Returns the same value, borrowed.
    ///
    /// ```
    /// use session_manager::store::Value;
    ///
    /// assert_eq!(Value::encode("a")?.borrowed(), Value::Text("a"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn borrowed(&self) -> Value<&str> {
        match self {
            Self::Text(text) => Value::Text(text.as_ref()),
            Self::Json(text) => Value::Json(text.as_ref()),
        }
    }

    /// Returns the same value, owned.
    ///
    /// ```
    /// use session_manager::store::Value;
    ///
    /// assert_eq!(Value::Text("a").into_owned(), Value::Text("a".into()));
    /// ```
    pub fn into_owned(self) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.as_ref().into()),
            Self::Json(text) => Value::Json(text.as_ref().into()),
        }
    }

    /// Returns the same value in a form whose clones share the text.
    pub(crate) fn shared(&self) -> Value<Arc<str>> {
        match self {
            Self::Text(text) => Value::Text(text.as_ref().into()),
            Self::Json(text) => Value::Json(text.as_ref().into()),
        }
    }

    /// Decodes the value into a `T`. Text is tried as a string first, then parsed as JSON.
    ///
    /// # Errors
    ///
    /// If the value cannot be decoded into a `T`.
    ///
    /// ```
    /// use session_manager::store::Value;
    ///
    /// assert_eq!(Value::Json("[1,2]").decode::<Vec<u8>>()?, [1, 2]);
    /// assert_eq!(Value::Text("[1,2]").decode::<Vec<u8>>()?, [1, 2]);
    /// assert_eq!(Value::Text("[1,2]").decode::<String>()?, "[1,2]");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            Self::Json(json) => serde_json::from_str(json.as_ref()),
            Self::Text(text) => {
                let text = text.as_ref();
                serde_json::from_value(serde_json::Value::String(text.to_owned()))
                    .or_else(|no_string| serde_json::from_str(text).map_err(|_| no_string))
            }
        }
    }
}

/// Prints the kind and the length only, because values may be secret.
impl<S: AsRef<str>> fmt::Debug for Value<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Text(_) => "Text",
            Self::Json(_) => "Json",
        };
        write!(f, "{kind}({} bytes)", self.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn a_string_is_stored_as_it_is_and_anything_else_as_json() {
        for text in [
            "",
            "value",
            "中文测试",
            "<html> &tag, \"quoted\" \\ \n\u{1}",
        ] {
            assert_eq!(Value::encode(text).unwrap(), Value::Text(text.into()));
        }
        assert_eq!(Value::encode(&'c').unwrap(), Value::Text("c".into()));
        assert_eq!(Value::encode(&7).unwrap(), Value::Json("7".into()));
        assert_eq!(
            Value::encode(&None::<u8>).unwrap(),
            Value::Json("null".into())
        );
        assert_eq!(
            Value::encode(&["a"]).unwrap(),
            Value::Json("[\"a\"]".into())
        );
    }

    #[test]
    fn what_json_cannot_express_is_an_error() {
        assert!(Value::encode(&HashMap::from([((1, 2), 3)])).is_err());
        assert!(Value::encode(&f64::NAN).is_err());
        assert!(Value::encode(&f32::INFINITY).is_err());
        let nested = BTreeMap::from([("deep", vec![Some((1, f64::NEG_INFINITY))])]);
        assert!(Value::encode(&nested).is_err());
    }

    #[test]
    fn null_stays_null() {
        #[derive(Serialize)]
        struct Half {
            here: u8,
            gone: Option<u8>,
        }
        let half = Half {
            here: 1,
            gone: None,
        };
        assert_eq!(
            Value::encode(&half).unwrap().as_str(),
            r#"{"here":1,"gone":null}"#
        );
        assert_eq!(Value::encode(&()).unwrap().as_str(), "null");
    }

    #[test]
    fn text_reads_as_a_string_first_and_as_its_json_second() {
        assert_eq!(Value::Text("5").decode::<String>().unwrap(), "5");
        assert_eq!(Value::Text("5").decode::<u8>().unwrap(), 5);
        assert_eq!(
            Value::Text("5")
                .decode::<Option<String>>()
                .unwrap()
                .as_deref(),
            Some("5")
        );
        assert!(Value::Text("five").decode::<u8>().is_err());
        assert!(Value::Json("5").decode::<String>().is_err());
    }
}
