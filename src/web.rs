//! Layers that let crates for other session libraries use the request's own session, and the types that
//! a [`Middleware`] makes of a service.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "actix-session")]
pub(crate) mod actix_session;
#[cfg(feature = "axum")]
mod axum;
#[cfg(any(feature = "actix-session", feature = "tower-sessions"))]
mod bridge;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tower-sessions")]
mod tower_sessions;

#[cfg(feature = "actix")]
#[cfg_attr(docsrs, doc(cfg(feature = "actix")))]
pub use actix::ActixCall;
#[cfg(all(feature = "actix-session", feature = "server-side"))]
#[cfg_attr(
    docsrs,
    doc(cfg(all(feature = "actix-session", feature = "server-side")))
)]
pub use actix_session::StoreForActixSession;
#[cfg(feature = "actix-session")]
#[cfg_attr(docsrs, doc(cfg(feature = "actix-session")))]
pub use actix_session::{ActixSessions, ActixSessionsFuture, ActixSessionsService};
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use tower::TowerCall;
#[cfg(feature = "tower-sessions-0-14")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-sessions-0-14")))]
pub use tower_sessions::TowerSessions014;
#[cfg(feature = "tower-sessions")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-sessions")))]
pub use tower_sessions::{
    StoreForTowerSessions, TowerSessions, TowerSessionsFuture, TowerSessionsService,
};

use std::{
    any::Any,
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::Once,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{
    carrier::Carrier,
    cookie::RequestHead,
    error::Error,
    future::BackendFuture,
    log::{log, print_if_unheard},
    manager::middleware::Middleware,
    profile::IS_DEBUG_BUILD,
    request::Sessions,
    session::{Session, commit::Headers},
};

/// A service with sessions: what [`Middleware`] makes of a service of actix-web or tower.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    middleware: Middleware,
    service: S,
}

/// A request on its way to the service inside.
trait Call {
    type Served: Future<Output: Answer>;

    fn call(self) -> Self::Served;
}

/// What the service inside answers.
trait Answer {
    /// Returns `true` if the request's changes are committed.
    fn succeeded(&self) -> bool;

    /// Returns the answer with its session's headers; an error in its place if the session
    /// could not be kept.
    fn with(self, headers: Result<Headers, Error>) -> Self;

    /// Returns the answer to a request whose session could not be opened.
    fn refused(error: Error) -> Self;
}

pin_project! {
    /// A request on its way through a [`SessionService`].
    ///
    /// Written out, because an `async` block would have to be boxed to have a name, for every
    /// request (bench `overhead`, row "no cookie": 2 allocations, where there were 3).
    pub struct SessionFuture<C, F, T> {
        #[pin]
        state: State<C, F, T>,
        visit: Visit,
    }
}

pin_project! {
    #[project = Step]
    enum State<C, F, T> {
        Opening {
            opening: BackendFuture<'static, Result<(), Error>>,
            call: Option<C>,
        },
        Serving {
            #[pin]
            served: F,
        },
        Committing {
            committing: BackendFuture<'static, Result<Headers, Error>>,
            answer: Option<T>,
        },
    }
}

/// The session that a middleware opened; none, if it is mounted twice.
///
/// The request may end without a response: a handler panicked, or the client went away. Once the
/// session is committed, nothing is left to abandon.
struct Visit(Option<Session>);

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.abandon();
        }
    }
}

impl<S> SessionService<S> {
    /// Creates the session of a request that begins, whose other sessions are `outer`; `None` if
    /// one of these is of the same manager.
    fn begin(&self, outer: Option<&Sessions>, is_https: bool) -> Option<Session> {
        let manager = self.middleware.manager();
        if outer.is_some_and(|outer| outer.has(&manager)) {
            return None;
        }
        manager.warn();
        let outer = outer.map(|outer| outer.known().clone());
        Some(Session::new(
            manager,
            self.middleware.is_global(),
            is_https,
            outer,
        ))
    }
}

