//! Code written for `tower_sessions::Session` on the request's own session, and this crate's stores
//! behind `SessionManagerLayer`.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{Path, Request},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use common::{
    Log, Server, at_once, backends, block_on,
    bridge::{Faulty, Stay, their_log_out_wins, their_writes_merge_by_key},
    key,
    server_side::{Counting, Flaky, How},
};
use session_manager::{
    Builder, Lifetime, Manager, MemoryStore, PrivateCookie, ServerSide, SignedCookie,
    web::{StoreForTowerSessions, TowerSessions, TowerSessions014},
};
use tokio::sync::Barrier;
use tower_sessions::{
    Expiry, Session as Theirs, SessionManagerLayer, SessionStore,
    session::{Error, Id, Record},
};
use tower_sessions_core_0_14 as v0_14;

type Ours = session_manager::Session;

/// Returns JSON that is nested more deeply than this crate reads.
fn deep() -> serde_json::Value {
    (0..200).fold(1.into(), |inner, _| serde_json::Value::Array(vec![inner]))
}

/// Does one thing to the session, through tower-sessions or, if its name begins with `our-`, through
/// this crate.
async fn act(theirs: &Theirs, ours: Option<&Ours>, what: &str) -> Result<String, Error> {
    let (name, rest) = what.split_once(':').unwrap_or((what, ""));
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let ours = || ours.expect("the middleware of this crate");
    let json = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::from(text));
    match name {
        "insert" => theirs.insert(key, json(value)).await?,
        "large" => theirs.insert("large", "x".repeat(5_000)).await?,
        "get" => {
            let value = theirs.get_value(key).await?;
            return Ok(value.map_or("none".into(), |value| value.to_string()));
        }
        "bool" => drop(theirs.get::<bool>(key).await?),
        "deep" => theirs.insert("deep", deep()).await?,
        "remove" => drop(theirs.remove_value(key).await?),
        "clear" => theirs.clear().await,
        "cycle" => theirs.cycle_id().await?,
        "flush" => theirs.flush().await?,
        "delete" => theirs.delete().await?,
        "save" => theirs.save().await?,
        "load" => theirs.load().await?,
        "empty" => return Ok(theirs.is_empty().await.to_string()),
        "idle" => theirs.set_expiry(Some(Expiry::OnInactivity(time::Duration::days(30)))),
        "hour" => {
            let date = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
            theirs.set_expiry(Some(Expiry::AtDateTime(date)));
        }
        "past" => {
            let date = time::OffsetDateTime::UNIX_EPOCH;
            theirs.set_expiry(Some(Expiry::AtDateTime(date)));
        }
        "browser" => theirs.set_expiry(Some(Expiry::OnSessionEnd)),
        "our-add" => ours().add(key, value).unwrap(),
        "our-number" => ours().add(key, value.parse::<u64>().unwrap()).unwrap(),
        "our-get" => return Ok(ours().get(key).unwrap_or("none".into())),
        "our-flash" => ours().flash("kept").unwrap(),
        "our-flashes" => return Ok(ours().flashes().len().to_string()),
        "our-lifetime" => {
            let now = ours().manager().settings().now();
            let ends = ours().expires().unwrap().since(now).as_secs();
            return Ok(format!("{:?} {ends}", ours().lifetime()));
        }
        other => panic!("{other}"),
    }
    Ok("done".into())
}

async fn run(theirs: &Theirs, ours: Option<&Ours>, what: &str) -> Result<String, Error> {
    let mut said = Vec::new();
    for what in what.split('+') {
        said.push(act(theirs, ours, what).await?);
    }
    Ok(said.join(" "))
}

