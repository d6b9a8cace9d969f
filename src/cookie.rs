//! The session cookie: its attributes, how to find it in a request, and its size.

pub(crate) mod by_host;

use std::{fmt::Write as _, time::Duration};

use cookie::{Cookie, SameSite};

use crate::{error::ConfigError, expiry::Timestamp, observer::Refusal};

/// The maximum length of a cookie. RFC 6265bis, section 5.6, counts the name and the value;
/// attributes count here too, as in some browsers.
pub(crate) const LIMIT: usize = 4096;

/// The attributes of a session cookie, set by the builder.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    /// `None`: [`SessionCookie::is_secure`] decides for each request.
    pub(crate) secure: Option<bool>,
    pub(crate) http_only: bool,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
    pub(crate) persistent: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            name: "_session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            secure: None,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            persistent: false,
        }
    }
}

/// The session cookie. Setting and removing it use the same attributes, so that a removal always
/// matches.
#[derive(Clone, Debug)]
pub(crate) struct SessionCookie {
    name: String,
    path: String,
    domain: Option<String>,
    secure: Option<bool>,
    persistent: bool,
    name_hash: NameHash,
    /// The name and the tenant, if the cookie is one tenant's.
    bound: Option<Box<str>>,
    /// The attributes after `name=value`.
    suffix: BySecurity,
    removal: BySecurity,
}

/// The SHA-256 of a cookie's name, which binds the ids of a server-side backend to that name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameHash(pub(crate) [u8; 32]);

impl NameHash {
    #[cfg(feature = "server-side")]
    fn of(name: &str) -> Self {
        use sha2::Digest;

        Self(sha2::Sha256::digest(name).into())
    }

    /// Unused: without `server-side` no backend has ids.
    #[cfg(not(feature = "server-side"))]
    fn of(_: &str) -> Self {
        Self([0; 32])
    }

    pub(crate) fn xor(self, other: Self) -> Self {
        let mut both = self.0;
        for (byte, other) in both.iter_mut().zip(other.0) {
            *byte ^= other;
        }
        Self(both)
    }
}

#[derive(Clone, Debug)]
struct BySecurity {
    secure: String,
    insecure: String,
}

impl BySecurity {
    fn get(&self, secure: bool) -> &str {
        if secure { &self.secure } else { &self.insecure }
    }
}

/// A cookie name prefix, and its rules from RFC 6265bis, section 4.1.3, and the layered cookies
/// draft.
struct Prefix {
    text: &'static str,
    http_only: bool,
    host: bool,
}

const PREFIXES: [Prefix; 4] = [
    Prefix {
        text: "__Host-Http-",
        http_only: true,
        host: true,
    },
    Prefix {
        text: "__Host-",
        http_only: false,
        host: true,
    },
    Prefix {
        text: "__Http-",
        http_only: true,
        host: false,
    },
    Prefix {
        text: "__Secure-",
        http_only: false,
        host: false,
    },
];

impl Prefix {
    /// Returns the prefix of a name. Browsers compare it case-insensitively.
    fn of(name: &str) -> Option<&'static Self> {
        PREFIXES.iter().find(|prefix| {
            name.get(..prefix.text.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.text))
        })
    }
}

