//! The reasons why a configuration was rejected.

#[cfg(any(feature = "cookies", feature = "server-side"))]
use crate::key::KeyError;
use crate::{
    error::{ConfigError, debug_as_display},
    store::StoreError,
};

/// The reason why no manager could be created from a url, a [`Config`](crate::Config) or the
/// environment.
///
/// No text quotes the url, not even a part of it: in a malformed url, any part may belong to a
/// password. `Debug` prints the same text as `Display`, and both include the sources.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The url has no scheme, or an unknown one.
    #[error(
        "the session url begins with no known scheme{}; it begins with `signed:` or `private:` \
         (feature `cookies`), `memory:` (`memory`), `sqlite:` (`sqlite`), `postgres://` (`postgres`), \
         `mysql://` (`mysql`), `redis://` (`redis`) or `rediss://` (`redis-tls`)",
        did_you_mean(*closest)
    )]
    UnknownScheme {
        /// The scheme that the url's is most like.
        closest: Option<&'static str>,
    },
    /// The url needs a feature of session-manager that is not compiled in.
    #[error(
        "a session url with `{scheme}:` needs the feature `{feature}` of session-manager, which is not \
         compiled in: add it to the dependency's `features` in Cargo.toml"
    )]
    MissingFeature {
        /// The scheme. If no url is set, `signed`.
        scheme: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The url has a known scheme, but is malformed.
    #[error("the session url is malformed: {why}")]
    MalformedUrl {
        /// The mistake, and how to correct it.
        why: &'static str,
    },
    /// A query parameter is neither a setting nor known to the store's client.
    #[error(
        "parameter {position} of the session url is unknown{}; settings are the fields of \
         `session_manager::Config` (such as `cookie_name`, `idle`, `absolute`, `secure`), and a \
         password must be percent-encoded",
        did_you_mean(*closest)
    )]
    UnknownParameter {
        /// The number of the parameter in the url, from 1.
        position: usize,
        /// The known parameter that it is most like.
        closest: Option<&'static str>,
    },
    /// A setting is twice in the url, or in the url and in a field of the
    /// [`Config`](crate::Config).
    #[error("the setting `{setting}` is set twice: leave one of them out")]
    SetTwice {
        /// The setting.
        setting: &'static str,
    },
    /// A setting is of no use to the backend.
    #[error(
        "the setting `{setting}` does not apply to a session url with `{scheme}:`: leave it out"
    )]
    NotApplicable {
        /// The setting.
        setting: &'static str,
        /// The url's scheme.
        scheme: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("the setting `{setting}` must be {expected}")]
    InvalidValue {
        /// The setting.
        setting: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The value of an environment variable is not valid Unicode.
    #[error("the environment variable {variable} is not valid Unicode: write it as UTF-8")]
    NotUnicode {
        /// The variable.
        variable: &'static str,
    },
    /// A browser would drop the cookie silently.
    #[error("{source}")]
    Settings {
        /// The reason.
        #[from]
        source: ConfigError,
    },
    /// The secret is missing or too short, or one of the accepted ones is too short.
    #[cfg(any(feature = "cookies", feature = "server-side"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "cookies", feature = "server-side"))))]
    #[error("{source}")]
    Secret {
        /// The reason.
        #[from]
        source: KeyError,
    },
    /// The store cannot be reached, or refuses.
    #[error(
        "the session store cannot be used, check the url and whether the server runs: {}",
        with_sources(source)
    )]
    Store {
        /// The reason.
        #[from]
        source: StoreError,
    },
    /// The clients of stores need a tokio runtime, which actix-web and axum have.
    #[error(
        "a session url with `{scheme}:` needs a tokio runtime: call this from `#[actix_web::main]` or \
         `#[tokio::main]`"
    )]
    NoRuntime {
        /// The url's scheme.
        scheme: &'static str,
    },
}

debug_as_display!(SetupError);

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |closest| {
        format!(" (did you mean `{closest}`?)")
    })
}

/// Returns the text of an error and those of its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}
