//! Code written for `actix_session::Session` on the request's own session, and this crate's stores
//! behind `SessionMiddleware`.

mod common;

use std::{collections::HashMap, sync::Arc};

use actix_session::{
    Session as Theirs, SessionMiddleware,
    storage::{CookieSessionStore, SessionStore},
};
use actix_web::{
    App, HttpRequest, HttpResponse,
    cookie::{Key, time::Duration},
    web::{self, Data, ServiceConfig},
};
use common::{
    Log, Server, at_once, backends, block_on,
    bridge::{Faulty, Stay, their_log_out_wins, their_writes_merge_by_key},
    key,
    server_side::{Counting, Flaky, How},
    whole,
};
use session_manager::{
    ActixSession, Builder, HasSession, Manager, MemoryStore, PrivateCookie, ServerSide,
    SignedCookie, Store,
    web::{ActixSessions, StoreForActixSession},
};
use tokio::sync::Barrier;

/// Returns JSON that is nested more deeply than this crate reads.
fn deep() -> serde_json::Value {
    (0..200).fold(1.into(), |inner, _| serde_json::Value::Array(vec![inner]))
}

/// Does one thing to the session, through actix-session or, if its name begins with `our-`, through this
/// crate.
fn act(request: &HttpRequest, theirs: &Theirs, what: &str) -> String {
    let (name, rest) = what.split_once(':').unwrap_or((what, ""));
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let ours = || request.session().unwrap();
    match name {
        "insert" => match serde_json::from_str::<serde_json::Value>(value) {
            Ok(json) => theirs.insert(key, json).unwrap(),
            Err(_) => theirs.insert(key, value).unwrap(),
        },
        "large" => theirs.insert("large", "x".repeat(5_000)).unwrap(),
        "get" => return theirs.entries().get(key).cloned().unwrap_or("none".into()),
        "bool" => match theirs.get::<bool>(key) {
            Ok(_) => {}
            Err(_) => return "unreadable".into(),
        },
        "deep" => theirs.insert("deep", deep()).unwrap(),
        "update" => theirs.update(key, |count: u64| count + 1).unwrap(),
        "remove" => drop(theirs.remove(key)),
        "clear" => theirs.clear(),
        "renew" => theirs.renew(),
        "purge" => theirs.purge(),
        "our-add" => ours().add(key, value).unwrap(),
        "our-number" => ours().add(key, value.parse::<u64>().unwrap()).unwrap(),
        "our-get" => return ours().get(key).unwrap_or("none".into()),
        "our-flash" => ours().flash("kept").unwrap(),
        "our-flashes" => return ours().flashes().len().to_string(),
        other => panic!("{other}"),
    }
    "done".into()
}

fn run(request: &HttpRequest, theirs: &Theirs, what: &str) -> String {
    let said = what.split('+').map(|what| act(request, theirs, what));
    said.collect::<Vec<_>>().join(" ")
}

/// `/do/insert:a=1+get:a` does this and answers what came of it; `/fail/…` answers 500 afterwards;
/// `/error/…` answers with an error of actix-web; `/together/…` waits for the others.
fn routes(config: &mut ServiceConfig) {
    async fn act(request: HttpRequest, theirs: Theirs, what: web::Path<String>) -> String {
        run(&request, &theirs, &what)
    }
    async fn fail(request: HttpRequest, theirs: Theirs, what: web::Path<String>) -> HttpResponse {
        run(&request, &theirs, &what);
        HttpResponse::InternalServerError().finish()
    }
    async fn error(
        request: HttpRequest,
        theirs: Theirs,
        what: web::Path<String>,
    ) -> actix_web::Result<String> {
        run(&request, &theirs, &what);
        Err(actix_web::error::ErrorNotFound("as the test wants it"))
    }
    async fn panics(request: HttpRequest, theirs: Theirs, what: web::Path<String>) -> String {
        run(&request, &theirs, &what);
        panic!("as the test wants it")
    }
    async fn together(
        request: HttpRequest,
        theirs: Theirs,
        what: web::Path<String>,
        barrier: Data<Barrier>,
    ) -> String {
        barrier.wait().await;
        run(&request, &theirs, &what)
    }
    config
        .route("/do/{what}", web::get().to(act))
        .route("/fail/{what}", web::get().to(fail))
        .route("/error/{what}", web::get().to(error))
        .route("/panic/{what}", web::get().to(panics))
        .route("/together/{what}", web::get().to(together));
}

