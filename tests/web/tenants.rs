//! A cookie domain by host: sessions of one tenant are nothing to another.

use crate::common::{Log, Server, Web, all_backends, key, named, on_every_framework};
use session_manager::{Builder, ConfigError, Key, Manager, SignedCookie};

/// The tenant is the domain of two labels; a host of one label has none.
fn by_tenant(builder: Builder) -> Manager {
    let builder = builder.cookie_domain_for(|host| {
        let (rest, top) = host.rsplit_once('.')?;
        Some(format!("{}.{top}", rest.rsplit('.').next()?))
    });
    builder.build().unwrap()
}

/// Every backend, and a server-side one whose ids are signed.
fn backends() -> Vec<Builder> {
    #[cfg_attr(not(feature = "memory"), expect(unused_mut))]
    let mut all: Vec<_> = all_backends()
        .iter()
        .map(|(_, builder)| builder())
        .collect();
    #[cfg(feature = "memory")]
    all.push(Manager::builder(
        session_manager::ServerSide::new(session_manager::MemoryStore::new()).signed_with(key()),
    ));
    all
}

fn set_at(server: &Server, host: &str, script: &str, cookie: &str) -> String {
    let answer = server.at(Some(host), &format!("/run/{script}"), cookie);
    answer.set_cookie().unwrap_or_default().to_owned()
}

fn cookie_of(set: &str) -> &str {
    set.split(';').next().unwrap()
}

fn a_cookie_of_one_tenant_opens_nothing_at_another(web: Web) {
    for builder in backends() {
        let server = Server::scripts(web, by_tenant(builder).middleware());
        let get = |host, cookie: &str| server.at(Some(host), "/run/get.user", cookie).body;
        let set = set_at(&server, "shop.ada.example", "add.user.ada", "");
        assert!(set.contains("; Domain=ada.example"), "{set}");
        let ada = cookie_of(&set);
        for host in ["shop.ada.example", "www.ada.example", "ada.example"] {
            assert_eq!(get(host, ada), "ada", "{host}");
        }
        for host in [
            "shop.bob.example",
            "bob.example",
            "ada.example.bob.example",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "",
        ] {
            assert_eq!(get(host, ada), "none", "{host}");
            // Nor can it be written or ended from there.
            server.at(Some(host), "/run/add.user.eve,destroy", ada);
            assert_eq!(get("shop.ada.example", ada), "ada", "{host}");
        }
        assert_eq!(server.at(None, "/run/get.user", ada).body, "none");
        // A page of a tenant sets its own session for a domain above both.
        let bob = set_at(&server, "bob.example", "add.user.bob", "");
        assert_eq!(get("ada.example", cookie_of(&bob)), "none");
        let both = format!("{ada}; {}", cookie_of(&bob));
        assert_eq!(get("ada.example", &both), "none");
    }
}

fn renewal_and_log_out_set_and_clear_the_cookie_of_the_tenant(web: Web) {
    for builder in backends() {
        let server = Server::scripts(web, by_tenant(builder).middleware());
        let set = set_at(&server, "shop.ada.example", "add.user.ada", "");
        let set = set_at(&server, "www.ada.example", "renew", cookie_of(&set));
        assert!(set.contains("; Domain=ada.example"), "{set}");
        let cookie = cookie_of(&set);
        let read = server.at(Some("shop.ada.example"), "/run/get.user", cookie);
        assert_eq!(read.body, "ada");
        let removed = set_at(&server, "shop.ada.example", "destroy", cookie);
        assert!(removed.contains("; Domain=ada.example"), "{removed}");
        assert!(removed.contains("Max-Age=0"), "{removed}");
    }
}

fn a_host_is_its_tenants_however_it_is_written(web: Web) {
    for builder in backends() {
        let server = Server::scripts(web, by_tenant(builder).middleware());
        let set = set_at(&server, "shop.ada.example", "add.user.ada", "");
        let cookie = cookie_of(&set);
        for host in [
            "SHOP.Ada.Example",
            "shop.ada.example:8080",
            "shop.ada.example.",
            "shop.ada.example.:443",
        ] {
            let read = server.at(Some(host), "/run/get.user", cookie);
            assert_eq!(read.body, "ada", "{host}");
        }
        // The host in the request line counts, as `:authority` in HTTP/2 does.
        let target = "http://www.ada.example/run/get.user";
        assert_eq!(server.at(Some("bob.example"), target, cookie).body, "ada");
        let target = "http://bob.example/run/get.user";
        assert_eq!(server.at(Some("ada.example"), target, cookie).body, "none");
    }
}

