//! `take` and `update_now`, which change the stored session at once.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use crate::common::{
    App, Server, Web, at_once, backends, block_on, key, on_every_framework,
    script::{run, run_outside},
    server_side::{Flaky, How, overlapping_updates_cost_calls_in_proportion},
};
use session_manager::{
    Builder, Error, Manager, MemoryStore, Namespace, OnStoreError, ServerSide, Session,
    SignedCookie, Store, StoreError, Timestamp, TypedKey, manager,
    store::{Applied, Record, StoreId, Write},
};

fn app() -> App {
    App::new()
        .get("/do/{script}", async |session, script| {
            Ok(run_outside(&session, &script).await)
        })
        .get("/fail/{script}", async |session, script| {
            let said = run_outside(&session, &script).await;
            let mut page = run(&session, "status.500")?;
            page.body = said;
            Ok(page)
        })
}

fn memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::new()))
}

fn serve(web: Web, builder: Builder) -> Server {
    Server::start(web, app().wrap(builder.build().unwrap().middleware()))
}

fn take_and_update_now_hold_although_the_response_is_a_5xx(web: Web) {
    let server = serve(web, memory());
    let cookie = server
        .raw("/run/add.token.t,add.n.4,add.user.ada", &[])
        .cookie();
    let answer = server.with_cookie("/fail/take.token,countnow.n,pop.user,get.n", &cookie);
    assert_eq!((answer.status, &*answer.body), (500, "\"t\",5,ada,5"));
    let read = server
        .with_cookie("/run/get.token,get.n,get.user", &cookie)
        .body;
    assert_eq!(read, "none,5,ada");
}

fn take_and_update_now_see_earlier_writes_of_the_request(web: Web) {
    let server = serve(web, memory());
    for (script, said, left) in [
        ("add.k.a,take.k,take.k", "null,\"a\",null", "7"),
        ("pop.n,take.n", "7,null", "none"),
        ("count.n,takenumber.n", "8,8", "none"),
        ("clear,take.n", "done,null", "none"),
        ("destroy,take.n", "done,null", "none"),
        ("destroy,add.n.3,take.n", "done,null,\"3\"", "none"),
        ("count.n,countnow.n,count.n", "8,9,10", "10"),
        ("pop.n,countnow.n", "7,1", "1"),
        ("clear,countnow.n,get.other", "done,1,none", "1"),
        ("destroy,countnow.n,get.other", "done,1,none", "1"),
        ("take.n", "wrong type", "7"),
        ("count.n,take.n,get.n", "8,wrong type,8", "8"),
        ("add.n.x,takenumber.n", "null,wrong type", "x"),
    ] {
        let cookie = server.raw("/do/countnow.n,countnow.n,add.other.1", &[]);
        let cookie = cookie.cookie();
        server.with_cookie("/do/count.n,count.n,count.n,count.n,count.n", &cookie);
        let answer = server.with_cookie(&format!("/do/{script}"), &cookie);
        assert_eq!(answer.body, said, "{script}");
        let kept = answer.set_cookie().map(|_| answer.cookie());
        let read = server
            .with_cookie("/run/get.n", kept.unwrap_or(cookie))
            .body;
        assert_eq!(read, left, "{script}");
    }
}

fn update_now_may_begin_a_session(web: Web) {
    let server = serve(web, memory());
    for path in ["/do/countnow.n,countnow.n", "/fail/countnow.n,countnow.n"] {
        let answer = server.raw(path, &[]);
        assert_eq!(answer.body, "1,2", "{path}");
        assert_eq!(server.with_cookie("/run/get.n", answer.cookie()).body, "2");
    }
    let answer = server.raw("/do/take.n,add.n.1,take.n", &[]);
    assert_eq!(answer.body, "null,null,\"1\"");
    assert_eq!(answer.set_cookie(), None);
}

fn take_and_update_now_need_a_store(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.token.t", &[]).cookie();
        let answer = server.with_cookie("/do/take.token,countnow.n,get.token", &cookie);
        assert_eq!(answer.body, "needs store,needs store,t", "{backend}");
        assert_eq!(answer.set_cookie(), None, "{backend}");
    }
    let text = Error::NeedsStore {
        backend: "private cookie",
    }
    .to_string();
    assert!(text.contains("ServerSide"), "{text}");
}