fn barrier() -> Data<Barrier> {
    Data::from(Arc::new(Barrier::new(50)))
}

fn bridged(builder: Builder) -> Server {
    serve(builder.build().unwrap(), ActixSessions::new())
}

fn serve(manager: Manager, layer: ActixSessions) -> Server {
    let barrier = barrier();
    Server::actix(move || {
        App::new()
            .app_data(barrier.clone())
            .configure(routes)
            .wrap(layer.clone())
            .wrap(manager.middleware())
    })
}

fn in_memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::default()))
}

fn every_backend() -> Vec<Builder> {
    let cookies = backends().into_iter().map(|(_, builder)| builder());
    cookies
        .chain([in_memory(), in_memory().load_on_demand()])
        .collect()
}

#[test]
fn both_see_what_the_other_wrote() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        visitor.body("/do/our-add:text=5+our-number:number=5");
        assert_eq!(
            visitor.body("/do/get:text+get:number+insert:theirs=Ada"),
            "\"5\" 5 done"
        );
        assert_eq!(
            visitor.body("/do/our-get:theirs+our-get:text+our-get:number"),
            "Ada 5 5"
        );
        assert_eq!(
            visitor.body("/do/remove:text+update:number+insert:list=[1]"),
            "done done done"
        );
        assert_eq!(
            visitor.body("/do/our-get:text+our-get:number+our-get:list"),
            "none 6 [1]"
        );
        visitor.body("/do/our-add:same=ours+insert:other=1");
        assert_eq!(
            visitor.body("/do/get:same+get:other"),
            "\"ours\" 1",
            "written on both sides"
        );
        visitor.body("/do/our-add:same=again+insert:other=2");
        assert_eq!(visitor.body("/do/get:same+get:other"), "\"again\" 2");
        assert_eq!(visitor.get("/error/insert:kept=1").status, 404);
        assert_eq!(
            visitor.body("/do/get:kept"),
            "1",
            "a client's error is no failure"
        );
    }
}

#[test]
fn a_request_that_changes_nothing_writes_nothing() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        assert_eq!(visitor.get("/do/get:a").set_cookie(), None);
        visitor.body("/do/insert:a=1");
        assert_eq!(visitor.get("/do/get:a").set_cookie(), None);
        assert_eq!(
            visitor.get("/do/insert:a=1").set_cookie(),
            None,
            "the same value"
        );
    }
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
fn renew_gives_a_new_id_and_a_server_error_undoes_it() {
    let server = bridged(in_memory());
    let old = server.visitor().get("/do/insert:cart=1+our-flash").cookie();
    let new = server.with_cookie("/do/renew+insert:user=1", &old).cookie();
    assert_ne!(old, new);
    assert_eq!(
        server.with_cookie("/do/get:cart+get:user", &new).body,
        "1 1"
    );
    assert_eq!(
        server.with_cookie("/do/get:cart+get:user", &old).body,
        "none none"
    );
    let failed = server.with_cookie("/fail/renew+insert:user=2", &new);
    assert_eq!((failed.status, failed.set_cookie()), (500, None));
    assert_eq!(
        server.with_cookie("/do/get:user+our-flashes", &new).body,
        "1 1"
    );
    let only = server.with_cookie("/do/renew", &new).cookie();
    assert_ne!(only, new, "renewed without another change");
}

