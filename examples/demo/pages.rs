//! What the pages look like. This is the application's business, and nobody else's.

use std::sync::LazyLock;

use actix_web::{
    Error, HttpRequest, HttpResponse,
    error::ErrorInternalServerError,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType},
};
use minijinja::{Environment, Value, context, value::Serde};
use session_manager::{HasSession, Session};

use crate::{
    admin::{Overview, Record},
    auth,
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

/// Renders a template with what every page shows: the visitor, the messages, the session's size.
pub fn page(req: &HttpRequest, template: &str, context: Value) -> Result<HttpResponse, Error> {
    let session = req.session()?;
    let context = context! {
        flashes => flashes(session.clone()),
        size => size(session.clone()),
        user => auth::user(req)?,
        engine => session.manager().engine(),
        cookie => session.manager().settings().cookie_name(),
        insecure => session.manager().is_insecure_default(),
        path => req.path(),
        ..context
    };
    let html = TEMPLATES
        .get_template(template)
        .and_then(|template| template.render(context))
        .map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::html())
        // A page is one visitor's, and its messages are shown once: after logging out, the back
        // button must not bring it back.
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ))
        .body(html))
}

/// A function for templates that takes the messages. It runs in the middle of rendering, where
/// nothing can wait: this is why a session never makes anybody wait.
fn flashes(session: Session) -> Value {
    Value::from_function(move || Value::from(Serde(session.flashes())))
}

/// A function for templates, too, because the size is another once the messages are taken.
fn size(session: Session) -> Value {
    Value::from_function(move || Value::from(Serde(session.size())))
}

/// Their names end in `.html`, so minijinja escapes all that they show.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    for (name, source) in [
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