fn answer(said: Result<String, Error>) -> Response {
    match said {
        Ok(said) => said.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// `/do/insert:a=1+get:a` does this and answers what came of it; `/fail/…` answers 500 afterwards;
/// `/together/…` waits for the others; `/late/…` goes on after the response.
fn routes(together: usize) -> Router {
    let barrier = Arc::new(Barrier::new(together));
    Router::new()
        .route("/untouched", get(|| async { "untouched" }))
        .route(
            "/do/{what}",
            get(
                async |ours: Option<Extension<Ours>>, theirs: Theirs, Path(what): Path<String>| {
                    let ours = ours.map(|Extension(ours)| ours);
                    answer(run(&theirs, ours.as_ref(), &what).await)
                },
            ),
        )
        .route(
            "/fail/{what}",
            get(async |theirs: Theirs, Path(what): Path<String>| {
                drop(run(&theirs, None, &what).await.unwrap());
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .route(
            "/panic/{what}",
            get(async |theirs: Theirs, Path(what): Path<String>| {
                drop(run(&theirs, None, &what).await.unwrap());
                panic!("as the test wants it");
                #[expect(unreachable_code, reason = "the type of the answer")]
                ""
            }),
        )
        .route(
            "/late/{what}",
            get(async |theirs: Theirs, Path(what): Path<String>| {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    drop(run(&theirs, None, &what).await.unwrap());
                });
            }),
        )
        .route(
            "/together/{what}",
            get(move |theirs: Theirs, Path(what): Path<String>| {
                let barrier = Arc::clone(&barrier);
                async move {
                    // Loaded before anything is written.
                    theirs.get_value("any").await.unwrap();
                    barrier.wait().await;
                    answer(run(&theirs, None, &what).await)
                }
            }),
        )
}

/// This crate's session as an extension, where there is one.
async fn with_ours(mut request: Request, next: Next) -> Response {
    use session_manager::HasSession;

    if let Ok(ours) = request.session() {
        request.extensions_mut().insert(ours);
    }
    next.run(request).await
}

fn bridged(builder: Builder) -> Server {
    let routes = routes(50)
        .layer(from_fn(with_ours))
        .layer(TowerSessions::new());
    Server::axum(routes.layer(builder.build().unwrap().middleware()))
}

fn in_memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::default()))
}

fn every_backend() -> Vec<Builder> {
    let cookies = backends().into_iter().map(|(_, builder)| builder());
    cookies.chain([in_memory()]).collect()
}

#[test]
fn both_see_what_the_other_wrote() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        let said = visitor
            .body("/do/our-add:text=5+our-number:number=5+get:text+get:number+insert:theirs=Ada");
        assert_eq!(said, "done done \"5\" 5 done", "before their first read");
        assert_eq!(visitor.body("/do/our-get:theirs+get:theirs"), "Ada \"Ada\"");
        assert_eq!(
            visitor.body("/do/insert:new=1+our-get:new+save+our-get:new"),
            "done none done 1"
        );
        assert_eq!(
            visitor.body("/do/get:a+our-add:a=1+get:a+load+get:a"),
            "none done none done \"1\""
        );
        assert_eq!(visitor.body("/do/remove:a+insert:list=[1]"), "done done");
        assert_eq!(
            visitor.body("/do/our-get:a+our-get:list+get:list"),
            "none [1] [1]"
        );
        assert_eq!(
            visitor.body("/do/our-get:number+our-get:text"),
            "5 5",
            "untouched by all this"
        );
        visitor.body("/do/get:text+our-add:text=6+insert:theirs=Grace");
        assert_eq!(
            visitor.body("/do/get:text+get:theirs"),
            "\"6\" \"Grace\"",
            "written on both sides"
        );
    }
}