#[test]
fn purge_ends_the_session_whatever_comes_of_the_request() {
    for path in [
        "/do/purge",
        "/do/insert:b=1+purge",
        "/do/purge+insert:b=1",
        "/fail/purge",
        "/error/purge",
        "/panic/purge",
    ] {
        for builder in [in_memory(), in_memory().load_on_demand()] {
            let server = bridged(builder);
            let old = server.visitor().get("/do/insert:a=1").cookie();
            if path.starts_with("/panic") {
                let request = || server.with_cookie(path, &old);
                let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(request));
                assert!(gone.is_err(), "no response");
            } else {
                let answer = server.with_cookie(path, &old);
                assert!(answer.cookie().ends_with('='), "{path}: {answer:?}");
            }
            common::until(path, || {
                server.with_cookie("/do/get:a", &old).body == "none"
            });
        }
    }
}

#[test]
fn clear_removes_the_values_and_keeps_the_session() {
    for builder in every_backend() {
        let server = bridged(builder);
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1+our-add:b=1+our-flash");
        visitor.body("/do/clear+insert:c=1");
        assert_eq!(
            visitor.body("/do/get:a+get:b+get:c+our-flashes"),
            "none none 1 1"
        );
    }
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
        let answer = visitor.get("/do/insert:b=1+large+remove:a+renew");
        assert_eq!(
            (answer.status, answer.set_cookie()),
            (500, None),
            "{answer:?}"
        );
        assert_eq!(visitor.body("/do/get:a+get:b+get:large"), "1 none none");
    }
}

#[test]
fn a_value_that_one_side_cannot_read_is_an_error_and_is_kept() {
    let store = Faulty::default();
    let server = bridged(Manager::builder(ServerSide::new(store.clone())));
    let visitor = server.visitor();
    visitor.body("/do/insert:a=1");
    assert_eq!(visitor.body("/do/bool:a"), "unreadable", "their type");
    assert_eq!(visitor.get("/do/deep+insert:b=1").status, 500, "ours");
    store.set(Faulty::UNREADABLE);
    let answer = visitor.get("/do/insert:b=1");
    assert_eq!((answer.status, answer.set_cookie()), (500, None));
    store.set(0);
    assert_eq!(visitor.body("/do/get:a+get:b+get:deep"), "1 none none");
}

#[test]
fn a_request_that_is_dropped_half_way_keeps_only_a_log_out() {
    async fn half(
        request: HttpRequest,
        theirs: Theirs,
        what: web::Path<String>,
        stay: Data<Stay>,
    ) -> &'static str {
        run(&request, &theirs, &what);
        stay.forever().await
    }
    let (stay, stayed) = Stay::new();
    let stay = Data::new(stay);
    let store = MemoryStore::default();
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::actix(move || {
        App::new()
            .app_data(stay.clone())
            .configure(routes)
            .route("/half/{what}", web::get().to(half))
            .wrap(ActixSessions::new())
            .wrap(manager.middleware())
    });
    let old = server.visitor().get("/do/insert:a=1").cookie();
    stayed.leave(&server, "/half/renew+insert:a=2+insert:b=1", &old);
    assert_eq!(server.with_cookie("/do/get:a+get:b", &old).body, "1 none");
    stayed.leave(&server, "/half/purge", &old);
    common::until("ended", || {
        server.with_cookie("/do/get:a", &old).body == "none"
    });
    assert_eq!(store.len(), 0);
}

#[test]
fn without_the_middleware_outside_each_request_is_an_error_that_says_the_order() {
    let log = Log::of_process();
    let server = Server::actix(|| App::new().configure(routes).wrap(ActixSessions::new()));
    assert_eq!(server.visitor().get("/do/insert:a=1").status, 500);
    let manager = in_memory().build().unwrap();
    let server = Server::actix(move || {
        App::new()
            .configure(routes)
            .wrap(manager.middleware())
            .wrap(ActixSessions::new())
    });
    assert_eq!(server.visitor().get("/do/insert:a=1").status, 500);
    let said = "mount `session_manager::manager::middleware()` outside of it";
    assert_eq!(log.lines(said).len(), 2);
}

