//! Splits a session url into the backend, the settings, and the url for the store's client.

use super::{PARAMETERS, SetupError, backend::Kind};

/// A url, split.
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) scheme: &'static str,
    /// The url without the settings.
    #[cfg_attr(
        not(any(
            feature = "redis",
            feature = "postgres",
            feature = "mysql",
            feature = "sqlite"
        )),
        allow(dead_code, reason = "only the clients of stores read it")
    )]
    pub(super) url: String,
    /// The settings by the name of their field, decoded.
    pub(super) settings: Vec<(&'static str, String)>,
}

/// The known schemes. Those of Redis are what the client and this crate's store accept.
const SCHEMES: [(&str, Kind); 23] = [
    ("signed", Kind::Signed),
    ("private", Kind::Private),
    ("memory", Kind::Memory),
    ("sqlite", Kind::Sqlite),
    ("postgres", Kind::Postgres),
    ("postgresql", Kind::Postgres),
    ("mysql", Kind::MySql),
    ("mariadb", Kind::MySql),
    ("redis", Kind::Redis),
    ("redis+cluster", Kind::Redis),
    ("redis+sentinel", Kind::Redis),
    ("redis+unix", Kind::Redis),
    ("unix", Kind::Redis),
    ("valkey", Kind::Redis),
    ("valkey+cluster", Kind::Redis),
    ("valkey+sentinel", Kind::Redis),
    ("valkey+unix", Kind::Redis),
    ("rediss", Kind::RedisTls),
    ("rediss+cluster", Kind::RedisTls),
    ("rediss+sentinel", Kind::RedisTls),
    ("valkeys", Kind::RedisTls),
    ("valkeys+cluster", Kind::RedisTls),
    ("valkeys+sentinel", Kind::RedisTls),
];

const POSTGRES: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

const MYSQL: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "charset",
    "collation",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "socket",
    "timezone",
    "time-zone",
];

/// Returns the query parameters that the store's client reads. An unknown one must not reach the
/// clients: one of them ignores it silently, and another one logs it with its value.
fn client_parameters(kind: Kind, scheme: &str) -> &'static [&'static str] {
    match kind {
        Kind::Signed | Kind::Private | Kind::Memory => &[],
        Kind::Sqlite => &["mode", "cache", "immutable", "vfs"],
        Kind::Postgres => POSTGRES,
        Kind::MySql => MYSQL,
        // With several hosts after one scheme, the store splits the url itself.
        _ if scheme.ends_with("+cluster") || scheme.ends_with("+sentinel") => &[],
        _ if scheme.ends_with("unix") => &["protocol", "db", "user", "pass"],
        Kind::Redis | Kind::RedisTls => &["protocol"],
    }
}

/// Returns the scheme of a url, if it is known.
pub(super) fn scheme(url: &str) -> Option<&'static str> {
    find(url).ok().map(|(scheme, ..)| scheme)
}

/// Finds the scheme of a url; returns also what follows its colon.
fn find(url: &str) -> Result<(&'static str, Kind, &str), SetupError> {
    let known = url.split_once(':').and_then(|(scheme, rest)| {
        let known = SCHEMES.iter().find(|(known, _)| *known == scheme)?;
        Some((known.0, known.1, rest))
    });
    known.ok_or_else(|| {
        let is_of_scheme = |char: char| char.is_ascii_alphanumeric() || "+.-".contains(char);
        let end = url.find(|char| !is_of_scheme(char)).unwrap_or(url.len());
        let scheme = url[..end].to_ascii_lowercase();
        SetupError::UnknownScheme {
            closest: closest(&scheme, SCHEMES.iter().map(|(known, _)| *known)),
        }
    })
}

