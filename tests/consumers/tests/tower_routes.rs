//! What the route tests of tower-sessions ask of a store, over the stores of this crate behind
//! `SessionManagerLayer`.

use std::net::SocketAddr;

use axum::{Router, routing::get};
use consumers::{Answer, get as ask, on_each_store, serve_axum};
use session_manager::{Store, web::StoreForTowerSessions};
use time::{Duration, OffsetDateTime};
use tower_sessions::{Expiry, Session, SessionManagerLayer};

on_each_store!(passes_the_route_tests_of_tower_sessions);

async fn passes_the_route_tests_of_tower_sessions<S: Store>(build: impl Fn() -> S) {
    let server = serve(build());
    // Not on this thread, which the store may need.
    let checked = tokio::task::spawn_blocking(move || check(server));
    checked.await.unwrap();
}

async fn tomorrow(session: Session) {
    let tomorrow = OffsetDateTime::now_utc() + Duration::DAY;
    session.set_expiry(Some(Expiry::AtDateTime(tomorrow)));
}

fn routes() -> Router {
    Router::new()
        .route("/untouched", get(async |_: Session| ""))
        .route(
            "/insert",
            get(async |session: Session| session.insert("n", 42).await.unwrap()),
        )
        .route(
            "/get",
            get(async |session: Session| {
                let n = session.get_value("n").await.unwrap();
                n.map_or("none".to_owned(), |n| n.to_string())
            }),
        )
        .route(
            "/remove",
            get(async |session: Session| drop(session.remove_value("n").await.unwrap())),
        )
        .route(
            "/cycle",
            get(async |session: Session| session.cycle_id().await.unwrap()),
        )
        .route(
            "/flush",
            get(async |session: Session| session.flush().await.unwrap()),
        )
        .route("/tomorrow", get(tomorrow))
        .route(
            "/browser",
            get(async |session: Session| session.set_expiry(Some(Expiry::OnSessionEnd))),
        )
}

/// Serves the routes three times: with an expiry of an hour, without one, and with a domain.
fn serve<S: Store>(store: S) -> SocketAddr {
    let layer = SessionManagerLayer::new(StoreForTowerSessions::new(store));
    let hour = layer
        .clone()
        .with_expiry(Expiry::OnInactivity(Duration::HOUR));
    let domain = hour.clone().with_domain("localhost");
    serve_axum(
        Router::new()
            .nest("/hour", routes().layer(hour))
            .nest("/plain", routes().layer(layer))
            .nest("/domain", routes().layer(domain)),
    )
}

/// Returns the attributes of the cookie, without its name and value.
fn attributes(answer: &Answer) -> Vec<String> {
    let set = answer.set_cookie.as_ref().expect("a cookie");
    set.split("; ").skip(1).map(str::to_owned).collect()
}

/// Returns the `Max-Age` of the cookie.
fn max_age(answer: &Answer) -> Option<u64> {
    let attributes = attributes(answer);
    let mut ages = attributes.iter().map(|it| it.strip_prefix("Max-Age="));
    ages.find_map(|it| Some(it?.parse().unwrap()))
}

fn check(server: SocketAddr) {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    let is_about = |age: Option<u64>, expected: u64| {
        assert!(age.unwrap().abs_diff(expected) < 10, "{age:?}");
    };
    let get = |path: &str, cookie: &str| {
        let answer = ask(server, path, cookie);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    };
    let begin = |path: &str| get(path, "").cookie.unwrap();

    assert_eq!(get("/hour/untouched", "").set_cookie, None);
    assert_eq!(get("/hour/get", "").body, "none");
    let unknown = "id=AAAAAAAAAAAAAAAAAAAAAA";
    let inserted = get("/hour/insert", unknown).cookie.unwrap();
    assert_ne!(inserted, unknown, "an id that no store has");
    assert_eq!(get("/hour/get", unknown).body, "none");
    let malformed = get("/hour/untouched", "id=malformed").cookie.unwrap();
    assert_ne!(malformed, "id=malformed");

    let first = get("/hour/insert", "");
    assert!(first.cookie.as_ref().unwrap().starts_with("id="));
    for expected in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(
            attributes(&first).contains(&expected.to_owned()),
            "{first:?}"
        );
    }
    is_about(max_age(&first), HOUR);
    assert_eq!(max_age(&get("/plain/insert", "")), None);

    let session = begin("/hour/insert");
    assert_eq!(get("/hour/get", &session).body, "42");
    get("/hour/remove", &session);
    assert_eq!(get("/hour/get", &session).body, "none", "the last value");

    let old = begin("/hour/insert");
    let new = get("/hour/cycle", &old).cookie.unwrap();
    assert_ne!(old, new);
    assert_eq!(get("/hour/get", &new).body, "42");
    assert_eq!(get("/hour/get", &old).body, "none");

    for (path, domain) in [("/hour", None), ("/domain", Some("Domain=localhost"))] {
        let session = begin(&format!("{path}/insert"));
        let flushed = get(&format!("{path}/flush"), &session);
        assert_eq!(flushed.cookie.as_deref(), Some("id="));
        assert_eq!(max_age(&flushed), Some(0));
        let has = attributes(&flushed);
        assert!(has.contains(&"Path=/".to_owned()));
        assert_eq!(
            has.iter().any(|it| it.starts_with("Domain=")),
            domain.is_some()
        );
        assert!(domain.is_none_or(|domain| has.contains(&domain.to_owned())));
        assert_eq!(get(&format!("{path}/get"), &session).body, "none");
    }

    is_about(max_age(&get("/hour/tomorrow", &begin("/hour/insert"))), DAY);
    is_about(
        max_age(&get("/plain/tomorrow", &begin("/plain/insert"))),
        DAY,
    );
    assert_eq!(max_age(&get("/hour/browser", &begin("/hour/insert"))), None);
}