#[test]
fn a_store_that_is_away_is_503() {
    for load_on_demand in [false, true] {
        let store = Flaky::default();
        let builder = Manager::builder(ServerSide::new(store.clone()));
        let server = bridged(if load_on_demand {
            builder.load_on_demand()
        } else {
            builder
        });
        let visitor = server.visitor();
        visitor.body("/do/insert:a=1");
        store.set(Some(How::Refuses));
        assert_eq!(visitor.get("/do/get:a").status, 503);
        store.set(None);
        assert_eq!(visitor.body("/do/get:a"), "1");
    }
}

#[test]
fn two_of_them_share_the_session_and_beside_session_middleware_it_is_an_error() {
    let manager = in_memory().build().unwrap();
    let twice = Server::actix(move || {
        App::new()
            .configure(routes)
            .wrap(ActixSessions::new())
            .wrap(ActixSessions::new())
            .wrap(manager.middleware())
    });
    let visitor = twice.visitor();
    visitor.body("/do/insert:a=1");
    assert_eq!(visitor.body("/do/get:a+our-get:a"), "1 1");

    let (manager, secret) = (in_memory().build().unwrap(), Key::generate());
    let both = Server::actix(move || {
        let theirs = SessionMiddleware::builder(CookieSessionStore::default(), secret.clone());
        App::new()
            .route(
                "/theirs",
                web::get().to(|it: Theirs| async move { it.insert("a", 1).map(|()| "") }),
            )
            .wrap(ActixSessions::new())
            .wrap(manager.middleware())
            .wrap(theirs.cookie_secure(false).build())
    });
    let visitor = both.visitor();
    visitor.get("/theirs");
    assert_eq!(
        visitor.get("/theirs").status,
        503,
        "it holds values of another session"
    );
}

#[test]
fn with_the_backend_actix_session_nothing_is_done_twice() {
    let secret = Key::generate();
    let server = Server::actix(move || {
        let theirs = SessionMiddleware::builder(CookieSessionStore::default(), secret.clone());
        App::new()
            .configure(routes)
            .wrap(ActixSessions::new())
            .wrap(Manager::new(ActixSession::new()).middleware())
            .wrap(theirs.cookie_secure(false).build())
    });
    let visitor = server.visitor();
    visitor.body("/do/insert:a=1+our-add:b=1");
    assert_eq!(visitor.body("/do/get:a+our-get:a+get:b"), "1 1 \"1\"");
}

#[test]
fn the_user_is_named_by_a_key() {
    let manager = in_memory().build().unwrap();
    let layer = ActixSessions::new().user_key("user", |id| Some(id.as_str()?.to_owned()));
    let server = serve(manager.clone(), layer);
    let sessions = || {
        let manager = manager.clone();
        block_on(async move { manager.user_sessions("ada").await.unwrap().len() })
    };
    let visitor = server.visitor();
    visitor.body("/do/insert:user=ada");
    assert_eq!(sessions(), 1);
    visitor.body("/do/purge");
    assert_eq!(sessions(), 0);
}

/// An application that keeps `SessionMiddleware`.
fn kept<S: Store + Clone>(store: S) -> Server {
    let (secret, barrier) = (Key::generate(), barrier());
    Server::actix(move || {
        let theirs = StoreForActixSession::new(store.clone());
        let theirs = SessionMiddleware::builder(theirs, secret.clone());
        App::new()
            .app_data(barrier.clone())
            .configure(routes)
            .wrap(theirs.cookie_secure(false).build())
    })
}

#[test]
fn through_their_middleware_a_store_of_this_crate_merges_by_key() {
    their_writes_merge_by_key(&kept(MemoryStore::default()));
}

#[test]
fn through_their_middleware_a_log_out_wins() {
    let server = kept(MemoryStore::default());
    let cookie = server.visitor().get("/do/insert:a=1").cookie();
    their_log_out_wins(&server, &cookie, "purge");
}