#[test]
fn a_request_that_changes_nothing_costs_no_store_call() {
    let store = Counting::new(MemoryStore::default());
    let builder = Manager::builder(ServerSide::new(store.clone())).load_on_demand();
    let layered = routes(1).layer(TowerSessions::new());
    let server = Server::axum(layered.layer(builder.build().unwrap().middleware()));
    let visitor = server.visitor();
    assert_eq!(visitor.body("/untouched"), "untouched");
    assert_eq!(visitor.body("/do/get:a"), "none");
    assert_eq!(
        (store.calls(), visitor.cookies()),
        (0, 0),
        "without a cookie"
    );
    visitor.body("/do/insert:a=1");
    store.calls();
    let answer = visitor.get("/untouched");
    assert_eq!(
        (store.calls(), answer.set_cookie(), answer.header("vary")),
        (0, None, None)
    );
    let answer = visitor.get("/do/get:a+insert:a=1");
    assert_eq!(
        (store.calls(), answer.set_cookie()),
        (1, None),
        "only loaded"
    );
    assert_eq!(visitor.body("/do/insert:a=2"), "done");
    assert_eq!(store.calls(), 2, "loaded and written");
}

#[test]
fn fifty_overlapping_inserts_are_all_kept() {
    let server = bridged(in_memory());
    let visitor = server.visitor();
    visitor.body("/do/insert:first=0");
    at_once(50, |n| visitor.body(&format!("/together/insert:key{n}=1")));
    let all: Vec<_> = (0..50).map(|n| format!("get:key{n}")).collect();
    assert_eq!(
        visitor.body(&format!("/do/{}", all.join("+"))),
        ["1"; 50].join(" ")
    );
}

#[test]
fn cycle_id_renews_and_a_server_error_undoes_it() {
    let server = bridged(in_memory());
    let old = server.visitor().get("/do/insert:cart=1+our-flash").cookie();
    let answer = server.with_cookie("/do/cycle+insert:user=1", &old);
    let new = answer.cookie();
    assert_ne!(old, new);
    assert_eq!(
        server.with_cookie("/do/get:cart+get:user", &new).body,
        "1 1"
    );
    assert_eq!(
        server.with_cookie("/do/get:cart+get:user", &old).body,
        "none none"
    );
    let failed = server.with_cookie("/fail/cycle+insert:user=2", &new);
    assert_eq!((failed.status, failed.set_cookie()), (500, None));
    assert_eq!(
        server.with_cookie("/do/get:user+our-flashes", &new).body,
        "1 1"
    );
}

#[test]
fn flush_ends_the_session_whatever_comes_of_the_request() {
    for (what, path) in [
        ("flush", "/do/flush"),
        ("delete", "/do/delete"),
        ("read first", "/do/get:a+flush"),
        ("500", "/fail/flush"),
        ("panic", "/panic/flush"),
        ("after cycle_id", "/do/cycle+flush"),
        ("after cycle_id, 500", "/fail/cycle+flush"),
        ("and begin another", "/do/flush+insert:b=1"),
        ("saved first", "/do/insert:b=1+save+flush"),
    ] {
        for load_on_demand in [false, true] {
            let builder = match load_on_demand {
                true => in_memory().load_on_demand(),
                false => in_memory(),
            };
            // No extension of this crate's session, which would load it.
            let middleware = builder.build().unwrap().middleware();
            let layered = routes(1).layer(TowerSessions::new()).layer(middleware);
            let server = Server::axum(layered);
            let old = server.visitor().get("/do/insert:a=1").cookie();
            if path.starts_with("/panic") {
                let request = || server.with_cookie(path, &old);
                let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(request));
                assert!(gone.is_err(), "no response");
            } else {
                let answer = server.with_cookie(path, &old);
                let begins = answer
                    .set_cookie()
                    .is_some_and(|it| !it.contains("Max-Age=0"));
                assert_eq!(begins, what == "and begin another", "{what}: {answer:?}");
            }
            common::until(what, || {
                server.with_cookie("/do/get:a", &old).body == "none"
            });
        }
    }
}

#[test]
fn what_is_inserted_after_flush_begins_a_session() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1+insert:b=1");
        visitor.body("/do/flush+insert:a=1");
        assert_eq!(visitor.body("/do/get:a+get:b"), "1 none");
    }
}

