//! The middleware for actix-web.

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::HOST,
    middleware::Next,
    web::Bytes,
};
use session_manager::manager;

use super::{
    Csrf, Head, Refused, is_safe,
    sent::{form_token, header_token, is_form},
};

/// A middleware that answers 403 to what [`Csrf::check`] refuses: `.wrap(from_fn(csrf::actix::protect))`,
/// inside the session middleware. It uses the [`Csrf`] in the application's data (`app_data`), if
/// there is one.
pub async fn protect(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if is_safe(req.request()) {
        return Ok(next.call(req).await?.map_into_boxed_body());
    }
    // Loads a session that is loaded on demand.
    manager::get().open(&req).await?;
    let mut token = header_token(req.request());
    if token.is_none() && is_form(req.request()) {
        // At most as long as the application's `PayloadConfig` says.
        let body = req.extract::<Bytes>().await?;
        token = form_token(&body);
        req.set_payload(Payload::from(body));
    }
    let csrf = req.app_data::<Csrf>().cloned().unwrap_or_default();
    match csrf.check(req.request(), token.as_deref()) {
        Ok(()) => Ok(next.call(req).await?.map_into_boxed_body()),
        Err(Refused::Session(error)) => Err(error.into()),
        Err(refused) => {
            let response = HttpResponse::Forbidden().body(refused.to_string());
            Ok(req.into_response(response))
        }
    }
}

impl Head for HttpRequest {
    fn method(&self) -> &str {
        self.method().as_str()
    }

    fn host(&self) -> Option<&[u8]> {
        let header = self.headers().get(HOST).map(|host| host.as_bytes());
        header.or_else(|| self.uri().authority().map(|host| host.as_str().as_bytes()))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().get(name).map(|value| value.as_bytes())
    }
}
