//! Flash messages: shown once, at the next page that asks for them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// A flash message: text to show once, and its kind.
///
/// Text is text: a template escapes it, as it escapes any other. A message that is HTML has its own
/// constructor, [`Message::trusted_html`], because error texts that quote what a visitor typed and
/// are shown as HTML are a cross-site-scripting hole (CWE-79).
///
/// Serialised (for a template, say) it has the fields `kind`, `text` and, for trusted HTML alone,
/// `html: true`. Deserialised, it is always text: `html` is not believed.
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
    /// What to show.
    pub text: String,
    /// `success`, `info`, `warning`, `error`, or what the application chose: a template's class.
    pub kind: String,
    #[serde(skip_deserializing, skip_serializing_if = "std::ops::Not::not")]
    html: bool,
}

impl Message {
    /// A message of a kind of your own.
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

    /// It worked.
    pub fn success(text: impl Into<String>) -> Self {
        Self::new("success", text)
    }

    /// Good to know. Also what a plain `&str` or `String` becomes.
    pub fn info(text: impl Into<String>) -> Self {
        Self::new("info", text)
    }

    /// It worked, but.
    pub fn warning(text: impl Into<String>) -> Self {
        Self::new("warning", text)
    }

    /// It did not work.
    pub fn error(text: impl Into<String>) -> Self {
        Self::new("error", text)
    }

    /// A message whose text is HTML and will be shown as such: **never** put in it what came from
    /// outside (CWE-79).
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

    /// Whether the text is trusted HTML.
    pub fn is_trusted_html(&self) -> bool {
        self.html
    }

    /// The message as HTML: trusted HTML as it is, text with `& < > " '` escaped.
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

    /// The stored form, short because it may have to fit in a cookie.
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

/// The text, not escaped.
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
    fn html_that_somebody_serialised_comes_back_as_text() {
        let trusted = Message::trusted_html("info", "<i>x</i>");
        let json = serde_json::to_string(&trusted).unwrap();
        assert_eq!(json, r#"{"text":"<i>x</i>","kind":"info","html":true}"#);
        let back: Message = serde_json::from_str(&json).unwrap();
        assert!(!back.is_trusted_html());
        assert_eq!(back.to_html(), "&lt;i&gt;x&lt;/i&gt;");
    }
}
