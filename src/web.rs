//! How requests of each web framework come to a manager, and what their responses carry.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "tower")]
mod tower;

use crate::{Middleware, log::log, session::Headers};

/// A service with sessions: what [`Middleware`] makes of a service of actix-web or tower.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    middleware: Middleware,
    service: S,
}

/// The fields of a response that say something of its session.
#[derive(Clone, Copy)]
enum Field {
    CacheControl,
    SetCookie,
    Vary,
}

/// The fields of a response, as its framework keeps them.
trait Fields {
    fn all(&self, field: Field) -> impl Iterator<Item = &[u8]>;

    /// Adds a line; `false` if `value` cannot stand in a header.
    fn append(&mut self, field: Field, value: &str) -> bool;
}

impl Headers {
    fn write(self, fields: &mut impl Fields) {
        if self.vary && !varies_by_cookie(fields.all(Field::Vary)) {
            fields.append(Field::Vary, "Cookie");
        }
        let Some(set_cookie) = self.set_cookie else {
            return;
        };
        for removed in &self.removed {
            fields.append(Field::SetCookie, removed);
        }
        if !fields.append(Field::SetCookie, &set_cookie) {
            log!(
                ERROR,
                "a session engine made a token that cannot stand in a header; it was not sent"
            );
            return;
        }
        if let Some(directive) = cache_control_to_add(fields.all(Field::CacheControl)) {
            fields.append(Field::CacheControl, directive);
        }
    }
}

/// Whether a request came over plain http to a loopback host, and through no proxy.
fn is_http_to_loopback(
    host: Option<&str>,
    is_https: bool,
    is_http_1_0: bool,
    has_field: impl Fn(&str) -> bool,
) -> bool {
    host.is_some_and(is_loopback)
        && !is_https
        // Proxies that set no mark and name the upstream as host, as nginx does unless told
        // otherwise, have long spoken HTTP/1.0.
        && !is_http_1_0
        && !PROXY_MARKS.into_iter().any(has_field)
}

/// Whether `host`, as a `Host` header or a URI has it, is this machine as nobody else can be:
/// `localhost` and names below it (RFC 6761), `127.0.0.0/8` or `::1`, with or without a port.
fn is_loopback(host: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};

    // The first letter first: most hosts are none of these, and every request is asked.
    match host.as_bytes().first() {
        Some(b'[') => {
            let address = host[1..]
                .split_once(']')
                .and_then(|(address, _)| address.parse().ok());
            address == Some(Ipv6Addr::LOCALHOST)
        }
        Some(b'1') => {
            name_of(host)
                .parse()
                .is_ok_and(|address: Ipv4Addr| address.is_loopback())
                || is_localhost(name_of(host))
        }
        _ => is_localhost(name_of(host)),
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn is_localhost(name: &str) -> bool {
    const LOCALHOST: &str = "localhost";
    let name = name.strip_suffix('.').unwrap_or(name);
    let Some(split) = name.len().checked_sub(LOCALHOST.len()) else {
        return false;
    };
    let end = name.get(split..);
    end.is_some_and(|end| end.eq_ignore_ascii_case(LOCALHOST))
        && (split == 0 || name.as_bytes()[split - 1] == b'.')
}

/// Header fields that tell of a proxy between client and server.
const PROXY_MARKS: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// What an existing `Cache-Control` value needs so that no cache keeps the `Set-Cookie` beside it
/// (RFC 9111, section 5.2.2.4); `None` if it says so already.
fn cache_control_to_add<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<&'static str> {
    let is_enough = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|directive| {
            let directive = directive.trim_ascii();
            directive.eq_ignore_ascii_case(b"no-store")
                || directive.eq_ignore_ascii_case(b"no-cache")
        })
    };
    (!values.any(is_enough)).then_some("no-cache=\"Set-Cookie\"")
}

/// Whether `Vary` values name the `Cookie` field already, or everything.
fn varies_by_cookie<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> bool {
    values.any(|value| {
        value.split(|byte| *byte == b',').any(|field| {
            let field = field.trim_ascii();
            field == b"*" || field.eq_ignore_ascii_case(b"cookie")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known_and_nothing_that_looks_like_one() {
        for host in [
            "localhost",
            "localhost:80",
            "LOCALHOST",
            "app.localhost:1",
            "localhost.",
            "127.0.0.1",
            "127.9.9.9:8080",
            "[::1]",
            "[::1]:8080",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "notlocalhost",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "128.0.0.1",
            "[::2]",
            "[::1",
            "[",
            "10.0.0.1",
            "é.example",
            ":80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn caches_are_told_once() {
        let add = |values: &[&str]| cache_control_to_add(values.iter().map(|v| v.as_bytes()));
        assert_eq!(add(&[]), Some("no-cache=\"Set-Cookie\""));
        assert_eq!(
            add(&["public, max-age=60"]),
            Some("no-cache=\"Set-Cookie\"")
        );
        assert_eq!(add(&["private", "max-age=0, No-Store"]), None);
        assert_eq!(add(&["no-cache"]), None);
        let varies = |values: &[&str]| varies_by_cookie(values.iter().map(|v| v.as_bytes()));
        assert!(varies(&["Accept", "origin, COOKIE"]) && varies(&["*"]));
        assert!(!varies(&["Accept-Cookie"]) && !varies(&[]));
    }
}