#[test]
fn through_their_middleware_of_overlapping_updates_the_later_one_wins() {
    let server = kept(MemoryStore::default());
    let cookie = server.visitor().get("/do/insert:n=1").cookie();
    server.with_cookie("/do/update:n", &cookie);
    let read = |key: &str| server.with_cookie(&format!("/do/get:{key}"), &cookie).body;
    assert_eq!(read("n"), "1", "an update alone is not saved");
    at_once(50, |i| {
        let path = format!("/together/update:n+insert:key{i}=1");
        server.with_cookie(&path, &cookie)
    });
    assert_eq!((read("n"), read("key49")), ("2".into(), "1".into()));
}

#[test]
fn through_their_middleware_a_renewal_that_fails_half_way_logs_out() {
    let store = Faulty::default();
    let server = kept(store.clone());
    let old = server.visitor().get("/do/insert:a=1").cookie();
    store.set(Faulty::CREATES_NOTHING);
    assert_eq!(server.with_cookie("/do/renew", &old).status, 500);
    store.set(0);
    assert_eq!(server.with_cookie("/do/get:a", &old).body, "none");
}

#[tokio::test(start_paused = true)]
async fn each_call_through_their_trait_has_a_time_limit() {
    let (flaky, hour) = (Flaky::default(), Duration::hours(1));
    let store = StoreForActixSession::new(flaky.clone());
    let state = || HashMap::from([("a".to_owned(), "1".to_owned())]);
    let key = store.save(state(), &hour).await.unwrap();
    flaky.set(Some(How::Hangs));
    let texts = [
        whole(&store.save(state(), &hour).await.unwrap_err()),
        whole(&store.load(&key).await.unwrap_err()),
        format!("{:?}", store.update_ttl(&key, &hour).await.unwrap_err()),
        format!("{:?}", store.delete(&key).await.unwrap_err()),
        whole(&store.update(key, state(), &hour).await.unwrap_err()),
    ];
    for text in texts {
        assert!(text.contains("did not answer within 2000 ms"), "{text}");
    }
}

#[actix_web::test]
async fn through_their_trait_the_store_gets_only_hashes_and_a_late_save_is_logged() {
    let (log, hour) = (Log::of_process(), Duration::hours(1));
    let counting = Counting::new(MemoryStore::default());
    let store = StoreForActixSession::new(counting.clone());
    let state = HashMap::from([("a".to_owned(), "1".to_owned())]);
    let key = store.save(state, &hour).await.unwrap();
    let name = key.as_ref().to_owned();
    let mut loaded = store.load(&key).await.unwrap().unwrap();
    store.delete(&key).await.unwrap();
    loaded.insert("b".to_owned(), "1".to_owned());
    let key = store.update(key, loaded, &hour).await.unwrap();
    assert!(store.load(&key).await.unwrap().is_none());
    let said = "a session of actix-session was ended before a request saved it";
    assert!(!log.lines(said).is_empty());
    for seen in counting.seen() {
        assert!(!seen.windows(name.len()).any(|part| part == name.as_bytes()));
    }
}

#[actix_web::test]
async fn as_their_trait_asks() {
    let store = StoreForActixSession::new(MemoryStore::default());
    let hour = Duration::hours(1);
    let state = HashMap::from([("a".to_owned(), "\"x\"".to_owned())]);
    let key = store.save(state.clone(), &hour).await.unwrap();
    let loaded = store.load(&key).await.unwrap().unwrap();
    assert_eq!(loaded["a"], "\"x\"");
    store
        .update_ttl(&key, &Duration::seconds(-1))
        .await
        .unwrap();
    assert!(
        store.load(&key).await.unwrap().is_none(),
        "its time is over"
    );
    let key = store.save(state, &hour).await.unwrap();
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    let name = key.as_ref().to_owned();
    let key = store.update(key, loaded, &hour).await.unwrap();
    assert_eq!(key.as_ref(), name);
    assert!(
        store.load(&key).await.unwrap().is_none(),
        "a deleted session stays deleted"
    );
    let reserved = HashMap::from([("\u{2}own".to_owned(), "1".to_owned())]);
    assert!(store.save(reserved, &hour).await.is_err());
    assert_eq!(format!("{store:?}"), "StoreForActixSession(memory)");
}
