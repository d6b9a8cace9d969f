//! `Encrypted`: what the store inside sees, what is rejected, how keys rotate, and the promises of
//! every store, with each store of this crate inside.

mod common;

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use common::{Log, Server, Web, key_of, on_every_framework, server_side::store_tests};
use session_manager::{
    Builder, Encrypted, Key, Manager, MemoryStore, ServerSide, SignedCookie, Store, StoreError,
    Timestamp,
    store::{Applied, Record, SessionSummary, StoreId, Value, Verifier, Write},
    testing::check_store,
};

const HOUR: Duration = Duration::from_secs(3600);
const FIRST: Verifier = Verifier::from_bytes([1; 32]);
const SECOND: Verifier = Verifier::from_bytes([2; 32]);
const ONE: StoreId = StoreId::from_bytes([11; 32]);
const TWO: StoreId = StoreId::from_bytes([22; 32]);
const ADDRESS: &str = "221b Baker Street, London";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

/// The `n`th of the keys that a test uses.
fn key(n: u8) -> Key {
    key_of([n; 32])
}

fn write(set: &[(&str, Value<&str>)]) -> Write {
    let mut write = Write::touch(FIRST, now(), now(), now().plus(HOUR));
    let owned = |(key, value): &(&str, Value<&str>)| ((*key).into(), value.into_owned());
    write.set = set.iter().map(owned).collect();
    write
}

/// Polls once; the memory store answers at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("the memory store answers at once"),
    }
}

fn load<S: Store>(store: &S, id: StoreId) -> Result<Option<Record>, StoreError> {
    at_once(store.load(id, now()))
}

/// The value under `key` of a record that is there and opens.
#[track_caller]
fn value<S: Store>(store: &S, id: StoreId, key: &str) -> Option<Value> {
    let record = load(store, id).unwrap().expect("the record is there");
    record.entries.get(key).map(Value::into_owned)
}

#[track_caller]
fn put<S: Store>(store: &S, id: StoreId, set: &[(&str, Value<&str>)]) {
    let write = write(set);
    if !at_once(store.create(id, &write)).unwrap() {
        assert_eq!(at_once(store.apply(id, &write)).unwrap(), Applied::Done);
    }
}