#[test]
fn clear_removes_the_values_and_keeps_the_session() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1+our-add:b=1+our-flash");
        assert_eq!(
            visitor.body("/do/clear+get:a"),
            "done none",
            "cleared without being read"
        );
        assert_eq!(
            visitor.body("/do/get:a+our-get:b+our-flashes"),
            "none none 1"
        );
        visitor.body("/do/insert:a=1");
        assert_eq!(visitor.body("/do/get:a+clear+insert:c=1"), "1 done done");
        assert_eq!(visitor.body("/do/get:a+get:c"), "none 1");
    }
}

#[test]
fn is_empty_says_whether_it_was_flushed() {
    let server = bridged(in_memory());
    assert_eq!(
        server.visitor().body("/do/empty+get:a+empty+flush+empty"),
        "false none false done true"
    );
}

#[test]
fn an_expiry_is_the_lifetime_of_the_session() {
    const DAY: u64 = 24 * 60 * 60;
    for builder in every_backend() {
        let server = bridged(builder);
        let lifetime = |path| {
            let visitor = server.visitor();
            visitor.body("/do/insert:a=1");
            assert_eq!(visitor.get(path).status, 200, "{path}");
            let said = visitor.body("/do/our-lifetime");
            let (lifetime, ends) = said.rsplit_once(' ').unwrap();
            (lifetime.to_owned(), ends.parse::<u64>().unwrap())
        };
        let is_about = |seconds: u64, expected: u64| seconds.abs_diff(expected) < 30;
        let (idle, ends) = lifetime("/do/idle");
        let days = |days| Duration::from_secs(days * DAY);
        let expected = Lifetime::Persistent {
            idle: days(30),
            absolute: days(30),
        };
        assert_eq!(idle, format!("{:?}", Some(expected)));
        assert!(is_about(ends, 30 * DAY), "{ends}");
        assert!(is_about(lifetime("/do/hour").1, 3_600));
        assert!(is_about(lifetime("/do/cycle+hour").1, 3_600));
        assert_eq!(lifetime("/do/browser").0, "Some(Browser)");
        assert_eq!(lifetime("/do/get:a").0, "None");
    }
}

#[test]
fn an_expiry_in_the_past_is_an_error_of_save() {
    let server = bridged(in_memory());
    let answer = server.visitor().get("/do/insert:a=1+past+save");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("lifetime"), "{answer:?}");
    let answer = server.visitor().get("/do/insert:a=1+past");
    assert_eq!((answer.status, answer.set_cookie()), (500, None));
}

#[test]
fn a_value_that_does_not_fit_is_an_error_and_stores_nothing() {
    for builder in [
        Manager::builder(SignedCookie::new(key())),
        Manager::builder(PrivateCookie::new(key())),
        Manager::builder(ServerSide::new(MemoryStore::default()).max_size(2_000)),
    ] {
        let server = bridged(builder);
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1");
        let answer = visitor.get("/do/insert:b=1+large+remove:a");
        assert_eq!(
            (answer.status, answer.set_cookie()),
            (500, None),
            "{answer:?}"
        );
        let answer = visitor.get("/do/insert:b=1+large+save");
        assert!(answer.body.contains("may take no more than"), "{answer:?}");
        assert_eq!(visitor.body("/do/get:a+get:b+get:large"), "1 none none");
    }
}

#[test]
fn a_value_that_one_side_cannot_read_is_an_error_and_is_kept() {
    let store = Faulty::default();
    let server = bridged(Manager::builder(ServerSide::new(store.clone())));
    let visitor = server.visitor();
    visitor.body("/do/insert:a=1");
    assert_eq!(visitor.get("/do/bool:a").status, 500, "their type");
    assert_eq!(visitor.get("/do/deep+insert:b=1").status, 500, "ours");
    store.set(Faulty::UNREADABLE);
    let answer = visitor.get("/do/insert:b=1");
    assert_eq!((answer.status, answer.set_cookie()), (500, None));
    assert!(answer.body.contains("key `a`") && !answer.body.contains("secret"));
    store.set(0);
    assert_eq!(visitor.body("/do/get:a+get:b+get:deep"), "1 none none");
    store.set(Faulty::UNREADABLE);
    assert_eq!(visitor.get("/do/flush").status, 200, "a log-out reads none");
}