fn without_a_tenants_domain_the_cookie_is_the_hosts_alone(web: Web) {
    for builder in backends() {
        let server = Server::scripts(web, by_tenant(builder).middleware());
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "a..b",
            "a_b@c.d",
        ] {
            let set = set_at(&server, host, "add.user.ada", "");
            assert!(!set.contains("Domain="), "{host}: {set}");
            let cookie = cookie_of(&set);
            let read = server.at(Some(host), "/run/get.user", cookie);
            assert_eq!(read.body, "ada", "{host}");
            let read = server.at(Some("ada.example"), "/run/get.user", cookie);
            assert_eq!(read.body, "none", "{host}");
            let removed = set_at(&server, host, "destroy", cookie);
            assert!(
                removed.contains("Max-Age=0") && !removed.contains("Domain="),
                "{removed}"
            );
        }
        let answer = server.at(None, "/run/add.user.ada", "");
        let cookie = cookie_of(answer.set_cookie().unwrap()).to_owned();
        assert_eq!(server.at(None, "/run/get.user", &cookie).body, "ada");
        let read = server.at(Some("ada.example"), "/run/get.user", &cookie);
        assert_eq!(read.body, "none");
    }
}

#[cfg(feature = "memory")]
fn a_users_sessions_end_at_every_tenant(web: Web) {
    let store = session_manager::MemoryStore::new();
    let manager = by_tenant(Manager::builder(session_manager::ServerSide::new(store)));
    let server = Server::scripts(web, manager.middleware());
    let cookies = ["ada.example", "bob.example"].map(|host| {
        let set = set_at(&server, host, "user.ada,add.key.value", "");
        (host, cookie_of(&set).to_owned())
    });
    let listed = crate::common::block_on(manager.user_sessions("ada")).unwrap();
    for (host, cookie) in &cookies {
        let handle = server.at(Some(host), "/run/handle", cookie).body;
        assert!(listed.iter().any(|session| session.handle == handle));
    }
    let ended = crate::common::block_on(manager.destroy_user_sessions("ada"));
    assert_eq!(ended.unwrap(), 2);
    for (host, cookie) in &cookies {
        assert_eq!(server.at(Some(host), "/run/get.key", cookie).body, "none");
    }
}

on_every_framework!(
    a_cookie_of_one_tenant_opens_nothing_at_another,
    renewal_and_log_out_set_and_clear_the_cookie_of_the_tenant,
    a_host_is_its_tenants_however_it_is_written,
    without_a_tenants_domain_the_cookie_is_the_hosts_alone,
    #[cfg(feature = "memory")]
    a_users_sessions_end_at_every_tenant,
);

#[test]
fn a_domain_that_a_browser_would_refuse_is_logged_once_and_the_cookie_is_host_only() {
    let log = Log::of_process();
    let builder = Manager::builder(SignedCookie::new(key()));
    let manager = builder.cookie_domain_for(|_| Some("bob.example".into()));
    let server = Server::scripts(Web::Actix, manager.build().unwrap().middleware());
    for _ in 0..3 {
        let set = set_at(&server, "shop.ada.example", "add.user.ada", "");
        assert!(!set.contains("Domain="), "{set}");
        let read = server.at(Some("shop.ada.example"), "/run/get.user", cookie_of(&set));
        assert_eq!(read.body, "ada");
    }
    assert_eq!(log.lines("`cookie_domain_for` returned a domain").len(), 1);
}

#[test]
fn settings_that_rule_out_a_domain_by_host_are_refused() {
    let builder = || Manager::builder(SignedCookie::new(Key::generate()));
    let by_host = || builder().cookie_domain_for(|_| None);
    let refused = by_host().cookie_name("__Host-shop").build();
    assert!(matches!(refused, Err(ConfigError::Prefix { .. })));
    let refused = by_host().migrate_from(named("old")).build();
    assert_eq!(refused.unwrap_err(), ConfigError::MigrationByHost);
    let old = by_host().cookie_name("old").build().unwrap();
    let refused = builder().migrate_from(old).build();
    assert_eq!(refused.unwrap_err(), ConfigError::MigrationByHost);
    // The later of the two settings counts.
    let both = by_host()
        .cookie_domain("example.com")
        .migrate_from(named("old"));
    both.build().unwrap();
}