#[track_caller]
fn assert_corrupt<S: Store>(store: &S, id: StoreId, what: &str) {
    match load(store, id) {
        Err(StoreError::Corrupt { store, .. }) => assert_eq!(store, "memory"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn the_store_sees_keys_the_user_and_times_and_no_value() {
    let inside = MemoryStore::new();
    let store = Encrypted::new(inside.clone(), key(1));
    let values = [
        ("address", Value::Text(ADDRESS)),
        ("balance", Value::Json("[1234567,\"EUR\"]")),
        (SessionSummary::NOTE, Value::Text("the laptop of Sherlock")),
        ("empty", Value::Text("")),
    ];
    let mut first = write(&values);
    first.user = Some("sherlock".into());
    assert!(at_once(store.create(ONE, &first)).unwrap());
    let seen = load(&inside, ONE).unwrap().unwrap();
    assert_eq!(seen.user.as_deref(), Some("sherlock"));
    assert_eq!((seen.created, seen.expires), (first.created, first.expires));
    assert_eq!(seen.entries.len(), values.len());
    for (key, plain) in values {
        let Some(Value::Text(sealed)) = seen.entries.get(key) else {
            panic!("{key} is kept as text under its own key");
        };
        let bytes = BASE64.decode(sealed).unwrap();
        assert_eq!(bytes.len(), plain.as_str().len() + 30, "as documented");
        for text in [sealed.as_bytes(), &bytes] {
            let mut pieces = plain.as_str().as_bytes().windows(4);
            assert!(!pieces.any(|piece| text.windows(4).any(|other| other == piece)));
        }
        assert_eq!(value(&store, ONE, key), Some(plain.into_owned()));
    }
}

#[test]
fn a_value_is_encrypted_differently_each_time() {
    let inside = MemoryStore::new();
    let store = Encrypted::new(inside.clone(), key(1));
    let mut seen = Vec::new();
    for _ in 0..100 {
        put(&store, ONE, &[("address", Value::Text(ADDRESS))]);
        seen.push(value(&inside, ONE, "address").unwrap().as_str().to_owned());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

#[test]
fn a_value_copied_to_another_session_or_key_is_rejected_and_kept() {
    let inside = MemoryStore::new();
    let store = Encrypted::new(inside.clone(), key(1));
    put(&store, ONE, &[("role", Value::Text("admin"))]);
    put(&store, TWO, &[("role", Value::Text("guest"))]);
    let guest = value(&inside, TWO, "role").unwrap();

    let admin = value(&inside, ONE, "role").unwrap();
    for (id, key) in [(TWO, "role"), (ONE, "roles"), (ONE, "rol"), (ONE, "")] {
        put(&inside, id, &[(key, admin.borrowed())]);
        assert_corrupt(&store, id, key);
        assert_eq!(value(&inside, id, key), Some(admin.clone()), "it is kept");
        let mut undo = write(&[]);
        if id == TWO {
            undo.set.push((key.into(), guest.clone()));
        } else {
            undo.remove.push(key.into());
        }
        assert_eq!(at_once(inside.apply(id, &undo)).unwrap(), Applied::Done);
    }
    assert_eq!(
        value(&store, ONE, "role"),
        Some(Value::Text("admin".into()))
    );
    assert_eq!(
        value(&store, TWO, "role"),
        Some(Value::Text("guest".into()))
    );
}

#[test]
fn a_value_of_an_unknown_key_or_that_was_changed_or_never_encrypted_is_rejected() {
    let inside = MemoryStore::new();
    let store = Encrypted::new(inside.clone(), key(1));
    put(&store, ONE, &[("role", Value::Text("admin"))]);
    let sealed = value(&inside, ONE, "role").unwrap();
    let sealed = sealed.as_str();
    assert_corrupt(&Encrypted::new(inside.clone(), key(2)), ONE, "another key");

    let bytes = BASE64.decode(sealed).unwrap();
    let flipped = (0..8 * bytes.len()).map(|bit| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Value::Text(BASE64.encode(bytes).into_boxed_str())
    });
    let cut = (0..sealed.len()).map(|len| Value::Text(sealed[..len].into()));
    let longer = [
        format!("{sealed}AAAA"),
        format!("{sealed}="),
        format!(" {sealed}"),
    ];
    let others = longer.map(|text| Value::Text(text.into()));
    let plain = ["admin", "", "🦀", "\0"].map(|text| Value::Text(text.into()));
    let json = [sealed, "null", "\"admin\""].map(|text| Value::Json(text.into()));
    for bad in flipped.chain(cut).chain(others).chain(plain).chain(json) {
        put(&inside, ONE, &[("role", bad.borrowed())]);
        assert_corrupt(&store, ONE, bad.as_str());
        assert_eq!(value(&inside, ONE, "role"), Some(bad), "it is kept");
    }
    put(&inside, ONE, &[("role", Value::Text(sealed))]);
    assert_eq!(
        value(&store, ONE, "role"),
        Some(Value::Text("admin".into()))
    );
}

#[test]
fn an_error_and_debug_show_no_value_and_no_key() {
    let inside = MemoryStore::new();
    put(&inside, ONE, &[("address", Value::Text(ADDRESS))]);
    let store = Encrypted::new(inside, key(1)).accept(key(2));
    let error = load(&store, ONE).unwrap_err();
    let shown = format!("{error} {error:?} {store:?}");
    assert!(!shown.contains("Baker"), "{shown}");
    assert!(
        shown.ends_with("Encrypted { store: \"memory\", keys: 2 }"),
        "{shown}"
    );
}

#[test]
fn the_newest_key_encrypts_and_accepted_ones_decrypt() {
    let inside = MemoryStore::new();
    let old = Encrypted::new(inside.clone(), key(1));
    put(
        &old,
        ONE,
        &[("a", Value::Text("old")), ("b", Value::Text("old"))],
    );

    let both = Encrypted::new(inside.clone(), key(3))
        .accept(key(2))
        .accept(key(1));
    assert_eq!(value(&both, ONE, "a"), Some(Value::Text("old".into())));
    put(&both, ONE, &[("a", Value::Text("new"))]);
    assert_eq!(value(&both, ONE, "a"), Some(Value::Text("new".into())));
    assert_eq!(value(&both, ONE, "b"), Some(Value::Text("old".into())));

    let new = Encrypted::new(inside.clone(), key(3));
    assert_corrupt(&new, ONE, "`b` has the old key until it is written");
    put(&both, ONE, &[("b", Value::Text("new"))]);
    assert_eq!(value(&new, ONE, "b"), Some(Value::Text("new".into())));
    assert_corrupt(&old, ONE, "the old key opens what the new one wrote");
}

#[test]
fn a_renewed_record_keeps_its_values() {
    let store = Encrypted::new(MemoryStore::new(), key(1));
    put(&store, ONE, &[("address", Value::Text(ADDRESS))]);
    let mut renewal = write(&[("user", Value::Text("sherlock"))]);
    renewal.new_verifier = Some(SECOND);
    assert_eq!(at_once(store.apply(ONE, &renewal)).unwrap(), Applied::Done);
    assert_eq!(
        value(&store, ONE, "address"),
        Some(Value::Text(ADDRESS.into()))
    );
    let record = load(&store, ONE).unwrap().unwrap();
    assert_eq!((record.verifier, record.version), (SECOND, 2));
}

#[test]
fn a_users_list_shows_notes_and_leaves_out_those_that_are_rejected() {
    let inside = MemoryStore::new();
    let (store, other) = (
        Encrypted::new(inside.clone(), key(1)),
        Encrypted::new(inside.clone(), key(2)),
    );
    let mut noted = write(&[(SessionSummary::NOTE, Value::Text("laptop"))]);
    noted.user = Some("ada".into());
    assert!(at_once(store.create(ONE, &noted)).unwrap());
    assert!(at_once(other.create(TWO, &noted)).unwrap());
    let noted = Some("laptop".to_owned());
    assert_eq!(notes(&store, "ada"), [(ONE, noted.clone()), (TWO, None)]);
    assert_eq!(
        notes(&store.clone().accept(key(2)), "ada"),
        [(ONE, noted.clone()), (TWO, noted)]
    );
    let index = store.users().unwrap();
    assert_eq!(at_once(index.destroy_of("ada", &[ONE, TWO])).unwrap(), 2);
}

/// The notes of a user's sessions.
fn notes<S: Store>(store: &S, user: &str) -> Vec<(StoreId, Option<String>)> {
    let page = at_once(store.users().unwrap().sessions_of(user, &[], now())).unwrap();
    let summaries = page.items.into_iter();
    let mut notes: Vec<_> = summaries
        .map(|session| (session.id, session.note))
        .collect();
    notes.sort_unstable();
    notes
}

fn builder(store: &MemoryStore) -> Builder {
    Manager::builder(ServerSide::new(Encrypted::new(store.clone(), key(1))))
}

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn a_session_with_a_copied_value_opens_as_empty_and_stays_in_the_store(web: Web) {
    let inside = MemoryStore::new();
    let server = serve(web, builder(&inside));
    let (thief, victim) = (server.visitor(), server.visitor());
    thief.body("/run/add.role.guest,user.thief");
    victim.body("/run/add.role.admin,user.victim");
    let id = |user: &str| notes(&inside, user)[0].0;
    let (from, to) = (id("victim"), id("thief"));
    let mut theft = write(&[("role", value(&inside, from, "role").unwrap().borrowed())]);
    theft.verifier = load(&inside, to).unwrap().unwrap().verifier;
    assert_eq!(at_once(inside.apply(to, &theft)).unwrap(), Applied::Done);

    let log = Log::of_process();
    assert_eq!(thief.body("/run/get.role,len"), "none,0");
    let said = log.lines("is not encrypted for this session and key");
    assert!(!said.is_empty());
    assert_eq!(victim.body("/run/get.role"), "admin");
    // Writing begins another session, and leaves the rejected one as it is.
    assert_eq!(thief.body("/run/add.role.guest,get.role"), "null,guest");
    let kept = load(&inside, to).unwrap().unwrap();
    assert_eq!(kept.entries.get("role"), theft.set[0].1.borrowed().into());
}

fn a_session_survives_renewals_and_a_change_of_keys(web: Web) {
    let inside = MemoryStore::new();
    let server = serve(web, builder(&inside));
    let visitor = server.visitor();
    visitor.body("/run/add.address.London,count.visits,flash.hello");
    assert_eq!(
        visitor.body("/run/renew,count.visits,get.address"),
        "done,2,London"
    );
    assert_eq!(
        visitor.body("/run/renew,get.visits,flashes"),
        "done,2,hello"
    );

    let rotated = Encrypted::new(inside, key(2)).accept(key(1));
    let next = serve(web, Manager::builder(ServerSide::new(rotated)));
    let visitor = visitor.at(next.address);
    assert_eq!(visitor.body("/run/count.visits,get.address"), "3,London");
    assert_eq!(visitor.body("/run/get.visits"), "3");
}

fn sessions_that_were_not_encrypted_migrate_and_nobody_is_logged_out(web: Web) {
    let plain = MemoryStore::new();
    let olds: [fn(&MemoryStore) -> Builder; 2] = [
        |plain| Manager::builder(ServerSide::new(plain.clone())),
        |_| Manager::builder(SignedCookie::new(key(9))),
    ];
    for old in olds {
        let old = || old(&plain).build().unwrap();
        let server = Server::scripts(web, old().middleware());
        let visitor = server.visitor();
        visitor.body("/run/add.name.ada");
        let inside = MemoryStore::new();
        let server = serve(web, builder(&inside).migrate_from(old()));
        let visitor = visitor.at(server.address);
        assert_eq!(visitor.body("/run/get.name"), "ada");
        assert_eq!(
            visitor.body("/run/add.more.1,user.ada,get.name"),
            "null,null,ada"
        );
        assert_eq!(visitor.body("/run/get.name,get.more"), "ada,1");
        let id = notes(&inside, "ada")[0].0;
        assert_ne!(value(&inside, id, "name"), Some(Value::Text("ada".into())));
    }
}

on_every_framework!(
    a_session_with_a_copied_value_opens_as_empty_and_stays_in_the_store,
    a_session_survives_renewals_and_a_change_of_keys,
    sessions_that_were_not_encrypted_migrate_and_nobody_is_logged_out,
);

#[tokio::test]
async fn the_contract_of_a_store_is_kept_over_memory() {
    check_store(Encrypted::new(MemoryStore::new(), key(1))).await;
}

fn on_memory(web: Web, behaviour: fn(Web, &Encrypted<MemoryStore>)) {
    behaviour(web, &Encrypted::new(MemoryStore::new(), key(1)));
}

store_tests!(memory, on_memory: promises, users, revocations, advisories);

/// Checks the contract over a store on a real server.
macro_rules! contract_over {
    ($test:ident, $feature:literal, $store:ident, $variable:literal) => {
        #[cfg(feature = $feature)]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs servers: tests/run.sh"]
        async fn $test() {
            let url = std::env::var($variable);
            let url = url.expect(concat!($variable, " is not set: run tests/run.sh"));
            let store = session_manager::$store::connect(&url).await.unwrap();
            check_store(Encrypted::new(store, key(1))).await;
        }
    };
}

contract_over!(
    the_contract_is_kept_over_redis,
    "redis",
    RedisStore,
    "SESSION_TEST_REDIS"
);
contract_over!(
    the_contract_is_kept_over_a_cluster,
    "redis",
    RedisStore,
    "SESSION_TEST_REDIS_CLUSTER"
);
contract_over!(
    the_contract_is_kept_over_postgres,
    "postgres",
    PostgresStore,
    "SESSION_TEST_POSTGRES"
);
contract_over!(
    the_contract_is_kept_over_mariadb,
    "mysql",
    MySqlStore,
    "SESSION_TEST_MYSQL"
);

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_over_sqlite() {
    let dir =
        std::env::temp_dir().join(format!("session-manager-encrypted-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sessions.db");
    let store = session_manager::SqliteStore::connect(path.to_str().unwrap()).await;
    check_store(Encrypted::new(store.unwrap(), key(1))).await;
    // Its pool closes in the background, and Windows removes no file that is open.
    let _ = std::fs::remove_dir_all(dir);
}