#[test]
fn a_request_that_is_dropped_half_way_keeps_only_a_log_out() {
    let (stay, stayed) = Stay::new();
    let half = get(async move |theirs: Theirs, Path(what): Path<String>| {
        drop(run(&theirs, None, &what).await.unwrap());
        stay.forever::<()>().await
    });
    let store = MemoryStore::default();
    let middleware = Manager::new(ServerSide::new(store.clone())).middleware();
    let routes = routes(1).route("/half/{what}", half);
    let server = Server::axum(routes.layer(TowerSessions::new()).layer(middleware));
    let old = server.visitor().get("/do/insert:a=1").cookie();
    stayed.leave(&server, "/half/cycle+insert:a=2+insert:b=1+save", &old);
    assert_eq!(server.with_cookie("/do/get:a+get:b", &old).body, "1 none");
    stayed.leave(&server, "/half/flush+insert:b=1", &old);
    common::until("ended", || {
        server.with_cookie("/do/get:a", &old).body == "none"
    });
    assert_eq!(store.len(), 0, "no other begins");
}

#[test]
fn a_reserved_key_is_an_error() {
    let server = bridged(in_memory());
    let answer = server.visitor().get("/do/insert:%02lifetime=browser");
    assert_eq!((answer.status, answer.set_cookie()), (500, None));
}

#[test]
fn without_the_middleware_outside_each_request_is_an_error_that_says_the_order() {
    let log = Log::of_process();
    let middleware = in_memory().build().unwrap().middleware();
    for routes in [
        routes(1).layer(TowerSessions::new()),
        routes(1).layer(middleware).layer(TowerSessions::new()),
    ] {
        let server = Server::axum(routes);
        assert_eq!(server.visitor().get("/do/insert:a=1").status, 500);
    }
    let said = "mount `session_manager::manager::middleware()` outside of it";
    assert_eq!(log.lines(said).len(), 2);
}

#[test]
fn a_store_that_is_away_is_an_error() {
    for load_on_demand in [false, true] {
        let store = Flaky::default();
        let builder = Manager::builder(ServerSide::new(store.clone()));
        let builder = match load_on_demand {
            true => builder.load_on_demand(),
            false => builder,
        };
        let middleware = builder.build().unwrap().middleware();
        let layered = routes(1).layer(TowerSessions::new()).layer(middleware);
        let server = Server::axum(layered);
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1");
        store.set(Some(How::Refuses));
        // With `load_on_demand`, the handler gets the error and answers.
        let status = if load_on_demand { 500 } else { 503 };
        assert_eq!(visitor.get("/do/get:a").status, status);
        assert_eq!(visitor.get("/do/flush").status, status);
        if load_on_demand {
            assert_eq!(visitor.get("/do/idle").status, 503, "loaded by the layer");
        }
        store.set(None);
        assert_eq!(visitor.body("/do/get:a"), "1");
    }
}

#[test]
fn code_after_the_response_saves_and_ends_the_session() {
    let server = bridged(in_memory());
    let visitor = server.visitor();
    visitor.body("/do/insert:a=1");
    visitor.body("/late/insert:b=1+save");
    common::until("saved", || visitor.body("/do/get:b") == "1");
    visitor.body("/late/flush");
    common::until("ended", || visitor.body("/do/get:a") == "none");
}

