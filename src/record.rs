//! What is kept of one session between two requests.

use crate::{Timestamp, Value};

/// What is kept of one session between two requests: when it began, when it ends, and its values.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the session began; the absolute timeout counts from here.
    pub created: Timestamp,
    /// When it ends if nobody uses it again.
    pub expires: Timestamp,
    /// The values, by key.
    pub entries: Entries,
}

/// The values of a record, by key, in the order they were put in.
///
/// One text holds all keys and values, and a list says where each begins: opening a session costs
/// two allocations however many values it has, and a value is parsed when somebody asks for it.
///
/// ```
/// use session_manager::{Entries, Value};
///
/// let entries: Entries = [("name", Value::Text("Ada")), ("age", Value::Json("36"))].into_iter().collect();
/// assert_eq!(entries.get("age"), Some(Value::Json("36")));
/// assert_eq!(entries.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Entries {
    text: Text,
    slots: Vec<Slot>,
}

/// Keys and values, one behind the other. Prints as its length.
#[derive(Clone, Default)]
struct Text(String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where one entry lies in the text: the key from `start`, the value from `middle` to `end`.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    middle: usize,
    end: usize,
    is_json: bool,
}

impl Entries {
    /// Puts entries together from their text and, for each, the lengths of key and value in bytes
    /// and whether the value is JSON. `None` if the lengths do not fit the text.
    pub(crate) fn from_parts(
        text: String,
        lengths: impl Iterator<Item = (usize, usize, bool)>,
    ) -> Option<Self> {
        let mut slots = Vec::with_capacity(lengths.size_hint().0);
        let mut at = 0_usize;
        for (key, value, is_json) in lengths {
            let (start, middle) = (at, at.checked_add(key)?);
            at = middle.checked_add(value)?;
            if !text.is_char_boundary(middle) || !text.is_char_boundary(at) {
                return None;
            }
            slots.push(Slot {
                start,
                middle,
                end: at,
                is_json,
            });
        }
        (at == text.len()).then_some(Self {
            text: Text(text),
            slots,
        })
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<Value<&str>> {
        let slot = self.slots.iter().find(|slot| self.key(slot) == key)?;
        Some(self.value(slot))
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<&str>)> {
        self.slots
            .iter()
            .map(|slot| (self.key(slot), self.value(slot)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn key(&self, slot: &Slot) -> &str {
        &self.text.0[slot.start..slot.middle]
    }

    fn value(&self, slot: &Slot) -> Value<&str> {
        let text = &self.text.0[slot.middle..slot.end];
        if slot.is_json {
            Value::Json(text)
        } else {
            Value::Text(text)
        }
    }
}

/// Collects entries; the keys must differ.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, Value<V>)> for Entries {
    fn from_iter<I: IntoIterator<Item = (K, Value<V>)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (key, value) in entries {
            let start = all.text.0.len();
            all.text.0.push_str(key.as_ref());
            let middle = all.text.0.len();
            all.text.0.push_str(value.as_str());
            let is_json = matches!(value, Value::Json(_));
            all.slots.push(Slot {
                start,
                middle,
                end: all.text.0.len(),
                is_json,
            });
        }
        all
    }
}
