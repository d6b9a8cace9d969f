//! How a session's token travels between client and server.

use crate::{cookie::Found, error::ConfigError, observer::Refusal};

/// How a session's token travels between client and server.
///
/// A browser sends cookies by itself. A client of an API, a mobile application or a gRPC client has no
/// cookie jar: it sends the token in a header, and takes a new one from the response. A request is
/// read by the manager's carrier alone: a cookie beside the header is ignored.
///
/// | carrier | the client sends | the response has |
/// |---|---|---|
/// | `Cookie` (default) | `Cookie: _session=TOKEN` | `Set-Cookie` |
/// | `Header("x-session")` | `x-session: TOKEN` | `x-session: TOKEN` |
/// | `Bearer` | `Authorization: Bearer TOKEN` | `session-token: TOKEN` |
///
/// The response has the header whenever the client must replace its token: after the first write, a
/// renewal, a log-out (the header is then empty), and, for a backend that keeps the session in the
/// token, after each write. A browser never sends such a header by itself, so that a request cannot be
/// forged by another site (CSRF); but scripts can read the token, so that cross-site scripting can
/// steal it. `Secure`, `SameSite` and the other attributes of a cookie do not apply.
///
/// A script of another origin needs both headers allowed by CORS: that of the request in
/// `Access-Control-Allow-Headers`, that of the response in `Access-Control-Expose-Headers`, or it
/// cannot read its token.
///
/// In gRPC these headers are metadata: a tonic client takes the token from `Response::metadata` and
/// sends it with the next call. A gRPC status is not an HTTP status: what a call did is saved even if
/// it returns an error `Status`. A store that is down is the status `UNAVAILABLE`.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Carrier, Key, Manager, SignedCookie};
///
/// let manager = Manager::builder(SignedCookie::new(Key::generate()))
///     .carrier(Carrier::Bearer)
///     .build()?;
/// # }
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// The session cookie.
    #[default]
    Cookie,
    /// A request and response header of this name.
    Header(&'static str),
    /// `Authorization: Bearer` (RFC 6750, section 2.1) in requests, and [`Carrier::TOKEN`] in
    /// responses.
    Bearer,
}

impl Carrier {
    /// The response header that carries the token for [`Bearer`](Self::Bearer).
    pub const TOKEN: &str = "session-token";

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        let Self::Header(name) = self else {
            return Ok(());
        };
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let rule = if name.is_empty() || !name.bytes().all(is_token) {
            "it is not the name of a header: use letters, digits and `-`"
        } else if HAVE_A_MEANING
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it))
        {
            "this header has another meaning in HTTP: choose a name such as `x-session`"
        } else {
            return Ok(());
        };
        Err(ConfigError::Carrier {
            name: name.to_owned(),
            rule,
        })
    }

    /// Returns the request header that the response depends on.
    pub(crate) fn request_header(self) -> &'static str {
        match self {
            Self::Cookie => "Cookie",
            Self::Header(name) => name,
            Self::Bearer => "Authorization",
        }
    }

    /// Finds the token in the values of the request header.
    pub(crate) fn find<'h>(self, mut values: impl Iterator<Item = &'h [u8]>) -> Found<'h> {
        let Some(value) = values.next() else {
            return Found::Nothing;
        };
        if values.next().is_some() {
            return Found::Refused(Refusal::Ambiguous, "its header is there more than once");
        }
        let value = value.trim_ascii();
        let token = match (self, value.split_first_chunk()) {
            (Self::Bearer, Some((scheme, token))) => {
                let scheme: &[u8; 7] = scheme;
                if !scheme.eq_ignore_ascii_case(b"Bearer ") {
                    // Another scheme, which is none of this crate's.
                    return Found::Nothing;
                }
                token.trim_ascii_start()
            }
            (Self::Bearer, None) => return Found::Nothing,
            _ => value,
        };
        match str::from_utf8(token) {
            Ok("") => Found::Nothing,
            Ok(token) => Found::One(token),
            Err(_) => Found::Refused(Refusal::Malformed, "it is not text"),
        }
    }
}

/// Headers that a session's token would take from their purpose.
const HAVE_A_MEANING: [&str; 14] = [
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "host",
    "location",
    "proxy-authorization",
    "set-cookie",
    "te",
    "transfer-encoding",
    "vary",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn find(carrier: Carrier, values: &[&str]) -> Result<String, &'static str> {
        match carrier.find(values.iter().map(|value| value.as_bytes())) {
            Found::Nothing => Ok(String::new()),
            Found::One(token) => Ok(token.into()),
            Found::Refused(_, why) => Err(why),
        }
    }

    #[test]
    fn a_token_is_found_in_its_header_alone() {
        let header = Carrier::Header("x-session");
        assert_eq!(find(header, &[" token "]), Ok("token".into()));
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let value = format!("{scheme}  token");
            assert_eq!(find(Carrier::Bearer, &[&value]), Ok("token".into()));
        }
        for nothing in [
            "",
            "Bearer",
            "Bearer ",
            "Basic token",
            "Bearertoken",
            "token",
        ] {
            assert_eq!(
                find(Carrier::Bearer, &[nothing]),
                Ok(String::new()),
                "{nothing}"
            );
        }
        assert!(find(header, &["a", "b"]).is_err());
        assert!(matches!(
            header.find([&b"\xff"[..]].into_iter()),
            Found::Refused(..)
        ));
    }

    #[test]
    fn a_header_that_is_none_or_has_another_meaning_is_refused() {
        for name in [
            "",
            "a b",
            "a:b",
            "é",
            "Cookie",
            "set-cookie",
            "Authorization",
        ] {
            let refused = Carrier::Header(name).check();
            assert!(
                matches!(refused, Err(ConfigError::Carrier { .. })),
                "{name}"
            );
        }
        for carrier in [
            Carrier::Cookie,
            Carrier::Bearer,
            Carrier::Header("X-Session"),
        ] {
            carrier.check().unwrap();
        }
    }
}
