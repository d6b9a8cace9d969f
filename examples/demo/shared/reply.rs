//! What a handler answers, whatever the framework.

/// A response that each demo converts to its framework's type.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
}

impl Reply {
    /// Creates a page. After a logout, the back button must not show it or its messages again.
    pub fn html(body: String) -> Self {
        Self {
            status: 200,
            headers: vec![
                ("content-type", "text/html; charset=utf-8"),
                ("cache-control", "no-store"),
                (
                    "content-security-policy",
                    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                     img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
                ),
            ],
            body,
        }
    }

    /// Creates the answer to a script of the demo.
    pub fn json(value: &serde_json::Value) -> Self {
        Self {
            status: 200,
            headers: vec![
                ("content-type", "application/json"),
                ("cache-control", "no-store"),
            ],
            body: value.to_string(),
        }
    }

    /// Creates a file that is part of the program.
    pub fn file(kind: &'static str, content: &str) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", kind), ("cache-control", "no-cache")],
            body: content.to_owned(),
        }
    }

    /// Answers a form with a redirect, so that reloading the page does not send the form again.
    pub fn see_other(to: &'static str) -> Self {
        Self {
            status: 303,
            headers: vec![("location", to)],
            body: String::new(),
        }
    }

    /// Creates an answer without content.
    pub fn done() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Logs the error of a template, which is for the developer, and tells the client nothing of it.
    pub fn broken(error: &minijinja::Error) -> Self {
        tracing::error!("{error:#}");
        Self {
            status: 500,
            headers: vec![("content-type", "text/plain; charset=utf-8")],
            body: "Internal Server Error".to_owned(),
        }
    }
}
