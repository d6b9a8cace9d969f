//! Code of the application that runs inside a call of this crate: `Serialize`, `Deserialize`, the
//! closure of `update`, and a log subscriber. It may use the session.

use std::{cell::RefCell, sync::mpsc, time::Duration};

use crate::common::{
    App, Web, block_on, on_every_framework,
    server_side::{Flaky, How},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use session_manager::{Error, Manager, MemoryStore, OnStoreError, ServerSide, Session};
use tracing::{Event, Metadata, Subscriber, span};

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Reads and writes the session of this thread, if there is one.
fn use_session() {
    let session = SESSION.with_borrow(Clone::clone);
    if let Some(session) = session {
        let _ = session.get("key");
        let _ = session.add("used", "yes");
    }
}

/// Runs `f` in a thread; fails if it does not end.
fn ends<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || send.send(f()));
    let ended = ended.recv_timeout(Duration::from_secs(10));
    ended.unwrap_or_else(|_| panic!("{what} does not end"))
}

/// A value whose own code uses the session.
struct Nosy;

impl Serialize for Nosy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use_session();
        serializer.serialize_u8(7)
    }
}

impl<'de> Deserialize<'de> for Nosy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use_session();
        u8::deserialize(deserializer).map(|_| Self)
    }
}

fn memory() -> Manager {
    Manager::new(ServerSide::new(MemoryStore::new()))
}

fn a_values_serde_code_may_use_the_session(web: Web) {
    let app = App::new().get("/nosy", async |session: Session, _| {
        SESSION.set(Some(session.clone()));
        session.add("key", Nosy)?;
        session.load::<Nosy>("key")?.unwrap();
        session.update("key", |_: Option<Nosy>| Nosy)?;
        session.pop_load::<Nosy>("key")?.unwrap();
        SESSION.set(None);
        Ok(session.get("used").unwrap_or_default())
    });
    let app = app.wrap(memory().middleware());
    let answer = ends("a value's own code", move || {
        block_on(app.call(web, "/nosy"))
    });
    assert_eq!((answer.status, &*answer.body), (200, "yes"));
}

/// Uses the session for each line of this crate, as a layer that adds the user to each line does.
struct Listener(mpsc::Sender<()>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("session_manager")
    }

    fn event(&self, _: &Event<'_>) {
        use_session();
        self.0.send(()).unwrap();
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn a_log_subscriber_may_use_the_session(web: Web) {
    let (heard, lines) = mpsc::channel();
    ends("a log line", move || {
        let _guard = tracing::subscriber::set_default(Listener(heard));
        // Cookies that are refused when the handler looks.
        let builder = Manager::builder(session_manager::SignedCookie::new(crate::common::key()));
        let app = App::new().get("/look", async |session: Session, _| {
            SESSION.set(Some(session.clone()));
            session.get("key");
            Ok("looked")
        });
        let app = app.wrap(builder.build().unwrap().middleware());
        block_on(app.call_with(web, "/look", "_session=forged"));

        let (send, kept) = mpsc::channel();
        let app = App::new().get("/keep", move |session: Session, _| {
            send.send(session.clone()).unwrap();
            SESSION.set(Some(session));
            async { Ok("kept") }
        });
        // A value that is taken out too late.
        let signed = Manager::builder(session_manager::SignedCookie::new(crate::common::key()));
        let middleware = signed.build().unwrap().middleware();
        let cookie = block_on(
            app.clone()
                .wrap(middleware.clone())
                .call(web, "/run/add.key.1"),
        );
        block_on(
            app.clone()
                .wrap(middleware)
                .call_with(web, "/keep", &cookie.cookie()),
        );
        let late = kept.recv().unwrap();
        late.pop("key");
        late.clear();

        // A session that cannot be opened, and is ended.
        let store = Flaky::default();
        let builder = Manager::builder(ServerSide::new(store.clone()));
        let manager = builder.on_store_error(OnStoreError::Anonymous).build();
        let middleware = manager.unwrap().middleware();
        let cookie = block_on(
            app.clone()
                .wrap(middleware.clone())
                .call(web, "/run/add.key.1"),
        );
        store.set(Some(How::Refuses));
        let cookie = cookie.cookie();
        block_on(
            app.clone()
                .wrap(middleware.clone())
                .call_with(web, "/keep", &cookie),
        );
        kept.recv().unwrap().destroy();
        // actix-web's test service panics for an error of a middleware.
        if web == Web::Axum {
            block_on(app.wrap(middleware).call_with(web, "/run/destroy", &cookie));
        }
        SESSION.set(None);
    });
    assert!(lines.try_iter().count() >= 4);
}

/// A value that actix-session lost, because the application purged its session.
#[cfg(feature = "actix-session")]
#[test]
fn a_log_subscriber_may_use_a_session_of_actix_session() {
    use actix_session::{SessionMiddleware, storage::CookieSessionStore};
    use actix_web::{cookie::Key, test, web};
    use session_manager::ActixSession;

    let (heard, lines) = mpsc::channel();
    ends("a log line", move || {
        let _guard = tracing::subscriber::set_default(Listener(heard));
        let manager = Manager::new(ActixSession::new());
        let handler = async |ours: Session, theirs: actix_session::Session| {
            SESSION.set(Some(ours.clone()));
            theirs.purge();
            ours.add("key", "lost").map(|()| "done")
        };
        block_on(async {
            let theirs = SessionMiddleware::new(CookieSessionStore::default(), Key::generate());
            let app = actix_web::App::new()
                .wrap(manager.middleware())
                .wrap(theirs)
                .route("/", web::get().to(handler));
            let app = test::init_service(app).await;
            test::call_service(&app, test::TestRequest::default().to_request()).await;
        });
        SESSION.set(None);
    });
    assert!(lines.try_iter().count() >= 1);
}

fn an_update_whose_closure_writes_its_own_key_is_an_error(web: Web) {
    let app = App::new().get("/loop", async |session: Session, _| {
        let (in_closure, other) = (session.clone(), session.clone());
        let looped = session.update("n", move |n: Option<u64>| {
            let next = in_closure.load::<u64>("n").unwrap().unwrap_or(0) + 1;
            in_closure.add("n", next).unwrap();
            n.unwrap_or(0)
        });
        assert!(
            matches!(looped, Err(Error::UpdateLoop { .. })),
            "{looped:?}"
        );
        // A write to another key is allowed.
        let counted = session.update("m", move |m: Option<u64>| {
            other.add("other", m.unwrap_or(0)).unwrap();
            m.unwrap_or(0) + 1
        });
        Ok(counted?.to_string())
    });
    let app = app.wrap(memory().middleware());
    let answer = ends("an update", move || block_on(app.call(web, "/loop")));
    assert_eq!((answer.status, &*answer.body), (200, "1"));
}

on_every_framework!(
    a_values_serde_code_may_use_the_session,
    a_log_subscriber_may_use_the_session,
    an_update_whose_closure_writes_its_own_key_is_an_error,
);