impl Session {
    /// Begins to open the session, unless it is opened when the handler asks for it. Returns what is
    /// left to be awaited.
    fn begin(
        &self,
        head: &dyn RequestHead,
        request: &dyn Any,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        self.read(head);
        if self.opens_at_once() || self.waits_for_demand() {
            return None;
        }
        self.open(request)
    }
}

impl<C, F, T> SessionFuture<C, F, T> {
    /// Calls the service, after `opening` if that is not done yet.
    fn new(
        session: Option<Session>,
        opening: Option<BackendFuture<'static, Result<(), Error>>>,
        call: C,
    ) -> Self
    where
        C: Call<Served = F>,
    {
        let state = match opening {
            None => State::Serving {
                served: call.call(),
            },
            Some(opening) => State::Opening {
                opening,
                call: Some(call),
            },
        };
        Self {
            state,
            visit: Visit(session),
        }
    }
}

impl<C, F, T> Future for SessionFuture<C, F, T>
where
    C: Call<Served = F>,
    F: Future<Output = T>,
    T: Answer,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Step::Opening { opening, call } => match ready!(Pin::new(opening).poll(context)) {
                    Ok(()) => {
                        #[expect(clippy::expect_used, reason = "this state is left with it")]
                        let served = call.take().expect("a request is served once").call();
                        this.state.set(State::Serving { served });
                    }
                    Err(error) => return Poll::Ready(T::refused(error)),
                },
                Step::Serving { served } => {
                    let answer = ready!(served.poll(context));
                    let session = this.visit.0.as_ref();
                    let ending = session.and_then(|session| session.end(answer.succeeded()));
                    match ending.map(BackendFuture::now) {
                        None => {
                            this.visit.0 = None;
                            return Poll::Ready(answer);
                        }
                        Some(Ok(headers)) => {
                            this.visit.0 = None;
                            return Poll::Ready(answer.with(headers));
                        }
                        Some(Err(committing)) => this.state.set(State::Committing {
                            committing,
                            answer: Some(answer),
                        }),
                    }
                }
                Step::Committing { committing, answer } => {
                    let headers = ready!(Pin::new(committing).poll(context));
                    #[expect(clippy::expect_used, reason = "the contract of `Future`")]
                    let answer = answer.take().expect("polled after it was ready");
                    return Poll::Ready(answer.with(headers));
                }
            }
        }
    }
}

impl<C, F, T> fmt::Debug for SessionFuture<C, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}

/// Logs the error that a response stands for.
///
/// In a debug build without a subscriber or logger, the first forgotten middleware is written to
/// standard error: a 500 with an empty log explains nothing.
fn report(error: &Error) {
    log!(ERROR, "{}", crate::error::chain(error));
    if IS_DEBUG_BUILD && matches!(error, Error::NotMounted) {
        static PRINTED: Once = Once::new();
        PRINTED.call_once(|| print_if_unheard(&error.to_string()));
    }
}