#[test]
fn the_user_is_named_by_a_key() {
    let store = MemoryStore::default();
    let manager = Manager::new(ServerSide::new(store));
    let layer =
        TowerSessions::new().user_key("auth", |data| Some(data["id"].as_i64()?.to_string()));
    let server = Server::axum(routes(1).layer(layer.clone()).layer(manager.middleware()));
    let sessions = |user: &'static str| {
        let manager = manager.clone();
        block_on(async move { manager.user_sessions(user).await.unwrap().len() })
    };
    let visitor = server.visitor();
    visitor.body(
        "/do/insert:auth={\"id\":7}"
            .replace('"', "%22")
            .replace('{', "%7B")
            .replace('}', "%7D")
            .as_str(),
    );
    assert_eq!((sessions("7"), sessions("8")), (1, 0));
    visitor.body("/do/insert:other=1");
    assert_eq!(sessions("7"), 1);
    visitor.body("/do/insert:auth=none");
    assert_eq!(sessions("7"), 1, "a value without a user changes nothing");
    visitor.body("/do/flush");
    assert_eq!(sessions("7"), 0);
    // A backend without an index stores the value all the same.
    let cookie = Manager::new(SignedCookie::new(key()));
    let server = Server::axum(routes(1).layer(layer).layer(cookie.middleware()));
    let visitor = server.visitor();
    visitor.body("/do/insert:auth=%7B%22id%22:7%7D");
    assert_eq!(visitor.body("/do/get:auth"), "{\"id\":7}");
}

#[test]
fn two_layers_and_both_versions_on_one_request_share_the_session() {
    async fn inserts(request: Request, next: Next) -> Response {
        let outer = request.extensions().get::<Theirs>().unwrap().clone();
        let old = request
            .extensions()
            .get::<v0_14::Session>()
            .unwrap()
            .clone();
        let answer = next.run(request).await;
        outer.insert("outer", 1).await.unwrap();
        old.insert("old", 1).await.unwrap();
        answer
    }
    let server = Server::axum(
        routes(1)
            .layer(TowerSessions::new())
            .layer(from_fn(inserts))
            .layer(TowerSessions::new())
            .layer(TowerSessions014::new())
            .layer(in_memory().build().unwrap().middleware()),
    );
    let visitor = server.visitor();
    visitor.body("/do/insert:inner=1");
    assert_eq!(visitor.body("/do/get:inner+get:outer+get:old"), "1 1 1");
}

/// An application that keeps `SessionManagerLayer`.
fn kept(store: MemoryStore) -> Server {
    let layer = SessionManagerLayer::new(StoreForTowerSessions::new(store)).with_secure(false);
    Server::axum(routes(50).layer(layer))
}

#[test]
fn through_their_middleware_a_store_of_this_crate_merges_by_key() {
    their_writes_merge_by_key(&kept(MemoryStore::default()));
}

#[test]
fn through_their_middleware_a_log_out_wins_and_a_new_id_replaces_the_old_one() {
    let server = kept(MemoryStore::default());
    let old = server.visitor().get("/do/insert:a=1").cookie();
    let new = server.with_cookie("/do/cycle+insert:b=1", &old).cookie();
    assert_ne!(old, new);
    assert_eq!(server.with_cookie("/do/get:a+get:b", &new).body, "1 1");
    assert_eq!(server.with_cookie("/do/get:a", &old).body, "none");
    their_log_out_wins(&server, &new, "flush");
}

#[test]
fn through_their_middleware_a_renewal_that_fails_half_way_logs_out() {
    let store = Faulty::default();
    let layer = SessionManagerLayer::new(StoreForTowerSessions::new(store.clone()));
    let server = Server::axum(routes(1).layer(layer.with_secure(false)));
    let old = server.visitor().get("/do/insert:a=1").cookie();
    store.set(Faulty::CREATES_NOTHING);
    assert_eq!(server.with_cookie("/do/cycle", &old).status, 500);
    store.set(0);
    assert_eq!(server.with_cookie("/do/get:a", &old).body, "none");
}

#[tokio::test(start_paused = true)]
async fn each_call_through_their_trait_has_a_time_limit() {
    let flaky = Flaky::default();
    flaky.set(Some(How::Hangs));
    let store = StoreForTowerSessions::new(flaky);
    let mut record = Record {
        id: Id::default(),
        data: Default::default(),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::HOUR,
    };
    let id = record.id;
    for error in [
        store.create(&mut record).await.unwrap_err(),
        store.save(&record).await.unwrap_err(),
        store.load(&id).await.unwrap_err(),
        store.delete(&id).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("did not answer within 2000 ms"), "{text}");
    }
}

