//! The `Host` header: a debug build omits `Secure` only for a loopback host. The first byte chooses
//! whether the request has a proxy's header.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use session_manager::fuzzing::is_to_loopback;
use session_manager_fuzz::{also_long, bounded};

/// A simple reference implementation of [`is_to_loopback`].
fn naive(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if let Some(address) = address {
        return address.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    let is_loopback = |address: Ipv4Addr| address.octets()[0] == 127;
    let name = name.to_ascii_lowercase();
    let labels: Vec<_> = name.strip_suffix('.').unwrap_or(&name).split('.').collect();
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || ".-_".contains(char);
    let is_localhost = labels.last() == Some(&"localhost") && name.chars().all(is_allowed);
    name.parse().is_ok_and(is_loopback) || is_localhost
}

fn check(data: &[u8]) {
    let Some((mark, host)) = data.split_first() else {
        assert!(!is_to_loopback(None, false), "no host");
        return;
    };
    let is_marked = mark & 1 == 1;
    let found = bounded(0, || is_to_loopback(Some(host), is_marked));
    // The reference only handles UTF-8.
    let expected = str::from_utf8(host).map(naive);
    if let Ok(expected) = expected {
        assert_eq!(found, expected && !is_marked, "{host:?}");
    }
    assert!(!is_marked || !found);
}

fuzz_target!(|data: &[u8]| also_long(data, check));
