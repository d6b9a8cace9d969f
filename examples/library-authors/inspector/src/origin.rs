//! The site that sent a form.

/// Returns `true` if a page of this application sent the form.
///
/// Browsers send `Origin` with every form, and most of them `Sec-Fetch-Site`. A request without both is
/// refused: a page for developers needs no other clients.
#[cfg_attr(not(any(feature = "actix", feature = "axum")), allow(dead_code))]
pub(super) fn is_own(site: Option<&[u8]>, origin: Option<&[u8]>, host: Option<&[u8]>) -> bool {
    if let Some(site) = site {
        return site == b"same-origin";
    }
    let (Some(origin), Some(host)) = (origin, host) else {
        return false;
    };
    let scheme = [&b"https://"[..], b"http://"];
    let mut rest = scheme
        .iter()
        .filter_map(|scheme| origin.strip_prefix(*scheme));
    rest.next()
        .is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_this_application_may_send_a_form() {
        let own = "http://localhost:7000";
        for (site, origin, expected) in [
            (None, Some(own), true),
            (None, Some("https://LOCALHOST:7000"), true),
            (Some("same-origin"), Some("null"), true),
            (None, None, false),
            (None, Some("null"), false),
            (None, Some("http://localhost"), false),
            (None, Some("http://evil.example"), false),
            (Some("same-site"), Some(own), false),
            (Some("cross-site"), Some(own), false),
            (Some("none"), Some(own), false),
        ] {
            let host = Some(&b"localhost:7000"[..]);
            let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
            let own = is_own(bytes(site), bytes(origin), host);
            assert_eq!(own, expected, "{site:?} {origin:?}");
        }
    }
}
