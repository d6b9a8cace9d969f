//! No key, id, cookie, value or password is in a log line, in a `Debug` text or in an error. The log lines
//! are watched in every test (`common::watch`); the rest is here.

use std::{fmt::Debug, process::Command, sync::Arc};

use crate::common::{
    App, Server, Web, block_on, key, on_every_framework,
    watch::{hex, keep_secret, shows_nothing},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use session_manager::{
    ActixSession, ActixSessionCookie, Backend, Error, HasSession, Manager, MemoryStore, MySqlStore,
    PostgresStore, PrivateCookie, RedisStore, ServerSide, SignedCookie, SqliteStore, Store,
    StoreError, Timestamp, Tower014, TowerStore,
    backend::{
        BackendFuture, Commit, CommitOutcome, OpenOutcome, OpenRequest, Settings, Size, View,
    },
    store::{Applied, Record, StoreId, UserIndex, Verifier, Write},
};
use sha2::{Digest, Sha256};

const VALUE: &str = "a value that is nobody's business";
const PASSWORD: &str = "a-password-of-a-database";

fn both(shown: &impl Debug) -> String {
    format!("{shown:?}\n{shown:#?}")
}

/// A backend or a store that prints everything that it receives and returns.
struct Noisy<T>(Arc<T>, fn(&str));

impl<T> Noisy<T> {
    fn say(&self, shown: impl Debug) {
        (self.1)(&both(&shown));
    }
}

impl<B: Backend> Backend for Noisy<B> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn needs_response(&self) -> bool {
        self.0.needs_response()
    }

    fn opens_at_once(&self) -> bool {
        self.0.opens_at_once()
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        self.say((request, request.settings));
        let opening = Arc::clone(&self.0).open(request);
        self.say(&opening);
        if self.opens_at_once() {
            return opening;
        }
        BackendFuture::pending(async move { opening.await.inspect(|opened| self.say(opened)) })
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        self.say(session);
        self.0.size(session, settings)
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        self.say(&commit);
        let commit = Arc::clone(&self.0).commit(commit);
        BackendFuture::pending(async move {
            commit.await.inspect(|reply| match reply {
                // A leak on purpose, for the test of the watch.
                CommitOutcome::Set { token, .. } if leak() == "at its birth" => self.say(token),
                reply => self.say(reply),
            })
        })
    }
}

impl<S: Store> Store for Noisy<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let loaded = self.0.load(id, now).await;
        self.say((id, &loaded));
        loaded
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.say((id, write, write.to_record()));
        self.0.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.say((id, write));
        self.0.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.0.destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.0.users()
    }
}

/// Logs the text, which the watch checks.
fn to_the_log(text: &str) {
    tracing::trace!("{text}");
}

/// Returns a server-side backend that prints everything.
fn noisy() -> Manager {
    let store = Noisy(Arc::new(MemoryStore::new()), to_the_log);
    let backend = Noisy(Arc::new(ServerSide::new(store)), to_the_log);
    Manager::new(backend)
}

fn no_debug_text_in_a_request_shows_a_secret(web: Web) {
    keep_secret(VALUE);
    for manager in [
        Manager::new(Noisy(Arc::new(SignedCookie::new(key())), to_the_log)),
        Manager::new(Noisy(Arc::new(PrivateCookie::new(key())), to_the_log)),
        noisy(),
    ] {
        let backend = manager.backend_name();
        let app = App::new().get("/show", async |session, _| {
            session.add("a-key", VALUE)?;
            session.update("n", |n: Option<i64>| n.unwrap_or(0) + 1)?;
            // A backend without an index of users refuses it.
            let _ = session.set_user(VALUE);
            session.set_note(VALUE)?;
            session.flash(VALUE)?;
            Ok(both(&(&session, session.manager(), session.sessions())))
        });
        let server = Server::start(web, app.wrap(manager.middleware()));
        let new = server.raw("/show", &[]);
        let renewed = server.with_cookie("/run/get.key,renew", new.cookie());
        let shown = server.with_cookie("/show", renewed.cookie()).body;
        assert!(shown.contains(backend), "{shown}");
        assert!(!shown.contains("a-key"), "{shown}");
        for shown in [&new.body, &shown] {
            shows_nothing("a session", shown);
        }
    }
}

