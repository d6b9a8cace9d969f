//! The token that a request carries.

use super::{FIELD, HEADER, Head};

/// Returns `true` if the body is a form whose fields can be read. For other bodies, multipart forms
/// among them, the token must be in the header.
pub(super) fn is_form(req: &(impl Head + ?Sized)) -> bool {
    let kind = req.header("content-type").unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    let form = b"application/x-www-form-urlencoded";
    kind.trim_ascii().eq_ignore_ascii_case(form)
}

/// Returns the token in the header.
pub(super) fn header_token(req: &(impl Head + ?Sized)) -> Option<String> {
    let token = str::from_utf8(req.header(HEADER)?).ok()?;
    Some(token.to_owned())
}

/// Returns the token in the fields of a form.
pub(super) fn form_token(body: &[u8]) -> Option<String> {
    let mut fields = form_urlencoded::parse(body);
    let (_, token) = fields.find(|(name, _)| name == FIELD)?;
    Some(token.into_owned())
}
