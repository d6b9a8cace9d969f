//! A user's sessions, listed and ended through the index of users: in which cases, and how fast.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::common::{
    Clock, Server, Web, block_on, inside::store_inside, on_every_framework, records::write,
};
use session_manager::{
    Manager, MemoryStore, ServerSide, Store,
    store::{StoreId, UserIndex},
};
use tokio::task::JoinSet;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn ending_a_users_sessions_covers_managers_with_longer_timeouts(web: Web) {
    let (store, clock) = (MemoryStore::new(), Clock::default());
    let manager = |name: &str, days: u32| {
        Manager::builder(ServerSide::new(store.clone()))
            .cookie_name(name)
            .idle_timeout(days * DAY)
            .absolute_timeout(days * DAY)
            .clock(clock.now())
            .build()
            .unwrap()
    };
    let (short, long) = (manager("short", 1), manager("long", 30));
    let server = Server::scripts(web, long.middleware());
    let cookie = server.raw("/run/user.ada,add.key.value", &[]).cookie();
    clock.forward(8 * DAY);
    let listed = block_on(short.user_sessions("ada")).unwrap();
    assert_eq!(listed.len(), 1, "a live session is listed");
    assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "value");
    assert_eq!(block_on(short.destroy_user_sessions("ada")).unwrap(), 1);
    assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "none");
}

/// While sessions migrate from one store to another, those that are still in the old one are listed
/// and ended as well, by their own user alone.
fn only_its_own_user_can_end_an_unmigrated_session(web: Web) {
    let old = || {
        let store = OLD.get_or_init(MemoryStore::new).clone();
        let builder = Manager::builder(ServerSide::new(store)).cookie_name("former");
        builder.build().unwrap()
    };
    static OLD: OnceLock<MemoryStore> = OnceLock::new();
    let builder = Manager::builder(ServerSide::new(MemoryStore::new()));
    let new = builder.migrate_from(old()).build().unwrap();
    let before = Server::scripts(web, old().middleware());
    let server = Server::scripts(web, new.middleware());
    let user = format!("ada-{web}");
    let cookies = [0, 1].map(|_| {
        let login = before.raw(&format!("/run/user.{user},note.laptop,add.key.value"), &[]);
        login.cookie()
    });
    let list = || block_on(new.user_sessions(&user)).unwrap();
    assert_eq!(list().len(), 2);
    assert_eq!(list()[0].note.as_deref(), Some("laptop"));
    let handle = |cookie: &str| server.with_cookie("/run/handle", cookie).body;
    for cookie in &cookies {
        let handle = handle(cookie);
        assert!(list().iter().any(|session| session.handle == handle));
        assert!(!block_on(new.destroy_user_session("eve", &handle)).unwrap());
        assert_eq!(server.with_cookie("/run/get.key", cookie).body, "value");
    }
    let handle = handle(&cookies[0]);
    assert!(block_on(new.destroy_user_session(&user, &handle)).unwrap());
    assert_eq!(server.with_cookie("/run/get.key", &cookies[0]).body, "none");
    assert_eq!(list().len(), 1);
    let answer = server.with_cookie("/run/add.more.1", &cookies[1]);
    let set = answer
        .all("set-cookie")
        .find(|set| set.starts_with("_session="));
    let moved = set
        .and_then(|set| set.split(';').next())
        .unwrap()
        .to_owned();
    assert_eq!(list().len(), 1, "a session that migrated is listed once");
    assert_eq!(block_on(new.destroy_user_sessions(&user)).unwrap(), 1);
    for cookie in [&moved, &cookies[1]] {
        assert_eq!(server.with_cookie("/run/get.key", cookie).body, "none");
    }
    assert_eq!(list().len(), 0);
}

on_every_framework!(
    ending_a_users_sessions_covers_managers_with_longer_timeouts,
    only_its_own_user_can_end_an_unmigrated_session,
);

/// Returns `bytes` bytes that no database can compress.
fn noise(bytes: usize, state: &mut u64) -> String {
    let mut text = String::with_capacity(bytes);
    for _ in 0..bytes {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        text.push(char::from(b'!' + (*state % 64) as u8));
    }
    text
}

/// Makes many sessions of one user, lists them, ends them, and prints how long that took.
async fn figures<S: Store>(store: S) {
    let store = Arc::new(store);
    let nanos = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for (count, bytes) in [(10_000, 1 << 10), (300, 100 << 10), (200, 1_000_000)] {
        let user: Box<str> = format!("{nanos}-{bytes}").into();
        let mut tasks = JoinSet::new();
        for task in 1..=10 {
            let (store, user) = (Arc::clone(&store), user.clone());
            tasks.spawn(async move {
                let mut state = nanos.wrapping_mul(task) | 1;
                for _ in 0..count / 10 {
                    let value = noise(bytes, &mut state);
                    let id: [u8; 32] = noise(32, &mut state).into_bytes().try_into().unwrap();
                    let mut write = write(&[("key", &value)]);
                    write.expires = write.now.plus(DAY);
                    write.user = Some(user.clone());
                    let id = StoreId::from_bytes(id);
                    assert!(store.create(id, &write).await.unwrap());
                }
            });
        }
        tasks.join_all().await;
        let manager = Manager::new(ServerSide::new(Shared(Arc::clone(&store))));
        let begun = Instant::now();
        let listed = manager.user_sessions(&user).await.map(|found| found.len());
        let list = begun.elapsed();
        let begun = Instant::now();
        let ended = manager.destroy_user_sessions(&user).await;
        let end = begun.elapsed();
        assert!(matches!(listed, Ok(1..)), "{listed:?}");
        assert_eq!(ended.as_ref().ok(), listed.as_ref().ok(), "{ended:?}");
        println!(
            "{} {count} of {bytes} bytes: list {list:.1?} ({listed:?}), end {end:.1?} ({ended:?})",
            store.name(),
        );
    }
}

/// A store that two managers have.
struct Shared<S>(Arc<S>);

impl<S: Store> Store for Shared<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    store_inside!();

    fn users(&self) -> Option<&dyn UserIndex> {
        self.0.users()
    }
}

#[cfg(all(
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
#[tokio::test]
#[ignore = "prints figures, and needs every service: tests/run.sh"]
async fn prints_figures_of_many_sessions_of_one_user() {
    use session_manager::{MySqlStore, PostgresStore, RedisStore, SqliteStore};

    let url = |variable: &str| std::env::var(variable).unwrap();
    figures(MemoryStore::new()).await;
    for variable in ["SESSION_TEST_REDIS", "SESSION_TEST_REDIS_CLUSTER"] {
        println!("{variable}");
        let store = RedisStore::connect(&url(variable)).await.unwrap();
        figures(store).await;
    }
    let store = PostgresStore::connect(url("SESSION_TEST_POSTGRES")).await;
    figures(store.unwrap()).await;
    let store = MySqlStore::connect(url("SESSION_TEST_MYSQL")).await;
    figures(store.unwrap()).await;
    let dir = std::env::temp_dir().join(format!("session-manager-figures-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sessions.db");
    figures(SqliteStore::connect(path.to_str().unwrap()).await.unwrap()).await;
    std::fs::remove_dir_all(dir).unwrap();
}
