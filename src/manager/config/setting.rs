//! Settings as text: in a query parameter, and in a configuration file.

use std::{fmt, marker::PhantomData, time::Duration};

use cookie::SameSite;
use serde::{Deserialize, Deserializer, de};

use crate::settings::OnStoreError;

/// The longest duration of a setting: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// A value that is written as text.
pub(super) trait Setting: Sized {
    /// What the text must be, for an error that does not quote it.
    const EXPECTED: &'static str;

    /// Reads the text. Returns `None` if it is not as [`EXPECTED`](Self::EXPECTED) says.
    fn read(text: &str) -> Option<Self>;
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a number and a unit (`ms`, `s`, `m`, `h` or `d`), such as `90s`, `15m`, `24h` or `30d`, more \
         than zero and at most `36500d`";

    fn read(text: &str) -> Option<Self> {
        let unit = text.find(|char: char| !char.is_ascii_digit())?;
        let (number, unit) = text.split_at(unit);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let duration = Self::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?);
        (!duration.is_zero() && duration <= LONGEST).then_some(duration)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number, more than zero";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| *number > 0)
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text of 1 to 1,024 characters without control characters";

    fn read(text: &str) -> Option<Self> {
        let is_text = (1..=1024).contains(&text.len()) && !text.contains(char::is_control);
        is_text.then(|| text.to_owned())
    }
}

impl Setting for SameSite {
    const EXPECTED: &'static str = "`strict`, `lax` or `none`";

    fn read(text: &str) -> Option<Self> {
        let all = [Self::Strict, Self::Lax, Self::None];
        all.into_iter()
            .find(|same_site| same_site.to_string().eq_ignore_ascii_case(text))
    }
}

impl Setting for OnStoreError {
    const EXPECTED: &'static str = "`fail` or `anonymous`";

    fn read(text: &str) -> Option<Self> {
        match text {
            "fail" => Some(Self::Fail),
            "anonymous" => Some(Self::Anonymous),
            _ => None,
        }
    }
}

/// A secret of any text; its length is checked when the key is made of it.
struct Secret(String);

impl Setting for Secret {
    const EXPECTED: &'static str = "a secret, which is a text";

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

/// Reads a setting from a text; no error quotes it.
struct Text<T>(T);

impl<'de, T: Setting> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A deserializer that is asked for a text quotes the number that it finds instead.
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Setting> TextVisitor<T> {
    fn refuse<E: de::Error>() -> Result<Text<T>, E> {
        Err(E::custom(format_args!("expected {}", T::EXPECTED)))
    }
}

impl<T: Setting> de::Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::read(text).map(Text).map_or_else(Self::refuse, Ok)
    }

    // The methods that this trait provides for other types quote the value.

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Self::refuse()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Self::refuse()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Self::refuse()
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Self::Value, E> {
        Self::refuse()
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Self::Value, E> {
        Self::refuse()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Self::refuse()
    }
}

/// Reads a field that may be missing or null.
pub(super) fn optional<'de, D: Deserializer<'de>, T: Setting>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Text<T>>::deserialize(deserializer)?.map(|text| text.0))
}

/// Reads a secret that may be missing or null.
pub(super) fn secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(optional::<D, Secret>(deserializer)?.map(|secret| secret.0))
}

/// Reads a list of secrets.
pub(super) fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(SecretsVisitor)
}

struct SecretsVisitor;

impl<'de> de::Visitor<'de> for SecretsVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of secrets")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut secrets = Vec::new();
        while let Some(Text(Secret(secret))) = list.next_element()? {
            secrets.push(secret);
        }
        Ok(secrets)
    }

    /// A single secret without its list; the provided method would quote it.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::custom("expected a list of secrets"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_neither_zero_nor_endless() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("36500d", 3_153_600_000),
        ] {
            assert_eq!(Duration::read(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(Duration::read("250ms"), Some(Duration::from_millis(250)));
        for text in [
            "",
            "s",
            "0s",
            "0",
            "90",
            "-5m",
            "+5m",
            "1.5h",
            "5 m",
            "5M",
            "5w",
            "5mm",
            "1h30m",
            "36501d",
            "99999999999999999999d",
            "18446744073709551615d",
            "٣s",
            "5é",
            "inf",
        ] {
            assert_eq!(Duration::read(text), None, "{text}");
        }
    }

    #[test]
    fn other_settings_are_read_as_their_error_says() {
        assert_eq!(bool::read("true"), Some(true));
        assert_eq!(bool::read("yes"), None);
        assert_eq!(usize::read("0"), None);
        assert_eq!(usize::read("99999999999999999999999"), None);
        assert_eq!(SameSite::read("Strict"), Some(SameSite::Strict));
        assert_eq!(SameSite::read("none"), Some(SameSite::None));
        assert_eq!(SameSite::read("loose"), None);
        assert_eq!(String::read(""), None);
        assert_eq!(String::read("a\nb"), None);
        assert_eq!(
            OnStoreError::read("anonymous"),
            Some(OnStoreError::Anonymous)
        );
    }
}
