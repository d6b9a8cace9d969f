//! The pages, which are the application's part alone.

use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind, Value, context, value::Serde};
use session_manager::{Error, Session, manager};

use super::{
    Reply,
    admin::{self, Overview, Record},
    auth, csrf,
};

pub fn login(session: &Session) -> Result<Reply, Error> {
    page(session, auth::LOGIN, "login.html", context! {})
}

pub fn records(session: &Session, overview: &Overview<'_>) -> Result<Reply, Error> {
    let records: Vec<_> = overview
        .records
        .iter()
        .map(|Record { id, title, author }| context! { id, title, author })
        .collect();
    page(
        session,
        admin::PATH,
        "records.html",
        context! { records, created => overview.created },
    )
}

/// Renders the template of the page at `path` with the data of every page: the user, the flash messages,
/// the session's size.
pub fn page(session: &Session, path: &str, template: &str, own: Value) -> Result<Reply, Error> {
    let context = context! {
        flashes => flashes(session.clone()),
        size => size(session.clone()),
        csrf_token => csrf_token(session.clone()),
        user => auth::user(session)?,
        backend => session.manager().backend_name(),
        in_cookie => is_in_cookie(session),
        cookie => session.manager().settings().cookie_name(),
        insecure => session.manager().is_insecure_default(),
        debug => manager::is_debug_build(),
        path,
        ..own
    };
    let html = TEMPLATES
        .get_template(template)
        .and_then(|template| template.render(context));
    Ok(match html {
        Ok(html) => Reply::html(html),
        Err(error) => Reply::broken(&error),
    })
}

/// Returns `true` if the cookie holds the session, not an id of it.
pub fn is_in_cookie(session: &Session) -> bool {
    session.manager().backend_name().ends_with("cookie")
}

pub fn style() -> Reply {
    Reply::file("text/css; charset=utf-8", include_str!("style.css"))
}

pub fn script() -> Reply {
    Reply::file("text/javascript; charset=utf-8", include_str!("races.js"))
}

/// Returns a template function that takes the flash messages. Rendering cannot `await`, which is
/// why the methods of `Session` that it needs are synchronous.
fn flashes(session: Session) -> Value {
    Value::from_function(move || Value::from(Serde(session.flashes())))
}

/// Returns a template function for the size, which changes once the flash messages are taken.
fn size(session: Session) -> Value {
    Value::from_function(move || Value::from(Serde(session.size())))
}

/// Returns a template function for the hidden field of forms.
fn csrf_token(session: Session) -> Value {
    Value::from_function(move || {
        csrf::token(&session).map_err(|error| {
            let failed = minijinja::Error::new(ErrorKind::InvalidOperation, "no token for forms");
            failed.with_source(error)
        })
    })
}

/// The templates. Their names end in `.html`, so minijinja escapes all values.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    for (name, source) in [
        ("account.html", include_str!("templates/account.html")),
        ("layout.html", include_str!("templates/layout.html")),
        ("login.html", include_str!("templates/login.html")),
        ("devices.html", include_str!("templates/devices.html")),
        ("races.html", include_str!("templates/races.html")),
        ("records.html", include_str!("templates/records.html")),
        ("session.html", include_str!("templates/session.html")),
    ] {
        templates
            .add_template(name, source)
            .expect("the templates are part of the program");
    }
    templates
});