/// Returns the body of the response for `error`, whose status has the phrase `reason`.
///
/// The body is only this phrase, except for a forgotten middleware in a debug build: then it is a page
/// for the developer. The text of that error is constant and holds no secret.
#[cfg(any(feature = "actix", feature = "axum"))]
fn body(error: &Error, reason: &'static str, is_debug_build: bool) -> Cow<'static, str> {
    match error {
        Error::NotMounted if is_debug_build => format!(
            "{reason}\n\nsession-manager: {error}.\n\nOnly a debug build shows this page. A release \
             build sends \"{reason}\".\n"
        )
        .into(),
        _ => reason.into(),
    }
}

/// The fields of a response that say something of its session.
#[derive(Clone, Copy)]
enum Field {
    CacheControl,
    SetCookie,
    Vary,
    /// The header of a [`Carrier`].
    Token(&'static str),
}

/// The fields of a response, as its framework keeps them.
trait Fields {
    fn all(&self, field: Field) -> impl Iterator<Item = &[u8]>;

    /// Adds a line; `false` if `value` cannot stand in a header.
    fn append(&mut self, field: Field, value: Cow<'static, str>) -> bool;
}

/// The headers of requests and responses, written once for the types of both frameworks: they have
/// the same names, and come from two versions of the crate `http`.
macro_rules! reads_and_writes_headers {
    () => {
        impl Fields for HeaderMap {
            fn all(&self, field: Field) -> impl Iterator<Item = &[u8]> {
                let values = self.get_all(name(field)).into_iter();
                values.map(HeaderValue::as_bytes)
            }

            fn append(&mut self, field: Field, value: Cow<'static, str>) -> bool {
                let value = match value {
                    Cow::Borrowed(value) => Ok(HeaderValue::from_static(value)),
                    Cow::Owned(value) => HeaderValue::try_from(value),
                };
                let appended = value.map(|value| HeaderMap::append(self, name(field), value));
                appended.is_ok()
            }
        }

        fn name(field: Field) -> HeaderName {
            match field {
                Field::CacheControl => header::CACHE_CONTROL,
                Field::SetCookie => header::SET_COOKIE,
                Field::Vary => header::VARY,
                // Cannot fail: `Carrier::check` refused any other name.
                Field::Token(name) => {
                    HeaderName::from_bytes(name.as_bytes()).expect("the name of a header")
                }
            }
        }

        /// A request as this crate reads it.
        struct Head<'r> {
            uri: &'r Uri,
            headers: &'r HeaderMap,
        }

        impl RequestHead for Head<'_> {
            fn find<'r>(&'r self, cookie: &SessionCookie) -> Found<'r> {
                let lines = self.headers.get_all(header::COOKIE).into_iter();
                cookie.find(lines.map(HeaderValue::as_bytes))
            }

            fn values<'r>(&'r self, name: &str) -> Box<dyn Iterator<Item = &'r [u8]> + 'r> {
                let values = self.headers.get_all(name).into_iter();
                Box::new(values.map(HeaderValue::as_bytes))
            }

            fn host(&self) -> Option<&[u8]> {
                // A host in the request line, as in HTTP/2, counts before the header (RFC 9112,
                // section 3.2).
                let host = || self.headers.get(header::HOST).map(HeaderValue::as_bytes);
                self.uri.host().map(str::as_bytes).or_else(host)
            }

            fn is_to_loopback(&self) -> bool {
                is_to_loopback(self.host(), |field| self.headers.contains_key(field))
            }
        }
    };
}
use reads_and_writes_headers;

impl Headers {
    fn write(self, fields: &mut impl Fields) {
        let by = self.carrier.request_header();
        if self.vary && !varies_by(by, fields.all(Field::Vary)) {
            fields.append(Field::Vary, by.into());
        }
        let Some(token) = self.token else {
            return;
        };
        let field = match self.carrier {
            Carrier::Cookie => Field::SetCookie,
            Carrier::Header(name) => Field::Token(name),
            Carrier::Bearer => Field::Token(Carrier::TOKEN),
        };
        for removed in self.removed {
            fields.append(Field::SetCookie, removed.into());
        }
        if !fields.append(field, token.into()) {
            log!(
                ERROR,
                "a session backend made a token that cannot stand in a header; it was not sent"
            );
            return;
        }
        let values = fields.all(Field::CacheControl);
        if let Some(directive) = cache_control_to_add(self.carrier, values) {
            fields.append(Field::CacheControl, directive.into());
        }
    }
}

/// Returns `true` if a request names a loopback host and bears no mark of a proxy. A proxy need not
/// leave one, so only a debug build and a log line go by this.
pub(crate) fn is_to_loopback(host: Option<&[u8]>, has_field: impl Fn(&str) -> bool) -> bool {
    host.is_some_and(is_loopback) && !PROXY_MARKS.into_iter().any(has_field)
}

/// Returns `true` if `host`, as a `Host` header or a URI has it, is always this machine:
/// `localhost` and names below it (RFC 6761), `127.0.0.0/8` or `::1`, with or without a port.
fn is_loopback(host: &[u8]) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};

    // Most hosts are none of these, and every request is asked.
    match host {
        [b'[', ..] => {
            let address = name_of(host).strip_prefix(b"[");
            let address = address.and_then(|it| it.strip_suffix(b"]"));
            let address = address.and_then(|it| str::from_utf8(it).ok());
            address.and_then(|it| it.parse().ok()) == Some(Ipv6Addr::LOCALHOST)
        }
        [b'1', ..] => {
            let address = str::from_utf8(name_of(host)).ok();
            let address: Option<Ipv4Addr> = address.and_then(|it| it.parse().ok());
            address.is_some_and(|it| it.is_loopback()) || is_localhost(name_of(host))
        }
        _ => is_localhost(name_of(host)),
    }
}

