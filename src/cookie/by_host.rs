//! The session cookie of a request whose domain depends on the request's host: one per tenant.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Attributes, SessionCookie};
use crate::error::ConfigError;

/// Returns the domain of a host's cookie.
pub(crate) type DomainFor = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The cookie's attributes, and its domain by host.
#[derive(Clone)]
pub(crate) struct CookieByHost {
    attributes: Attributes,
    domain_for: DomainFor,
}

/// The warning about a domain that a browser would refuse.
const REFUSED: &str = "the function given to `cookie_domain_for` returned a domain that is not the \
                       request's host or a domain above it; browsers drop such a cookie, so it goes \
                       to that host alone. This is logged once";

impl CookieByHost {
    pub(crate) fn new(attributes: &Attributes, domain_for: DomainFor) -> Result<Self, ConfigError> {
        // What holds for one domain holds for all.
        SessionCookie::new(Attributes {
            domain: Some("example.com".to_owned()),
            ..attributes.clone()
        })?;
        Ok(Self {
            attributes: attributes.clone(),
            domain_for,
        })
    }

    /// Returns the cookie for a host as the request names it, and a line to log.
    pub(crate) fn cookie(&self, host: Option<&[u8]>) -> (SessionCookie, Option<&'static str>) {
        let with = |domain: Option<String>, tenant: String| {
            let attributes = Attributes {
                domain,
                ..self.attributes.clone()
            };
            Ok::<_, ConfigError>(SessionCookie::new(attributes)?.bound_to(&tenant))
        };
        let host_only = |tenant| {
            #[expect(clippy::expect_used, reason = "`new` checked all but the domain")]
            with(None, tenant).expect("the attributes are valid")
        };
        // A tenant's name begins with a dot where it is a domain, and with a question mark where no
        // browser sends such a host: no two kinds are alike.
        let Some(host) = host else {
            return (host_only(String::new()), None);
        };
        let Some(name) = HostName::parse(host) else {
            return (host_only(format!("?{}", host.escape_ascii())), None);
        };
        let HostName::Domain(name) = name else {
            return (host_only(name.to_string()), None);
        };
        let Some(domain) = (self.domain_for)(&name) else {
            return (host_only(name), None);
        };
        let domain = domain.strip_prefix('.').unwrap_or(&domain);
        let domain = domain.to_ascii_lowercase();
        if covers(&domain, &name)
            && let Ok(cookie) = with(Some(domain.clone()), format!(".{domain}"))
        {
            return (cookie, None);
        }
        static IS_SAID: AtomicBool = AtomicBool::new(false);
        let is_said = IS_SAID.swap(true, Ordering::Relaxed);
        (host_only(name), (!is_said).then_some(REFUSED))
    }
}

/// Returns `true` if a browser accepts `domain` from `host` (RFC 6265, section 5.3). A top-level
/// domain it does not; which others are public suffixes is not known here.
fn covers(domain: &str, host: &str) -> bool {
    if domain == host {
        return true;
    }
    let above = host.strip_suffix(domain);
    domain.contains('.') && above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
}

/// A host without its port.
enum HostName {
    /// A name in lower case, without a final dot.
    Domain(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl HostName {
    /// Parses a host as a `Host` header or a URI has it.
    fn parse(host: &[u8]) -> Option<Self> {
        let host = str::from_utf8(host).ok()?;
        if let Some(rest) = host.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return address.parse().ok().filter(|_| is_port).map(Self::V6);
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            _ => host,
        };
        if let Ok(address) = name.parse() {
            return Some(Self::V4(address));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(is_allowed)
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        is_name.then(|| Self::Domain(name.to_ascii_lowercase()))
    }
}

fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => f.write_str(name),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Debug for CookieByHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieByHost")
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(host: Option<&str>, domain: Option<&str>) -> SessionCookie {
        let domain = domain.map(str::to_owned);
        let by_host = CookieByHost::new(&Attributes::default(), Arc::new(move |_| domain.clone()));
        by_host.unwrap().cookie(host.map(str::as_bytes)).0
    }

    #[test]
    fn a_domain_that_covers_the_host_is_the_cookies_and_the_tenant() {
        for host in [
            "a.example.com",
            "A.Example.COM",
            "a.example.com:8080",
            "a.example.com.",
            "a.example.com.:1",
            "example.com",
            "x_y.b.example.com",
        ] {
            for domain in ["example.com", ".example.com", "EXAMPLE.com"] {
                let cookie = cookie(Some(host), Some(domain));
                assert_eq!(cookie.domain.as_deref(), Some("example.com"), "{host}");
                assert_eq!(cookie.bound_name(), "_session@.example.com", "{host}");
            }
        }
    }

    #[test]
    fn any_other_cookie_goes_to_its_host_alone() {
        for domain in [
            "ample.com",
            "b.example.com",
            "x.a.example.com",
            "com",
            "",
            ".",
            "..com",
            "example.com.",
            "example.com; Path=/x",
            "exam ple.com",
            "é.com",
        ] {
            let cookie = cookie(Some("A.example.com:1"), Some(domain));
            assert_eq!(cookie.domain, None, "{domain}");
            assert_eq!(cookie.bound_name(), "_session@a.example.com", "{domain}");
        }
        assert_eq!(
            cookie(Some("localhost"), Some("localhost"))
                .domain
                .as_deref(),
            Some("localhost")
        );
        for (host, tenant) in [
            ("example.com", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0::1]", "[::1]"),
        ] {
            let cookie = cookie(Some(host), None);
            assert_eq!(cookie.domain, None);
            assert_eq!(cookie.bound_name(), format!("_session@{tenant}"));
        }
        // An address has no domain.
        assert_eq!(cookie(Some("10.0.0.1"), Some("0.0.1")).domain, None);
    }

    #[test]
    fn a_host_that_is_none_is_a_tenant_of_its_own() {
        let all: Vec<_> = [
            "",
            ":80",
            ".",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "[::1",
            "[::1]x",
            "[x]",
            "a:b:1",
            "a:123456",
            ".example.com",
            "é",
            "a\u{0}b",
        ]
        .map(|host| cookie(Some(host), Some("example.com")))
        .into_iter()
        .chain([cookie(None, Some("example.com")), cookie(Some("a"), None)])
        .map(|cookie| {
            assert_eq!(cookie.domain, None);
            cookie.bound_name().to_owned()
        })
        .collect();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "{all:?}");
        assert!(!all.contains(&"_session".to_owned()));
    }
}
