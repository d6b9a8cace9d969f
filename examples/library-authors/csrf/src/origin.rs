//! The site that sent a request.

use super::Head;

/// Returns `true` unless another site sent the request.
///
/// Browsers send `Sec-Fetch-Site` to sites with https and to `localhost`, and `Origin` everywhere. A
/// client without both is not a browser that another site could use; its token decides.
pub(super) fn is_accepted(req: &(impl Head + ?Sized), trusted: &[String]) -> bool {
    let origin = req.header("origin");
    let is_trusted = origin.is_some_and(|origin| {
        let mut trusted = trusted.iter();
        trusted.any(|trusted| trusted.as_bytes().eq_ignore_ascii_case(origin))
    });
    match (req.header("sec-fetch-site"), origin) {
        (Some(b"same-origin" | b"none"), _) => true,
        (Some(_), _) => is_trusted,
        (None, Some(origin)) => is_trusted || is_of_host(origin, req.host()),
        (None, None) => true,
    }
}

/// Returns `true` if `origin` names this host and port. Its scheme is not compared, because a proxy
/// may have taken https off.
fn is_of_host(origin: &[u8], host: Option<&[u8]>) -> bool {
    let scheme = [&b"https://"[..], b"http://"];
    let rest = scheme
        .iter()
        .find_map(|scheme| origin.strip_prefix(*scheme));
    match (rest, host) {
        (Some(rest), Some(host)) => rest.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sent<'a> {
        site: Option<&'a str>,
        origin: Option<&'a str>,
    }

    impl Head for Sent<'_> {
        fn method(&self) -> &str {
            "POST"
        }

        fn host(&self) -> Option<&[u8]> {
            Some(b"shop.example:8080")
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            let value = match name {
                "origin" => self.origin,
                "sec-fetch-site" => self.site,
                _ => None,
            };
            value.map(str::as_bytes)
        }
    }

    #[test]
    fn only_the_applications_own_site_and_trusted_ones_are_accepted() {
        let own = Some("http://shop.example:8080");
        let trusted = Some("https://pay.example");
        for (site, origin, expected) in [
            (None, None, true),
            (None, own, true),
            (None, Some("https://SHOP.example:8080"), true),
            (None, Some("http://shop.example"), false),
            (None, Some("http://shop.example:80800"), false),
            (None, Some("http://a.shop.example:8080"), false),
            (None, Some("ftp://shop.example:8080"), false),
            (None, Some("shop.example:8080"), false),
            (None, Some("null"), false),
            (None, Some(""), false),
            (None, trusted, true),
            (Some("same-origin"), own, true),
            // The page has `Referrer-Policy: no-referrer`, or a proxy replaced the host.
            (Some("same-origin"), Some("null"), true),
            (Some("none"), None, true),
            (Some("same-site"), own, false),
            (Some("cross-site"), own, false),
            (Some("cross-site"), None, false),
            (Some("cross-site"), trusted, true),
            (Some(""), own, false),
        ] {
            let sent = Sent { site, origin };
            let accepted = is_accepted(&sent, &["https://pay.example".to_owned()]);
            assert_eq!(accepted, expected, "{site:?} {origin:?}");
        }
    }
}