/// Returns a host without its port.
fn name_of(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if host[colon] == b':' => &host[..colon],
        _ => host,
    }
}

/// Returns `true` if `name` is `localhost` or a name below it, of characters that a host name has.
fn is_localhost(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let Some((rest, end)) = name.split_last_chunk() else {
        return false;
    };
    let localhost: &[u8; 9] = end;
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    localhost.eq_ignore_ascii_case(b"localhost")
        && rest.last().is_none_or(|byte| *byte == b'.')
        && rest.iter().all(is_allowed)
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

/// Returns the `Cache-Control` value to add so that no cache stores the token beside it (RFC 9111,
/// section 5.2.2.4), or `None` if `values` already prevent that, such as the value of another session.
fn cache_control_to_add<'v>(
    carrier: Carrier,
    mut values: impl Iterator<Item = &'v [u8]>,
) -> Option<&'static str> {
    let to_add = match carrier {
        Carrier::Cookie => "no-cache=\"Set-Cookie\"",
        Carrier::Header(_) | Carrier::Bearer => "no-store",
    };
    let is_enough = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|directive| {
            let directive = directive.trim_ascii();
            ["no-store", "no-cache", to_add]
                .iter()
                .any(|enough| directive.eq_ignore_ascii_case(enough.as_bytes()))
        })
    };
    (!values.any(is_enough)).then_some(to_add)
}

/// Returns `true` if `Vary` values name the request header `by` already, or everything.
fn varies_by<'v>(by: &str, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
    values.any(|value| {
        value.split(|byte| *byte == b',').any(|field| {
            let field = field.trim_ascii();
            field == b"*" || field.eq_ignore_ascii_case(by.as_bytes())
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
            assert!(is_loopback(host.as_bytes()), "{host}");
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
            "[::1]x",
            "[::1]:8x0",
            "[",
            "localhost:x:80",
            "x:localhost",
            ":1.localhost",
            "x:1.localhost:80",
            "[;1.localhost",
            "a\u{1}.localhost",
            "127.0.0.1:x:80",
            "10.0.0.1",
            "é.example",
            ":80",
        ] {
            assert!(!is_loopback(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn caches_are_told_once() {
        let add = |values: &[&str]| {
            cache_control_to_add(Carrier::Cookie, values.iter().map(|v| v.as_bytes()))
        };
        assert_eq!(add(&[]), Some("no-cache=\"Set-Cookie\""));
        assert_eq!(
            add(&["public, max-age=60"]),
            Some("no-cache=\"Set-Cookie\"")
        );
        assert_eq!(add(&["private", "max-age=0, No-Store"]), None);
        assert_eq!(add(&["no-cache"]), None);
        assert_eq!(add(&["max-age=0, no-cache=\"set-cookie\""]), None);
        assert_eq!(
            add(&["no-cache=\"X-Other\""]),
            Some("no-cache=\"Set-Cookie\"")
        );
        let varies = |values: &[&str]| varies_by("Cookie", values.iter().map(|v| v.as_bytes()));
        assert!(varies(&["Accept", "origin, COOKIE"]) && varies(&["*"]));
        assert!(!varies(&["Accept-Cookie"]) && !varies(&[]));
    }
    #[cfg(any(feature = "actix", feature = "axum"))]
    #[test]
    fn a_body_is_the_phrase_alone_but_for_a_forgotten_middleware_in_a_debug_build() {
        let phrase = "Internal Server Error";
        assert_eq!(body(&Error::NotMounted, phrase, false), phrase);
        assert_eq!(body(&Error::NotLoaded, phrase, true), phrase);
        let page = body(&Error::NotMounted, phrase, true);
        assert!(page.contains(&Error::NotMounted.to_string()), "{page}");
    }
}
