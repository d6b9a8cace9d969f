//! The values of a record.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    expiry::{Expiry, Lifetime},
    value::Value,
};

/// The values of a record, by key.
///
/// Opening a session costs the same few allocations however many values it has, and a value is
/// parsed when it is read.
///
/// ```
/// use session_manager::store::{Entries, Value};
///
/// let entries: Entries = [("name", Value::Text("Ada")), ("age", Value::Json("36"))].into_iter().collect();
/// assert_eq!(entries.get("age"), Some(Value::Json("36")));
/// assert_eq!(entries.len(), 2);
/// ```
#[derive(Clone)]
pub struct Entries(Form);

#[derive(Clone)]
enum Form {
    /// As it came from a cookie or over a wire; and in memory, while there are few.
    Packed(Arc<Packed>),
    /// Many values in this process's memory, and how many bytes keys and values have.
    Shared(Shared, usize),
}

/// Many values: a persistent map, so that a snapshot costs nothing and a change costs what it
/// changes, however large the session is. Below [`FEW`] values, packing them again costs no more,
/// and takes a fifth of the memory (bench `memory_store`).
#[cfg(feature = "memory")]
type Shared = imbl::HashMap<Arc<str>, Value<Arc<str>>>;

/// Unused without the memory store.
#[cfg(not(feature = "memory"))]
type Shared = std::collections::HashMap<Arc<str>, Value<Arc<str>>>;

const FEW: usize = 48;

/// After how many searches through all of many slots they are worth an index. With it, reading all of
/// 1,000 values takes 0.13 ms in place of 1.3, and all of 10,000 takes 1.8 ms in place of 131.
const SEARCHES: u32 = 64;

/// One text holds all keys and values, and a list says where each begins.
#[derive(Default)]
struct Packed {
    text: String,
    slots: Vec<Slot>,
    searches: AtomicU32,
    /// The numbers of the slots, sorted by their keys: a read of one key of many does not wait
    /// for it, and reading all of them is not quadratic.
    index: OnceLock<Box<[u32]>>,
}

/// Where one entry lies in the text: the key from `start`, the value from `middle` to `end`.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    middle: usize,
    end: usize,
    is_json: bool,
}

/// Where the entries of a text lie.
#[cfg(feature = "cookies")]
pub(crate) struct Slots(Vec<Slot>);

impl Packed {
    fn new(text: String, slots: Vec<Slot>) -> Self {
        Self {
            text,
            slots,
            ..Self::default()
        }
    }

    fn find(&self, key: &str) -> Option<&Slot> {
        let is_few = self.slots.len() <= FEW || u32::try_from(self.slots.len()).is_err();
        if is_few || self.searches.fetch_add(1, Ordering::Relaxed) < SEARCHES {
            return self.slots.iter().find(|slot| self.key(slot) == key);
        }
        let key_at = |at: &u32| self.key(&self.slots[*at as usize]);
        let index = self.index.get_or_init(|| {
            let mut index: Box<[u32]> = (0..self.slots.len() as u32).collect();
            index.sort_by_key(key_at);
            index
        });
        let at = index.binary_search_by_key(&key, key_at).ok()?;
        Some(&self.slots[index[at] as usize])
    }

    fn key(&self, slot: &Slot) -> &str {
        &self.text[slot.start..slot.middle]
    }

    fn value(&self, slot: &Slot) -> Value<&str> {
        let text = &self.text[slot.middle..slot.end];
        if slot.is_json {
            Value::Json(text)
        } else {
            Value::Text(text)
        }
    }
}

#[cfg(feature = "cookies")]
impl Entries {
    /// Returns where entries lie, from the lengths of key and value in bytes, and whether the value
    /// is JSON.
    pub(crate) fn slots(lengths: impl Iterator<Item = (usize, usize, bool)>) -> Option<Slots> {
        let mut slots = Vec::with_capacity(lengths.size_hint().1.unwrap_or_default());
        let mut at = 0_usize;
        for (key, value, is_json) in lengths {
            let (start, middle) = (at, at.checked_add(key)?);
            at = middle.checked_add(value)?;
            slots.push(Slot {
                start,
                middle,
                end: at,
                is_json,
            });
        }
        Some(Slots(slots))
    }

    /// Puts entries together; `None` if they do not fit the text.
    pub(crate) fn from_slots(text: String, Slots(slots): Slots) -> Option<Self> {
        let is_cut =
            |slot: &Slot| text.is_char_boundary(slot.middle) && text.is_char_boundary(slot.end);
        let end = slots.last().map_or(0, |slot| slot.end);
        (end == text.len() && slots.iter().all(is_cut))
            .then(|| Self(Form::Packed(Arc::new(Packed::new(text, slots)))))
    }
}