#[test]
fn no_debug_text_of_a_key_a_backend_or_a_store_shows_a_secret() {
    keep_secret(PASSWORD);
    let secret = std::array::from_fn(|at| at as u8);
    keep_secret(secret);
    let theirs = actix_web::cookie::Key::generate();
    keep_secret(theirs.master());
    block_on(async {
        let redis = |url: &str| RedisStore::connect_lazy(&url.replace("PASSWORD", PASSWORD));
        let redis = |url| redis(url).unwrap();
        let sql = |scheme| format!("{scheme}://app:{PASSWORD}@127.0.0.1:1/app");
        let signed = || SignedCookie::new(key()).accept(key());
        let private = || PrivateCookie::new(key()).accept(key());
        let builder = || Manager::builder(private()).migrate_from(Manager::new(signed()));
        let memory = || tower_sessions_memory_store_0_14::MemoryStore::default();
        let shown: [&dyn Debug; _] = [
            &key(),
            &signed(),
            &private(),
            &builder(),
            &builder().build(),
            &ServerSide::new(redis("redis://app:PASSWORD@127.0.0.1:1")),
            &redis("redis://app:PASSWORD@127.0.0.1:1"),
            &redis("redis+cluster://app:PASSWORD@127.0.0.1:1,127.0.0.1:2"),
            &redis("redis+sentinel://app:PASSWORD@127.0.0.1:1/name"),
            &PostgresStore::connect_lazy(sql("postgres")).unwrap(),
            &MySqlStore::connect_lazy(sql("mysql")).unwrap(),
            &SqliteStore::connect_lazy(format!("sqlite:/no/such/{PASSWORD}")).unwrap(),
            &TowerStore::new(Tower014::new(memory())),
            &ActixSession::new(),
            &ActixSessionCookie::private(theirs.clone()),
            &StoreId::from_bytes(secret),
            &Verifier::from_bytes(secret),
        ];
        for shown in shown {
            let text = format!("{shown:?}\n{shown:#?}");
            assert!(text.len() > 4, "{text}");
            shows_nothing("a `Debug` text", &text);
        }
    });
}

fn an_unreachable_store_is_logged_without_password_or_id(web: Web) {
    keep_secret(PASSWORD);
    let log = crate::common::Log::of_process();
    let url = |scheme| format!("{scheme}://app:{PASSWORD}@127.0.0.1:1/app");
    // Stores are made where they are used, as their clients ask for.
    let managers = block_on(async {
        [
            Manager::builder(ServerSide::new(
                RedisStore::connect_lazy(&format!("redis://app:{PASSWORD}@127.0.0.1:1")).unwrap(),
            )),
            Manager::builder(ServerSide::new(
                PostgresStore::connect_lazy(url("postgres")).unwrap(),
            )),
            Manager::builder(ServerSide::new(
                MySqlStore::connect_lazy(url("mysql")).unwrap(),
            )),
        ]
    });
    let id = BASE64.encode([web as u8 + 100; 48]);
    for manager in managers {
        let manager = manager.build().unwrap();
        let server = Server::scripts(web, manager.middleware());
        let before = log.lines(manager.backend_name()).len();
        let answer = server.with_cookie("/run/get.key", format!("_session={id}"));
        assert_eq!((answer.status, &*answer.body), web.unavailable());
        let lines = log.lines(manager.backend_name()).len();
        assert!(lines > before, "{} is logged", manager.backend_name());
    }
}

/// The variable that names the leak of a child process of the next test.
const LEAK: &str = "SESSION_MANAGER_TEST_LEAK";

fn leak() -> String {
    std::env::var(LEAK).unwrap_or_default()
}

/// Its name, and how it gets a session cookie's value into the log.
type Leak = (&'static str, fn(&str));

const LEAKS: [Leak; 11] = [
    ("none", |value| tracing::error!("{} bytes", value.len())),
    // By the backend, before the client has it.
    ("at its birth", |_| ()),
    ("whole", |value| tracing::error!("got {value}!")),
    ("a part", |value| tracing::trace!("{}..", &value[13..37])),
    ("a field", |value| tracing::debug!(target: "other", value)),
    ("a span", |value| {
        drop(tracing::info_span!("request", ?value));
    }),
    ("the other facade", |value| log::debug!("{value}")),
    ("bytes", |value| {
        tracing::info!("{:?}", BASE64.decode(value).unwrap());
    }),
    ("the secret's digits", |value| {
        tracing::info!("{}", hex(&BASE64.decode(value).unwrap()[16..]));
    }),
    ("the store's key", |value| {
        let root = &BASE64.decode(value).unwrap()[..16];
        tracing::info!("sessions:{}", hex(&Sha256::digest(root)));
    }),
    ("the key", |_| tracing::info!("{:?}", crate::common::SECRET)),
];

#[test]
fn a_log_line_that_shows_a_secret_ends_the_process() {
    let leak = leak();
    if !leak.is_empty() {
        let _key = key();
        let server = Server::scripts(Web::Actix, noisy().middleware());
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        let (_, leak) = LEAKS.iter().find(|(name, _)| *name == leak).unwrap();
        leak(cookie.split_once('=').unwrap().1);
        return;
    }
    for (leak, _) in LEAKS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "secrets::a_log_line_that_shows_a_secret_ends_the_process",
        ]);
        let output = child.env(LEAK, leak).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), leak == "none", "{leak}: {said}");
        assert_eq!(
            said.contains("A SECRET IS"),
            leak != "none",
            "{leak}: {said}"
        );
    }
}

on_every_framework!(
    no_debug_text_in_a_request_shows_a_secret,
    an_unreachable_store_is_logged_without_password_or_id,
);