impl SessionCookie {
    pub(crate) fn new(attributes: Attributes) -> Result<Self, ConfigError> {
        let secure = check(&attributes)?;
        let both = |removal: bool| BySecurity {
            secure: suffix(&attributes, true, removal),
            insecure: suffix(&attributes, false, removal),
        };
        Ok(Self {
            suffix: both(false),
            removal: both(true),
            name_hash: NameHash::of(&attributes.name),
            bound: None,
            name: attributes.name,
            path: attributes.path,
            domain: attributes.domain,
            secure,
            persistent: attributes.persistent,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the attributes of a `Secure` cookie.
    pub(crate) fn attributes(&self) -> &str {
        self.suffix.secure.trim_start_matches("; ")
    }

    /// Returns the cookie of one tenant, which is nothing to another one.
    #[must_use]
    fn bound_to(mut self, tenant: &str) -> Self {
        // No name contains `@`.
        let bound = format!("{}@{tenant}", self.name);
        self.name_hash = NameHash::of(&bound);
        self.bound = Some(bound.into());
        self
    }

    /// Returns what a value of this cookie is bound to: its name, and its tenant if it has one.
    #[cfg(any(test, feature = "cookies", feature = "server-side"))]
    pub(crate) fn bound_name(&self) -> &str {
        self.bound.as_deref().unwrap_or(&self.name)
    }

    pub(crate) fn name_hash(&self) -> NameHash {
        self.name_hash
    }

    /// Returns `true` if a browser that receives both cookies keeps only the later one.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        (&self.name, &self.path, &self.domain) == (&other.name, &other.path, &other.domain)
    }

    /// Returns `true` if the cookie has a `Max-Age`, unless the session says otherwise.
    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Returns `true` if the cookie of a request is `Secure`.
    ///
    /// Without a setting, it is in a release build. A loopback host proves nothing there: a proxy
    /// can send its upstream as `Host` without a proxy header, as nginx 1.30 does by default.
    /// In a debug build it is not for a loopback host over plain http, so that local tests work
    /// with every client.
    pub(crate) fn is_secure(
        &self,
        is_debug_build: bool,
        is_https: bool,
        is_to_loopback: impl FnOnce() -> bool,
    ) -> bool {
        let by_default = || !is_debug_build || is_https || !is_to_loopback();
        self.secure.unwrap_or_else(by_default)
    }

    /// Returns `true` if no setting determines whether the cookie is `Secure`.
    pub(crate) fn is_secure_by_default(&self) -> bool {
        self.secure.is_none()
    }

    /// Returns the `Set-Cookie` value that sets the cookie to `value`; with `expires`, until then.
    pub(crate) fn set(
        &self,
        value: &str,
        secure: bool,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> String {
        let suffix = self.suffix.get(secure);
        let mut header =
            String::with_capacity(self.name.len() + 1 + value.len() + suffix.len() + MAX_AGE_LEN);
        header.push_str(&self.name);
        header.push('=');
        header.push_str(value);
        header.push_str(suffix);
        if let Some(expires) = expires {
            let seconds = expires.since(now).min(MAX_AGE).as_secs();
            // Writing to a `String` cannot fail.
            let _ = write!(header, "; Max-Age={seconds}");
        }
        header
    }

    /// Returns the `Set-Cookie` value that removes the cookie.
    pub(crate) fn remove(&self, secure: bool) -> String {
        format!("{}={}", self.name, self.removal.get(secure))
    }

    /// Returns the maximum length of the `Set-Cookie` value for a cookie value of `value` bytes.
    #[cfg(feature = "cookies")]
    pub(crate) fn size(&self, value: usize, is_persistent: bool) -> usize {
        let max_age = if is_persistent { MAX_AGE_LEN } else { 0 };
        self.name.len() + 1 + value + self.suffix.secure.len() + max_age
    }

    /// Finds this cookie in the `Cookie` headers of a request. Other cookies may contain any bytes.
    pub(crate) fn find<'h>(&self, headers: impl Iterator<Item = &'h [u8]>) -> Found<'h> {
        let mut values = headers.flat_map(pairs).filter_map(|pair| {
            pair.strip_prefix(self.name.as_bytes())?
                .strip_prefix(b"=")
                .map(<[u8]>::trim_ascii_end)
        });
        let Some(value) = values.next() else {
            return Found::Nothing;
        };
        if values.any(|other| other != value) {
            return Found::Refused(
                Refusal::Ambiguous,
                "the request has several cookies of this name with different values; if the cookie's \
                 path or domain was changed, give it a new name",
            );
        }
        match std::str::from_utf8(value) {
            Ok("") => Found::Refused(Refusal::Malformed, "it is empty"),
            Ok(value) if value.len() > LIMIT => {
                Found::Refused(Refusal::TooLarge, "it is longer than a cookie may be")
            }
            Ok(value) => Found::One(value),
            Err(_) => Found::Refused(Refusal::Malformed, "it is not valid UTF-8"),
        }
    }
}

/// Splits a `Cookie` header at its semicolons. `memchr` is eight times as fast as a loop over the
/// bytes (bench `overhead`, row "no cookie").
fn pairs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(header);
    std::iter::from_fn(move || {
        let header = rest?;
        let (pair, behind) = match memchr::memchr(b';', header) {
            Some(at) => (&header[..at], Some(&header[at + 1..])),
            None => (header, None),
        };
        rest = behind;
        Some(pair.trim_ascii_start())
    })
}