fn malformed(why: &'static str) -> SetupError {
    SetupError::MalformedUrl { why }
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, SetupError> {
        if url.is_empty() {
            return Err(malformed(
                "it is empty; unset SESSION_URL for the default, which is a signed cookie",
            ));
        }
        if url.trim() != url || url.contains(char::is_control) {
            return Err(malformed(
                "it has white space around it or a control character in it",
            ));
        }
        let (scheme, kind, rest) = find(url)?;
        let mut target = Self {
            kind,
            scheme,
            url: String::with_capacity(url.len()),
            settings: Vec::new(),
        };
        let mut position = 0;
        if matches!(kind, Kind::Redis | Kind::RedisTls) && is_list(url) {
            for part in url.split(',') {
                let (scheme, part_kind, rest) = find(part)?;
                if part_kind != kind {
                    return Err(malformed("all urls of a list must have the same scheme"));
                }
                if !target.url.is_empty() {
                    target.url.push(',');
                }
                target.add(scheme, rest, &mut position)?;
            }
        } else {
            target.add(scheme, rest, &mut position)?;
        }
        Ok(target)
    }

    /// Appends a url, and takes the settings out of it.
    fn add(&mut self, scheme: &str, rest: &str, position: &mut usize) -> Result<(), SetupError> {
        check(self.kind, rest)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        self.url.push_str(scheme);
        self.url.push(':');
        self.url.push_str(place);
        let known = client_parameters(self.kind, scheme);
        let mut separator = '?';
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            *position += 1;
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).unwrap_or_default();
            let setting = PARAMETERS.iter().find(|(known, _)| *known == name);
            if let Some((_, field)) = setting {
                let value = decode(value).ok_or(malformed(
                    "a parameter has a `%` that is not followed by the two digits of a byte of UTF-8",
                ))?;
                self.settings.push((field, value));
                continue;
            }
            if matches!(&*name, "secret" | "accept") {
                return Err(malformed(
                    "secrets do not belong in a url, which is often logged; set SESSION_SECRET, or the \
                     field of `Config`",
                ));
            }
            let is_option = self.kind == Kind::Postgres && name.starts_with("options[");
            if !is_option && !known.contains(&&*name) {
                let settings = PARAMETERS.iter().map(|(known, _)| *known);
                return Err(SetupError::UnknownParameter {
                    position: *position,
                    closest: closest(&name, settings.chain(known.iter().copied())),
                });
            }
            if cfg!(not(feature = "sql-tls"))
                && matches!(&*name, "sslmode" | "ssl-mode")
                && requires_tls(value)
            {
                return Err(SetupError::MissingFeature {
                    scheme: self.scheme,
                    feature: "sql-tls",
                });
            }
            self.url.push(separator);
            self.url.push_str(pair);
            separator = '&';
        }
        if self.kind == Kind::Sqlite && is_nowhere(&self.url) {
            return Err(malformed(
                "it names no file: write `sqlite:sessions.db`, or `sqlite::memory:`",
            ));
        }
        Ok(())
    }
}

/// Returns `true` if the store of Redis reads the url as a list of urls.
fn is_list(url: &str) -> bool {
    url.contains(',') && url.split(',').all(|one| one.contains("://"))
}

/// Returns `true` if a url of SQLite names neither a file nor the memory. SQLite would open a
/// temporary database for each connection.
fn is_nowhere(url: &str) -> bool {
    let place = url.trim_start_matches("sqlite:").trim_start_matches("//");
    place.is_empty() || (place.starts_with('?') && !place.contains("mode=memory"))
}

fn requires_tls(mode: &str) -> bool {
    let mode = mode.to_ascii_lowercase();
    mode.starts_with("require") || mode.starts_with("verify")
}

/// Checks what follows the colon after the scheme.
fn check(kind: Kind, rest: &str) -> Result<(), SetupError> {
    let place = rest.split('?').next().unwrap_or_default();
    match kind {
        Kind::Sqlite => Ok(()),
        Kind::Signed | Kind::Private | Kind::Memory if matches!(place, "" | "//") => Ok(()),
        Kind::Signed | Kind::Private | Kind::Memory => Err(malformed(
            "only parameters may follow the scheme, as in `memory:?idle=20m`",
        )),
        _ => {
            let Some(rest) = rest.strip_prefix("//") else {
                return Err(malformed("`//` and a host must follow the scheme"));
            };
            let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            // Otherwise a part of the password would be taken for a host, a path or a parameter,
            // and might be shown.
            if rest[authority..].contains(['@', '#']) {
                return Err(malformed(
                    "it has an `@` or a `#` after the host; percent-encode `/`, `?`, `#` and `@` in the \
                     user name, the password and the parameters (`%2F`, `%3F`, `%23`, `%40`)",
                ));
            }
            Ok(())
        }
    }
}

/// Decodes percent-encoded UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push((digit(0)? * 16 + digit(1)?).try_into().ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Returns the known name that is most like `name`, if it differs in at most two characters.
fn closest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // The distance takes quadratic time.
    if name.is_empty() || name.len() > 40 {
        return None;
    }
    let distances = known.map(|known| (distance(name, known), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance <= known.len() / 2).then_some(known)
}

/// Returns the Levenshtein distance.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<_> = to.chars().collect();
    let mut row: Vec<_> = (0..=to.len()).collect();
    for (index, char) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(char != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