impl Entries {
    /// Returns the value under `key`.
    pub fn get(&self, key: &str) -> Option<Value<&str>> {
        match &self.0 {
            Form::Packed(packed) => {
                let slot = packed.find(key)?;
                Some(packed.value(slot))
            }
            Form::Shared(values, _) => values.get(key).map(Value::borrowed),
        }
    }

    /// Iterates over all keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<&str>)> + Clone {
        let (packed, shared) = match &self.0 {
            Form::Packed(packed) => (Some(packed), None),
            Form::Shared(values, _) => (None, Some(values)),
        };
        let packed = packed.into_iter().flat_map(|packed| {
            packed
                .slots
                .iter()
                .map(|slot| (packed.key(slot), packed.value(slot)))
        });
        let shared = shared.into_iter().flatten();
        packed.chain(shared.map(|(key, value)| (&**key, value.borrowed())))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(packed) => packed.slots.len(),
            Form::Shared(values, _) => values.len(),
        }
    }

    /// Returns the size of all keys and values in bytes, in constant time.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(packed) => packed.text.len(),
            Form::Shared(_, bytes) => *bytes,
        }
    }

    /// Returns `true` if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries if `clear`, then those of `remove`, and sets those of `set`. Clones of
    /// these entries stay as they are.
    pub(crate) fn merge(&mut self, clear: bool, remove: &[Box<str>], set: &[(Box<str>, Value)]) {
        let (values, bytes) = match &mut self.0 {
            Form::Shared(values, bytes) => (values, bytes),
            Form::Packed(packed) if packed.slots.len() + set.len() <= FEW => {
                let is_written = |key: &str| {
                    clear
                        || remove.iter().any(|gone| **gone == *key)
                        || set.iter().any(|(name, _)| **name == *key)
                };
                let kept = self.iter().filter(|(key, _)| !is_written(key));
                // Measured first, so that nothing has to grow (bench `overhead`, row "write three
                // keys").
                let values = kept.chain(set.iter().map(|(key, value)| (&**key, value.borrowed())));
                let (count, bytes) = values.clone().fold((0, 0), |(count, bytes), (key, value)| {
                    (count + 1, bytes + key.len() + value.as_str().len())
                });
                *self = Self::pack(values, count, bytes);
                return;
            }
            Form::Packed(_) => {
                let values = self.iter().map(|(key, value)| (key.into(), value.shared()));
                self.0 = Form::Shared(values.collect(), self.bytes());
                return self.merge(clear, remove, set);
            }
        };
        if clear {
            values.clear();
            *bytes = 0;
        }
        for key in remove {
            if let Some(old) = values.remove(&**key) {
                *bytes -= key.len() + old.as_str().len();
            }
        }
        for (key, value) in set {
            *bytes += value.as_str().len();
            match values.insert((&**key).into(), value.shared()) {
                Some(old) => *bytes -= old.as_str().len(),
                None => *bytes += key.len(),
            }
        }
    }
}

impl Entries {
    /// Packs entries, of which there are `count` with so many bytes, or so they say.
    fn pack<K: AsRef<str>, V: AsRef<str>>(
        entries: impl IntoIterator<Item = (K, Value<V>)>,
        count: usize,
        bytes: usize,
    ) -> Self {
        let (mut text, mut slots) = (String::with_capacity(bytes), Vec::with_capacity(count));
        for (key, value) in entries {
            let start = text.len();
            text.push_str(key.as_ref());
            let middle = text.len();
            text.push_str(value.as_str());
            slots.push(Slot {
                start,
                middle,
                end: text.len(),
                is_json: matches!(value, Value::Json(_)),
            });
        }
        text.shrink_to_fit();
        slots.shrink_to_fit();
        Self(Form::Packed(Arc::new(Packed::new(text, slots))))
    }
}

impl Expiry {
    /// Returns the timeouts of a session with these values.
    pub(crate) fn of(self, entries: &Entries) -> Self {
        self.with(Lifetime::decode(entries.get(Lifetime::KEY)))
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self(Form::Packed(Arc::default()))
    }
}

/// Shows how many there are, and none of them.
impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({})", self.len())
    }
}

/// Collects entries; the keys must differ.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, Value<V>)> for Entries {
    fn from_iter<I: IntoIterator<Item = (K, Value<V>)>>(entries: I) -> Self {
        Self::pack(entries, 0, 0)
    }
}
