//! The routes for actix-web.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{HOST, LOCATION, ORIGIN},
    web::{self, Bytes, Data, ServiceConfig},
};
use session_manager::{Error, Session};

use super::{HEADERS, Inspector, handle_in, origin};

/// Mounts the page, inside the session middleware: `.configure(inspector::actix::routes(&inspector))`.
pub fn routes(inspector: &Inspector) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let inspector = inspector.clone();
    move |app| {
        let scope = web::scope(inspector.path()).app_data(Data::new(inspector.clone()));
        app.service(
            scope
                .route("", web::get().to(show))
                .route("/end", web::post().to(end)),
        );
    }
}

async fn show(session: Session, inspector: Data<Inspector>) -> Result<HttpResponse, Error> {
    let html = inspector.page(&session).await?;
    let mut response = HttpResponse::Ok();
    for header in HEADERS {
        response.insert_header(header);
    }
    Ok(response.body(html))
}

async fn end(
    req: HttpRequest,
    session: Session,
    inspector: Data<Inspector>,
    form: Bytes,
) -> Result<HttpResponse, Error> {
    let headers = req.headers();
    let header = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let host = header(HOST.as_str())
        .or_else(|| req.uri().authority().map(|host| host.as_str().as_bytes()));
    if !origin::is_own(header("sec-fetch-site"), header(ORIGIN.as_str()), host) {
        return Ok(HttpResponse::Forbidden().body("this form came from another site"));
    }
    inspector.end(&session, &handle_in(&form)).await?;
    let location = (LOCATION, inspector.path());
    Ok(HttpResponse::SeeOther().insert_header(location).finish())
}