/// The session cookies in a request: the manager's own, and those of the managers it migrates from.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    /// Empty if the cookie was refused.
    pub(crate) own: Option<Box<str>>,
    pub(crate) old: Option<Box<Tokens>>,
}

impl Tokens {
    /// Returns the cookie's value, unless it is missing or refused.
    pub(crate) fn own(&self) -> Option<&str> {
        self.own.as_deref().filter(|own| !own.is_empty())
    }

    pub(crate) fn old(&self) -> Option<&Self> {
        self.old.as_deref()
    }

    /// Iterates over the cookies from the newest manager to the oldest.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |tokens| tokens.old())
    }

    /// Returns `true` if the request has none of the cookies, not even a refused one.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_age().all(|tokens| tokens.own.is_none())
    }

    /// Returns `true` if any of the cookies may name a session.
    pub(crate) fn name_a_session(&self) -> bool {
        self.by_age().any(|tokens| tokens.own().is_some())
    }
}

/// The result of looking for the session cookie in a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'h> {
    Nothing,
    One(&'h str),
    /// Present but unusable, with the reason for observers and for the log line.
    Refused(Refusal, &'static str),
}

/// Browsers cap `Max-Age` at 400 days (RFC 6265bis, section 5.5).
const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

const MAX_AGE_LEN: usize = "; Max-Age=34560000".len();

/// Rejects attributes that a browser would silently drop. Returns the setting of `Secure`, if any.
fn check(attributes: &Attributes) -> Result<Option<bool>, ConfigError> {
    let Attributes {
        name,
        path,
        domain,
        http_only,
        same_site,
        partitioned,
        ..
    } = attributes;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(is_token) {
        return Err(ConfigError::Name { name: name.clone() });
    }
    let is_value = |value: &str| {
        (1..=1024).contains(&value.len())
            && value
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b) && b != b';')
    };
    if !is_value(path) || !path.starts_with('/') {
        return Err(ConfigError::Attribute {
            attribute: "Path",
            value: path.clone(),
        });
    }
    if let Some(domain) = domain
        && (!is_value(domain) || domain.contains([' ', '/', ',']))
    {
        return Err(ConfigError::Attribute {
            attribute: "Domain",
            value: domain.clone(),
        });
    }

    let mut secure = attributes.secure;
    if let Some(prefix) = Prefix::of(name) {
        let refuse = |rule| {
            Err(ConfigError::Prefix {
                prefix: prefix.text,
                rule,
            })
        };
        if secure == Some(false) {
            return refuse("it is `Secure`");
        }
        if prefix.http_only && !http_only {
            return refuse("it is `HttpOnly`");
        }
        if prefix.host && domain.is_some() {
            return refuse("it has no `Domain`");
        }
        if prefix.host && path != "/" {
            return refuse("its `Path` is `/`");
        }
        secure = Some(true);
    }
    for (asks, attribute) in [
        (*same_site == SameSite::None, "SameSite=None"),
        (*partitioned, "Partitioned"),
    ] {
        if asks && secure == Some(false) {
            return Err(ConfigError::Insecure { attribute });
        }
        if asks {
            secure = Some(true);
        }
    }
    Ok(secure)
}

fn suffix(attributes: &Attributes, secure: bool, removal: bool) -> String {
    // `Secure` is set explicitly: if unset, the `cookie` crate adds it for `SameSite=None` and
    // `Partitioned`.
    let mut cookie = Cookie::build((attributes.name.as_str(), ""))
        .path(attributes.path.as_str())
        .http_only(attributes.http_only)
        .same_site(attributes.same_site)
        .secure(secure)
        .partitioned(attributes.partitioned)
        .build();
    if let Some(domain) = &attributes.domain {
        cookie.set_domain(domain.as_str());
    }
    if removal {
        cookie.make_removal();
    }
    let text = cookie.to_string();
    text[attributes.name.len() + 1..].to_owned()
}