fn take_from_an_ended_or_unavailable_session_is_an_error(web: Web) {
    let store = Flaky::default();
    let (send, kept) = mpsc::channel();
    let manager = Manager::builder(ServerSide::new(store.clone()));
    let manager = manager
        .on_store_error(OnStoreError::Anonymous)
        .build()
        .unwrap();
    let app = app().get("/keep", move |session: Session, _| {
        send.send(session).unwrap();
        async { Ok("kept") }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let begin = || server.raw("/run/add.token.t", &[]).cookie();
    let keep = |cookie: &str| {
        server.with_cookie("/keep", cookie);
        kept.recv().unwrap()
    };
    let outside = |session: &Session, script: &str| block_on(run_outside(session, script));

    let cookie = begin();
    let (late, later) = (keep(&cookie), keep(&cookie));
    assert_eq!(
        outside(&late, "countnow.n,add.m.1"),
        "1,null",
        "after the head"
    );
    store.set(Some(How::Refuses));
    assert_eq!(outside(&late, "take.token,get.token"), "unavailable,t");
    assert_eq!(
        server
            .with_cookie("/do/take.token,countnow.n", &cookie)
            .body,
        "read only,read only"
    );
    store.set(None);
    assert_eq!(
        outside(&late, "take.token,save,take.token"),
        "\"t\",null,null"
    );
    assert_eq!(server.with_cookie("/run/get.n,get.m", &cookie).body, "1,1");
    server.with_cookie("/run/renew", &cookie);
    assert_eq!(outside(&late, "countnow.n,len,take.n"), "ended,0,ended");
    assert_eq!(outside(&later, "take.token,len"), "ended,0");
    let anonymous = keep("");
    assert_eq!(outside(&anonymous, "take.k,countnow.n"), "null,head sent");
    assert_eq!(outside(&anonymous, "take.\u{1}k"), "reserved");
}

fn a_cancelled_take_happens_at_most_once_and_blocks_no_other(web: Web) {
    let store = Flaky::default();
    let in_handler = store.clone();
    let app = app().get("/give-up", move |session: Session, _| {
        let store = in_handler.clone();
        async move {
            session.update("n", |n: Option<i64>| n.unwrap_or(0) + 1)?;
            store.set(Some(How::AnswersLate));
            let taking = tokio::time::timeout(Duration::from_millis(20), session.take::<i64>("n"));
            assert!(taking.await.is_err());
            store.set(None);
            Ok(run_outside(&session, "take.token,save").await)
        }
    });
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/do/countnow.n,add.token.t", &[]).cookie();
    assert_eq!(server.with_cookie("/give-up", &cookie).body, "\"t\",null");
    // It was taken; the update that it was to include is still this request's.
    assert_eq!(server.with_cookie("/run/get.n", &cookie).body, "1");
}

fn a_token_in_a_migrating_session_is_taken_once(web: Web) {
    type Old = (&'static str, fn() -> Builder);
    let olds: [Old; 2] = [
        ("memory", memory),
        ("signed", || Manager::builder(SignedCookie::new(key()))),
    ];
    for (backend, old) in olds {
        let old = old().cookie_name("old").build().unwrap();
        let cookie = serve_manager(web, &old).raw("/run/add.token.t,add.user.ada", &[]);
        let cookie = cookie.cookie();
        let manager = memory().migrate_from(old).build().unwrap();
        let gates = crate::common::Gates::new(10);
        let server = Server::start(web, gates.app().wrap(manager.middleware()));
        let taken = at_once(10, |_| {
            let path = "/at-once/take.token,countnow.n";
            server.with_cookie(path, &cookie).body
        });
        let got = taken
            .iter()
            .filter(|taken| taken.starts_with("\"t\""))
            .count();
        assert_eq!(got, 1, "{backend}: {taken:?}");
        let read = server.with_cookie("/run/get.token,get.n,get.user", &cookie);
        assert_eq!(read.body, "none,10,ada", "{backend}");
    }
}

fn serve_manager(web: Web, manager: &Manager) -> Server {
    Server::start(web, app().wrap(manager.middleware()))
}

fn namespaces_and_typed_keys_can_take(web: Web) {
    const TOKEN: TypedKey<String> = TypedKey::new("shop.token");
    const COUNT: TypedKey<u8> = TypedKey::new("shop.n");
    let manager = Arc::new(memory().build().unwrap());
    let app = App::new().get("/keys", async |session: Session, _| {
        session.add("shop.token", "t")?;
        let shop: Namespace = session.namespace("shop");
        let mut said = vec![TOKEN.take(&session).await?, shop.take("token").await?];
        said.push(Some(
            COUNT
                .update_now(&session, |n| n.unwrap_or(0) + 1)
                .await?
                .to_string(),
        ));
        said.push(Some(
            shop.update_now("n", |n: Option<u8>| n.unwrap_or(0) + 1)
                .await?
                .to_string(),
        ));
        Ok(format!("{said:?}"))
    });
    let call = app.wrap(manager.middleware()).call(web, "/keys");
    let answer = block_on(manager::scope(manager, call));
    assert_eq!(answer.body, r#"[Some("t"), None, Some("1"), Some("2")]"#);
}

/// A memory store with slow calls, so that overlapping requests overlap in it.
#[derive(Clone, Default)]
struct Slow {
    store: MemoryStore,
    /// Whether its reads stay as they were first.
    is_stale: bool,
    first: Arc<Mutex<Option<Record>>>,
}

impl Slow {
    async fn there(&self) -> &MemoryStore {
        tokio::time::sleep(Duration::from_millis(1)).await;
        &self.store
    }
}

impl Store for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let found = self.there().await.load(id, now).await?;
        let mut first = self.first.lock().unwrap();
        let known = first.get_or_insert_with(|| found.clone().unwrap()).clone();
        Ok(if self.is_stale { Some(known) } else { found })
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.there().await.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.there().await.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.there().await.destroy(id).await
    }
}

fn overlapping_updates_of_a_slow_store_cost_calls_in_proportion(web: Web) {
    overlapping_updates_cost_calls_in_proportion(web, &Slow::default());
}

fn updates_on_a_stale_replica_end_in_an_error(web: Web) {
    let store = Slow {
        is_stale: true,
        ..Slow::default()
    };
    let server = serve(web, Manager::builder(ServerSide::new(store)));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/run/add.first.1", &cookie);
    let begun = Instant::now();
    assert_eq!(server.with_cookie("/run/count.n", &cookie).status, 503);
    let answer = server.with_cookie("/do/take.user,countnow.n", &cookie);
    assert_eq!(answer.body, "unavailable,unavailable");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

on_every_framework!(
    take_and_update_now_hold_although_the_response_is_a_5xx,
    take_and_update_now_see_earlier_writes_of_the_request,
    update_now_may_begin_a_session,
    take_and_update_now_need_a_store,
    take_from_an_ended_or_unavailable_session_is_an_error,
    a_cancelled_take_happens_at_most_once_and_blocks_no_other,
    a_token_in_a_migrating_session_is_taken_once,
    namespaces_and_typed_keys_can_take,
    overlapping_updates_of_a_slow_store_cost_calls_in_proportion,
    updates_on_a_stale_replica_end_in_an_error,
);
