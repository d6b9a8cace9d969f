//! Flash messages: shown once, on the next page that reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// A flash message: text to show once, and its kind.
///
/// The text is plain text, which the template escapes like any other. HTML needs its own
/// constructor, [`Message::trusted_html`]: an error text that quotes user input and is shown as
/// HTML allows cross-site scripting (CWE-79).
///
/// The serialised form, for templates, has the fields `kind` and `text`, and `html: true` for
/// trusted HTML only. Deserialising ignores `html`: the result is always plain text.
///
/// ```
/// use session_manager::Message;
///
/// let message = Message::error("<b> is not allowed");
/// assert_eq!(message.kind, "error");
/// assert_eq!(message.text, "<b> is not allowed");
/// assert_eq!(message.to_html(), "&lt;b&gt; is not allowed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The text to show.
    pub text: String,
    /// The kind: `success`, `info`, `warning`, `error`, or one that the application defines.
    /// Templates can use it as a CSS class.
    pub kind: String,
    #[serde(skip_deserializing, skip_serializing_if = "std::ops::Not::not")]
    html: bool,
}

impl Message {
    /// Creates a message of any kind.
    ///
    /// ```
    /// let message = session_manager::Message::new("notice", "Back at noon");
    /// assert_eq!(message.kind, "notice");
    /// ```
    pub fn new(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            kind: kind.into(),
            html: false,
        }
    }

    /// Creates a message of the kind `success`.
    pub fn success(text: impl Into<String>) -> Self {
        Self::new("success", text)
    }

    /// Creates a message of the kind `info`, as converting from `&str` or `String` does.
    pub fn info(text: impl Into<String>) -> Self {
        Self::new("info", text)
    }

    /// Creates a message of the kind `warning`.
    pub fn warning(text: impl Into<String>) -> Self {
        Self::new("warning", text)
    }

    /// Creates a message of the kind `error`.
    pub fn error(text: impl Into<String>) -> Self {
        Self::new("error", text)
    }

    /// Creates a message whose text is shown as HTML. **Never** include unescaped user input
    /// (CWE-79).
    ///
    /// ```
    /// let message = session_manager::Message::trusted_html("success", "<b>Saved</b>");
    /// assert_eq!(message.to_html(), "<b>Saved</b>");
    /// ```
    pub fn trusted_html(kind: impl Into<String>, html: impl Into<String>) -> Self {
        Self {
            html: true,
            ..Self::new(kind, html)
        }
    }

    /// Returns `true` if the text is trusted HTML.
    pub fn is_trusted_html(&self) -> bool {
        self.html
    }

    /// Returns the message as HTML: trusted HTML unchanged, plain text with `& < > " '` escaped.
    pub fn to_html(&self) -> String {
        if self.html {
            return self.text.clone();
        }
        let mut html = String::with_capacity(self.text.len());
        for character in self.text.chars() {
            match character {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#39;"),
                other => html.push(other),
            }
        }
        html
    }

    /// Returns the stored form: an array without field names, because it may have to fit in a
    /// cookie.
    pub(crate) fn to_stored(&self) -> Vec<&str> {
        let mut stored = vec![self.kind.as_str(), self.text.as_str()];
        if self.html {
            stored.push("html");
        }
        stored
    }

    pub(crate) fn from_stored(stored: Value<&str>) -> Option<Self> {
        let mut parts = stored.decode::<Vec<String>>().ok()?.into_iter();
        let (kind, text) = (parts.next()?, parts.next()?);
        Some(Self {
            text,
            kind,
            html: parts.next().is_some_and(|mark| mark == "html"),
        })
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::info(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::info(text)
    }
}

/// Writes the text without escaping it.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_string_is_an_info_message() {
        assert_eq!(Message::from("a"), Message::info("a"));
        assert_eq!(Message::from(String::from("a")), Message::info("a"));
    }

    #[test]
    fn html_that_the_application_serialised_comes_back_as_text() {
        let trusted = Message::trusted_html("info", "<i>x</i>");
        let json = serde_json::to_string(&trusted).unwrap();
        assert_eq!(json, r#"{"text":"<i>x</i>","kind":"info","html":true}"#);
        let back: Message = serde_json::from_str(&json).unwrap();
        assert!(!back.is_trusted_html());
        assert_eq!(back.to_html(), "&lt;i&gt;x&lt;/i&gt;");
    }
}