/// The parts of a request that a manager reads before the handler runs.
pub(crate) trait RequestHead {
    /// Finds the session cookie in the `Cookie` headers.
    fn find<'r>(&'r self, cookie: &SessionCookie) -> Found<'r>;

    /// Returns the values of a header.
    fn values<'r>(&'r self, name: &str) -> Box<dyn Iterator<Item = &'r [u8]> + 'r>;

    /// Returns the host that the request names, with its port.
    fn host(&self) -> Option<&[u8]>;

    /// Returns `true` if the request names a loopback host and shows no sign of a proxy or https.
    fn is_to_loopback(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(change: impl FnOnce(&mut Attributes)) -> Result<SessionCookie, ConfigError> {
        let mut attributes = Attributes::default();
        change(&mut attributes);
        SessionCookie::new(attributes)
    }

    fn find(headers: &[&[u8]]) -> Option<String> {
        match cookie(|_| ()).unwrap().find(headers.iter().copied()) {
            Found::One(value) => Some(value.to_owned()),
            Found::Nothing | Found::Refused(..) => None,
        }
    }

    #[test]
    fn set_and_removal_have_the_same_attributes() {
        let cookie = cookie(|a| {
            a.domain = Some("example.com".into());
            a.path = "/admin".into();
        })
        .unwrap();
        let now = Timestamp::from_millis(0);
        let set = cookie.set("v", true, now, None);
        let removal = cookie.remove(true);
        assert!(
            set.starts_with(
                "_session=v; HttpOnly; SameSite=Lax; Secure; Path=/admin; Domain=example.com"
            ),
            "{set}"
        );
        let attributes = set.strip_prefix("_session=v").unwrap();
        assert!(removal.starts_with("_session=;"), "{removal}");
        for attribute in attributes.split("; ") {
            assert!(
                removal.contains(attribute),
                "{attribute:?} is not in {removal}"
            );
        }
        assert!(
            removal.contains("Max-Age=0") && removal.contains("Expires="),
            "{removal}"
        );
    }

    #[test]
    fn what_a_browser_would_drop_is_refused() {
        let refused = |change: fn(&mut Attributes)| cookie(change).unwrap_err();
        let host = |a: &mut Attributes| a.name = "__Host-s".into();
        assert!(matches!(
            refused(|a| a.name = "a b".into()),
            ConfigError::Name { .. }
        ));
        assert!(matches!(
            refused(|a| a.name = String::new()),
            ConfigError::Name { .. }
        ));
        assert!(matches!(
            refused(|a| a.name = "a=b".into()),
            ConfigError::Name { .. }
        ));
        assert!(matches!(
            refused(|a| a.name = "é".into()),
            ConfigError::Name { .. }
        ));
        for bad in ["", "x", "/;", "/\u{7}", "/é"] {
            let error = cookie(|a| a.path = bad.into()).unwrap_err();
            assert!(
                matches!(
                    error,
                    ConfigError::Attribute {
                        attribute: "Path",
                        ..
                    }
                ),
                "{bad}"
            );
        }
        for bad in ["", "a b", "a;b", "a/b"] {
            let error = cookie(|a| a.domain = Some(bad.into())).unwrap_err();
            assert!(
                matches!(
                    error,
                    ConfigError::Attribute {
                        attribute: "Domain",
                        ..
                    }
                ),
                "{bad}"
            );
        }
        assert!(cookie(host).is_ok());
        for break_it in [
            (|a| a.secure = Some(false)) as fn(&mut Attributes),
            |a| a.domain = Some("example.com".into()),
            |a| a.path = "/x".into(),
        ] {
            let error = cookie(|a| {
                host(a);
                break_it(a);
            });
            assert!(matches!(
                error.unwrap_err(),
                ConfigError::Prefix {
                    prefix: "__Host-",
                    ..
                }
            ));
        }
        let error = cookie(|a| {
            a.name = "__HTTP-s".into();
            a.http_only = false;
        });
        assert!(matches!(
            error.unwrap_err(),
            ConfigError::Prefix {
                prefix: "__Http-",
                ..
            }
        ));
        let insecure = |change: fn(&mut Attributes)| {
            cookie(|a| {
                a.secure = Some(false);
                change(a);
            })
            .unwrap_err()
        };
        assert!(matches!(
            insecure(|a| a.name = "__secure-s".into()),
            ConfigError::Prefix { .. }
        ));
        assert!(matches!(
            insecure(|a| a.same_site = SameSite::None),
            ConfigError::Insecure { .. }
        ));
        assert!(matches!(
            insecure(|a| a.partitioned = true),
            ConfigError::Insecure { .. }
        ));
    }

    #[test]
    fn only_a_debug_build_leaves_secure_out_and_only_on_loopback_over_http() {
        let cookie = cookie(|_| ()).unwrap();
        for (is_debug_build, is_https, is_to_loopback, is_secure) in [
            (true, false, true, false),
            (true, false, false, true),
            (true, true, true, true),
            (true, true, false, true),
        ] {
            let asked = cookie.is_secure(is_debug_build, is_https, || is_to_loopback);
            assert_eq!(asked, is_secure, "{is_https} {is_to_loopback}");
        }
        for is_https in [true, false] {
            assert!(cookie.is_secure(false, is_https, || panic!("the host is not looked at")));
        }
    }

    #[test]
    fn a_setting_decides_in_every_build() {
        for settled in [true, false] {
            let cookie = cookie(|a| a.secure = Some(settled)).unwrap();
            for is_debug_build in [true, false] {
                let asked = cookie.is_secure(is_debug_build, false, || panic!("not asked"));
                assert_eq!(asked, settled);
            }
        }
    }

    #[test]
    fn what_browsers_take_only_with_secure_is_secure_towards_loopback_too() {
        for change in [
            (|a| a.name = "__Host-s".into()) as fn(&mut Attributes),
            |a| a.same_site = SameSite::None,
            |a| a.partitioned = true,
        ] {
            assert!(cookie(change).unwrap().is_secure(true, false, || true));
        }
    }

    #[test]
    fn only_its_own_cookie_is_read() {
        assert_eq!(find(&[b"a=1; _session=x; b=2"]).as_deref(), Some("x"));
        assert_eq!(find(&[b"_session=x"]).as_deref(), Some("x"));
        assert_eq!(find(&[b"a=1", b" _session=x ;"]).as_deref(), Some("x"));
        assert_eq!(
            find(&[b"a=\xff\xfe;_session=x;b=\x80"]).as_deref(),
            Some("x")
        );
        assert_eq!(
            find(&[b"x_session=x; _session2=y; _session; _SESSION=z"]),
            None
        );
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn a_cookie_that_is_there_twice_or_no_text_or_too_long_is_refused() {
        assert_eq!(find(&[b"_session=x; _session=x"]).as_deref(), Some("x"));
        assert_eq!(find(&[b"_session=x; _session=y"]), None);
        assert_eq!(find(&[b"_session=x", b"_session=y"]), None);
        assert_eq!(find(&[b"_session="]), None);
        assert_eq!(find(&[b"_session=\xff"]), None);
        assert_eq!(
            find(&[&[b"_session=".as_slice(), &[b'a'; 100_000]].concat()]),
            None
        );
    }

    #[cfg(feature = "cookies")]
    #[test]
    fn the_size_said_is_the_size_sent_for_the_longest_lifetime() {
        let cookie = cookie(|_| ()).unwrap();
        let now = Timestamp::from_millis(0);
        for persistent in [false, true] {
            let expires = persistent.then(|| now.plus(Duration::MAX));
            let sent = cookie.set("value", true, now, expires);
            assert_eq!(sent.len(), cookie.size("value".len(), persistent), "{sent}");
        }
    }
}