#[tokio::test]
async fn through_their_trait_the_store_gets_only_hashes_and_a_late_save_is_logged() {
    let log = Log::of_process();
    let counting = Counting::new(MemoryStore::default());
    let store = StoreForTowerSessions::new(counting.clone());
    let mut record = Record {
        id: Id::default(),
        data: [("a".to_owned(), 1.into())].into(),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::HOUR,
    };
    store.create(&mut record).await.unwrap();
    let mut loaded = store.load(&record.id).await.unwrap().unwrap();
    store.delete(&record.id).await.unwrap();
    loaded.data.insert("b".to_owned(), 1.into());
    store.save(&loaded).await.unwrap();
    assert!(store.load(&record.id).await.unwrap().is_none());
    let said = "a session of tower-sessions was ended before a request saved it";
    assert!(!log.lines(said).is_empty());
    let id = record.id.0.to_be_bytes();
    for seen in counting.seen() {
        assert!(!seen.windows(id.len()).any(|part| part == id));
    }
}

/// The cached record says of the second save what the first one had loaded.
#[tokio::test]
async fn inside_of_a_caching_store_a_removed_value_stays() {
    let store = StoreForTowerSessions::new(MemoryStore::default());
    let cache = tower_sessions::MemoryStore::default();
    let caching = tower_sessions::CachingSessionStore::new(cache, store.clone());
    let mut record = Record {
        id: Id::default(),
        data: Default::default(),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::HOUR,
    };
    caching.create(&mut record).await.unwrap();
    record.data.insert("a".to_owned(), 1.into());
    caching.save(&record).await.unwrap();
    let mut loaded = caching.load(&record.id).await.unwrap().unwrap();
    loaded.data.remove("a");
    caching.save(&loaded).await.unwrap();
    let stored = store.load(&record.id).await.unwrap().unwrap();
    assert!(stored.data.contains_key("a"));
}

#[tokio::test]
async fn as_their_trait_asks() {
    let memory = MemoryStore::default();
    let store = StoreForTowerSessions::new(memory.clone());
    let hour = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    let record = |id, expiry_date| Record {
        id: Id(id),
        data: [("a".to_owned(), "x".into()), ("n".to_owned(), 1.5.into())].into(),
        expiry_date,
    };
    let mut first = record(1, hour);
    store.create(&mut first).await.unwrap();
    let mut second = record(1, hour);
    store.create(&mut second).await.unwrap();
    assert_ne!(second.id, first.id, "a taken id is replaced");
    let loaded = store.load(&Id(1)).await.unwrap().unwrap();
    assert_eq!(loaded.data["a"], "x");
    assert_eq!(loaded.data["n"], 1.5);
    assert!((loaded.expiry_date - hour).abs() < time::Duration::SECOND);
    // Through 0.14, the same session.
    let old: &dyn v0_14::SessionStore = &store;
    let id = v0_14::session::Id(1);
    assert_eq!(old.load(&id).await.unwrap().unwrap().data["a"], "x");
    store.delete(&Id(1)).await.unwrap();
    store.delete(&Id(1)).await.unwrap();
    store.save(&loaded).await.unwrap();
    assert!(
        store.load(&Id(1)).await.unwrap().is_none(),
        "a deleted record stays deleted"
    );
    let mut over = record(2, time::OffsetDateTime::now_utc() - time::Duration::HOUR);
    store.create(&mut over).await.unwrap();
    assert!(
        store.load(&over.id).await.unwrap().is_none(),
        "an expired record is not served"
    );
    let mut reserved = record(3, hour);
    reserved.data.insert("\u{2}own".into(), 1.into());
    assert!(store.create(&mut reserved).await.is_err());
    let seen = Arc::new(Mutex::new(format!("{store:?}")));
    assert_eq!(*seen.lock().unwrap(), "StoreForTowerSessions(memory)");
}
