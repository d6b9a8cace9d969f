//! The pages, which are the application's part alone.

use std::sync::LazyLock;

use actix_web::{
    Error, HttpRequest, HttpResponse,
    error::ErrorInternalServerError,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType},
};
use minijinja::{Environment, ErrorKind, Value, context, value::Serde};
use session_manager::{HasSession, Session, manager};

use crate::{
    admin::{Overview, Record},
    auth, csrf,
};

pub fn login(req: &HttpRequest) -> Result<HttpResponse, Error> {
    page(req, "login.html", context! {})
}

pub fn records(req: &HttpRequest, overview: &Overview<'_>) -> Result<HttpResponse, Error> {
    let records: Vec<_> = overview
        .records
        .iter()
        .map(|Record { id, title, author }| context! { id, title, author })
        .collect();
    page(
        req,
        "records.html",
        context! { records, created => overview.created },
    )
}

/// Renders a template with the data of every page: the user, the flash messages, the session's
/// size.
pub fn page(req: &HttpRequest, template: &str, context: Value) -> Result<HttpResponse, Error> {
    let session = req.session()?;
    let context = context! {
        flashes => flashes(session.clone()),
        size => size(session.clone()),
        csrf_token => csrf_token(session.clone()),
        user => auth::user(req)?,
        backend => session.manager().backend_name(),
        cookie => session.manager().settings().cookie_name(),
        insecure => session.manager().is_insecure_default(),
        debug => manager::is_debug_build(),
        path => req.path(),
        ..context
    };
    let html = TEMPLATES
        .get_template(template)
        .and_then(|template| template.render(context))
        .map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::html())
        // After a logout, the back button must not show the page or its messages again.
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ))
        .body(html))
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
        ("records.html", include_str!("templates/records.html")),
        ("session.html", include_str!("templates/session.html")),
    ] {
        templates
            .add_template(name, source)
            .expect("the templates are part of the program");
    }
    templates
});
