//! What holds for whatever is done, in whichever order: operations, requests and keys at random,
//! against models that are simpler than what they check.
//!
//! Each property is tried with as many cases as `PROPTEST_CASES` says, 256 by default; those that
//! send many requests with a part of them.

mod common;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use common::{
    Answer, App, Clock, Page, Web, all_backends, backends, block_on, key_of, on_every_framework,
    schedule::{Fault, Ready, Stepwise, poll},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select, subsequence},
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use session_manager::{
    Builder, Error, Key, Manager, MemoryStore, Message, PrivateCookie, ServerSide, Session,
    SignedCookie,
};
use tokio::sync::Notify;

/// Tries one in `share` of the cases that are asked for.
fn check<S: Strategy>(share: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config::default();
    let cases = (config.cases / share).max(1);
    let mut runner = TestRunner::new(Config {
        cases,
        // Every run begins with the seeds that failed before; commit what it adds.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/properties.seeds",
        ))),
        ..config
    });
    let result = runner.run(&strategy, |input| {
        test(input);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(String, Json),
    /// Adds so many keys, so that the memory store keeps them in its other form.
    Fill(usize),
    Get(String),
    Pop(String),
    Load(String),
    PopLoad(String),
    Update(String, i64),
    Contains(String),
    Keys,
    Len,
    Flash(String, bool),
    Flashes,
    Clear,
    Renew,
    Destroy,
    Save,
    User(String),
}

/// A session as a plain map.
#[derive(Clone, Debug, Default, PartialEq)]
struct Map {
    values: BTreeMap<String, Json>,
    flashes: Vec<Message>,
    user: Option<String>,
}

/// A client's session: as it was kept, and as the request at hand made it.
#[derive(Clone, Debug, Default)]
struct Model {
    kept: Map,
    now: Map,
    destroyed: bool,
    is_server_side: bool,
}

const TOO_LARGE: &str = "too large";
/// A session of so many bytes fits into every cookie, whatever its lengths and attributes take.
const SMALL: usize = 2_500;

impl Map {
    /// How many bytes the session takes, at least.
    fn bytes(&self) -> usize {
        let text = |json: &Json| match json {
            Json::String(text) => text.len(),
            json => json.to_string().len(),
        };
        let values = self
            .values
            .iter()
            .map(|(key, value)| key.len() + text(value));
        // Each flash message has a key of 20 bytes, and its kind and marks take about 20 more.
        let flashes = self.flashes.iter().map(|flash| flash.text.len() * 6 + 40);
        // Each entry has two lengths.
        values.map(|bytes| bytes + 4).chain(flashes).sum()
    }
}

impl Model {
    /// A write may be refused if the session would be large then, and nothing else may.
    fn assert_too_large(&self, op: &Op) {
        assert!(!self.is_server_side, "{op:?}");
        let mut after = self.clone();
        let _ = op.on_model(&mut after);
        let bytes = after.now.bytes();
        assert!(bytes > SMALL, "{op:?} was refused with {bytes} bytes");
    }
}

fn shown<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(Error::TooLarge { size, limit, .. }) if size > limit => TOO_LARGE.into(),
        Err(Error::WrongType { .. }) => "wrong type".into(),
        Err(Error::ReservedKey) => "reserved".into(),
        Err(Error::NoUserIndex { .. }) => "no index".into(),
        Err(error) => panic!("{error}"),
    }
}

fn message(text: &str, is_html: bool) -> Message {
    if is_html {
        Message::trusted_html("html", text)
    } else {
        Message::error(text)
    }
}

fn is_reserved(key: &str) -> bool {
    key.starts_with(['\u{1}', '\u{2}']) || key.contains('\0')
}

impl Op {
    /// Does it to a session, and says what came of it.
    async fn on_session(&self, session: &Session) -> String {
        match self {
            Self::Add(key, value) => shown(session.add(key, value)),
            Self::Fill(count) => {
                let mut each = (0..*count).map(|n| session.add(&format!("fill{n}"), n));
                shown(each.find(Result::is_err).unwrap_or(Ok(())))
            }
            Self::Get(key) => format!("{:?}", session.get(key)),
            Self::Pop(key) => format!("{:?}", session.pop(key)),
            Self::Load(key) => {
                let text = shown(session.load::<String>(key));
                shown(session.load::<Vec<i64>>(key)) + &text
            }
            Self::PopLoad(key) => shown(session.pop_load::<i64>(key)),
            Self::Update(key, by) => {
                let by = *by;
                shown(session.update(key, move |n: Option<i64>| n.unwrap_or(0).wrapping_add(by)))
            }
            Self::Contains(key) => session.contains_key(key).to_string(),
            Self::Keys => format!("{:?}", session.keys()),
            Self::Len => format!("{} {}", session.len(), session.is_empty()),
            Self::Flash(text, is_html) => shown(session.flash(message(text, *is_html))),
            Self::Flashes => format!("{:?}", session.flashes()),
            Self::Clear => format!("{:?}", session.clear()),
            Self::Renew => format!("{:?}", session.renew()),
            Self::Destroy => format!("{:?}", session.destroy()),
            Self::Save => shown(session.save().await),
            Self::User(user) => shown(session.set_user(user)),
        }
    }

    /// Does it to the model, and says the same.
    fn on_model(&self, model: &mut Model) -> String {
        let map = &mut model.now;
        match self {
            Self::Add(key, _) | Self::Update(key, _) if is_reserved(key) => "reserved".into(),
            Self::Add(key, value) => {
                map.values.insert(key.clone(), value.clone());
                shown(Ok(()))
            }
            Self::Fill(count) => {
                let each = (0..*count).map(|n| (format!("fill{n}"), n.into()));
                map.values.extend(each);
                shown(Ok(()))
            }
            Self::Get(key) => format!("{:?}", map.values.get(key).map(text)),
            Self::Pop(key) => format!("{:?}", map.values.remove(key).as_ref().map(text)),
            Self::Load(key) => map.load::<Vec<i64>>(key).1 + &map.load::<String>(key).1,
            Self::PopLoad(key) => {
                let (value, shown) = map.load::<i64>(key);
                if value.is_some() {
                    map.values.remove(key);
                }
                shown
            }
            Self::Update(key, by) => match map.load::<i64>(key) {
                (None, shown) if shown != "None" => shown,
                (value, _) => {
                    let next = value.unwrap_or(0).wrapping_add(*by);
                    map.values.insert(key.clone(), next.into());
                    shown(Ok(next))
                }
            },
            Self::Contains(key) => map.values.contains_key(key).to_string(),
            Self::Keys => format!("{:?}", map.values.keys().collect::<Vec<_>>()),
            Self::Len => format!("{} {}", map.values.len(), map.values.is_empty()),
            Self::Flash(text, is_html) => {
                map.flashes.push(message(text, *is_html));
                shown(Ok(()))
            }
            Self::Flashes => format!("{:?}", std::mem::take(&mut map.flashes)),
            Self::Clear => {
                map.values.clear();
                format!("{:?}", map.flashes.clear())
            }
            Self::Renew => format!("{:?}", ()),
            Self::Destroy => {
                model.destroyed = true;
                format!("{:?}", *map = Map::default())
            }
            Self::Save => {
                if model.is_server_side {
                    model.kept = map.clone();
                    model.destroyed = false;
                }
                shown(Ok(()))
            }
            Self::User(_) if !model.is_server_side => "no index".into(),
            Self::User(user) => {
                map.user = Some(user.clone());
                shown(Ok(()))
            }
        }
    }
}

/// A string as it is, anything else as JSON.
fn text(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl Map {
    /// A string whose content is JSON also reads as what that says.
    fn load<T: DeserializeOwned + std::fmt::Debug>(&self, key: &str) -> (Option<T>, String) {
        let Some(value) = self.values.get(key) else {
            return (None, "None".into());
        };
        let read = serde_json::from_value(value.clone())
            .ok()
            .or_else(|| serde_json::from_str(value.as_str()?).ok());
        let shown =
            (read.as_ref()).map_or("wrong type".into(), |value: &T| format!("Some({value:?})"));
        (read, shown)
    }
}

/// What one request does, and how it ends.
#[derive(Clone, Debug)]
struct Visit {
    ops: Vec<Op>,
    status: u16,
    is_error: bool,
    minutes_before: u64,
}

impl Visit {
    fn of(ops: impl Into<Vec<Op>>) -> Self {
        Self {
            ops: ops.into(),
            status: 200,
            is_error: false,
            minutes_before: 0,
        }
    }

    fn on_model(&self, seen: &[String], model: &mut Model) {
        model.now = model.kept.clone();
        model.destroyed = false;
        for (op, seen) in self.ops.iter().zip(seen) {
            // What is refused changes nothing.
            if seen == TOO_LARGE {
                model.assert_too_large(op);
            } else {
                assert_eq!(seen, &op.on_model(model), "{op:?}");
            }
        }
        if self.status < 500 {
            model.kept = model.now.clone();
        } else if model.destroyed {
            model.kept = Map::default();
        }
    }
}

/// The cookies that a client has, as a `Cookie` header.
#[derive(Clone, Default)]
struct Jar(String);

impl Jar {
    fn take(&mut self, answer: &Answer) {
        let pairs = self.0.split("; ").filter_map(|pair| pair.split_once('='));
        let mut cookies: BTreeMap<_, _> = pairs.collect();
        for line in answer.all("set-cookie") {
            let pair = line.split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.remove(name);
            if !value.is_empty() {
                cookies.insert(name, value);
            }
        }
        let pairs = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        self.0 = pairs.collect::<Vec<_>>().join("; ");
    }
}

type Answering = Pin<Box<dyn Future<Output = Answer>>>;
type Seen = Arc<Mutex<Vec<String>>>;

/// A request to an application that does what a visit says, and what it sees.
fn request(web: Web, manager: &Manager, jar: &Jar, visit: &Visit) -> (Seen, Answering) {
    let seen = Seen::default();
    let (visit, shared) = (visit.clone(), Arc::clone(&seen));
    let app = App::new().get("/visit", move |session, _| {
        let (visit, seen) = (visit.clone(), Arc::clone(&shared));
        async move {
            for op in &visit.ops {
                let answer = op.on_session(&session).await;
                seen.lock().unwrap().push(answer);
            }
            Ok(Page {
                status: visit.status,
                is_error: visit.is_error,
                ..Page::from("")
            })
        }
    });
    let (app, jar) = (app.wrap(manager.middleware()), jar.clone());
    let answer = async move { app.call_with(web, "/visit", &jar.0).await };
    (seen, Box::pin(answer))
}

/// What a visit saw, and how it ended.
async fn send(web: Web, manager: &Manager, jar: &mut Jar, visit: &Visit) -> (Vec<String>, Answer) {
    let (seen, answer) = request(web, manager, jar, visit);
    let answer = answer.await;
    assert_eq!(answer.status, visit.status);
    jar.take(&answer);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, answer)
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => select(vec!["a", "b", "c", "", "a.b", "é%\"\\", "fill3"]).prop_map(str::to_owned),
        1 => select(vec!["\u{1}a", "\u{2}note", "nul\0"]).prop_map(str::to_owned),
        1 => ".{0,20}".prop_map(|key| key),
    ]
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        3 => any::<i64>().prop_map(Json::from),
        3 => "[0-9\\[\\]]{0,3}".prop_map(Json::from),
        4 => ".{0,20}".prop_map(Json::from),
        1 => any::<f64>().prop_map(Json::from),
        1 => any::<bool>().prop_map(Json::from),
        1 => Just(Json::Null),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            vec(any::<i64>().prop_map(Json::from), 0..4).prop_map(Json::from),
            vec((".{0,4}", inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), json()).prop_map(|(key, value)| Op::Add(key, value)),
        1 => (30..60_usize).prop_map(Op::Fill),
        3 => key().prop_map(Op::Get),
        3 => key().prop_map(Op::Pop),
        2 => key().prop_map(Op::Load),
        2 => key().prop_map(Op::PopLoad),
        4 => (key(), any::<i64>()).prop_map(|(key, by)| Op::Update(key, by)),
        1 => key().prop_map(Op::Contains),
        1 => Just(Op::Keys),
        1 => Just(Op::Len),
        3 => (".{0,20}", any::<bool>()).prop_map(|(text, is_html)| Op::Flash(text, is_html)),
        2 => Just(Op::Flashes),
        1 => Just(Op::Clear),
        1 => Just(Op::Renew),
        1 => Just(Op::Destroy),
        2 => Just(Op::Save),
    ]
}

fn visit() -> impl Strategy<Value = Visit> {
    let statuses = select(vec![200, 200, 303, 404, 500, 503]);
    (vec(op(), 0..8), statuses, any::<bool>(), 0..120_u64).prop_map(
        |(ops, status, is_error, minutes_before)| Visit {
            ops,
            status,
            is_error: is_error && status >= 500,
            minutes_before,
        },
    )
}

async fn follow(web: Web, builder: Builder, is_server_side: bool, visits: &[Visit]) {
    let clock = Clock::default();
    let manager = builder.clock(clock.now()).build().unwrap();
    let mut model = Model {
        is_server_side,
        ..Model::default()
    };
    let mut jar = Jar::default();
    let last = Visit::of([Op::Keys, Op::Flashes]);
    for visit in visits.iter().chain([&last]) {
        clock.forward(Duration::from_secs(60 * visit.minutes_before));
        let (seen, _) = send(web, &manager, &mut jar, visit).await;
        assert_eq!(seen.len(), visit.ops.len());
        visit.on_model(&seen, &mut model);
    }
}

fn any_operations_give_the_same_session_as_on_a_map(web: Web) {
    check(2, vec(visit(), 1..6), |visits| {
        for (backend, builder) in all_backends() {
            block_on(follow(web, builder(), backend == "memory", &visits));
        }
    });
}

/// What happens around a visit.
#[derive(Clone, Debug)]
struct Around {
    /// Whether the session's time ends before.
    is_late: bool,
    /// Which step of the request fails, if it is a call of the store, and how.
    fault: Option<(usize, Fault)>,
}

fn around() -> impl Strategy<Value = Around> {
    let fault = (0..8_usize, select(vec![Fault::Refuses, Fault::AnswersLate]));
    let fault = prop_oneof![2 => Just(None), 1 => fault.prop_map(Some)];
    (prop::bool::weighted(0.1), fault).prop_map(|(is_late, fault)| Around { is_late, fault })
}

/// A visit to sessions that have users.
fn visit_of_a_user() -> impl Strategy<Value = Visit> {
    let user = select(vec!["ada", "eve"]).prop_map(|user| Op::User(user.to_owned()));
    (visit(), prop::option::weighted(0.3, user), any::<Index>()).prop_map(
        |(mut visit, user, at)| {
            visit.ops.retain(|op| !matches!(op, Op::Save));
            if let Some(user) = user {
                visit.ops.insert(at.index(visit.ops.len() + 1), user);
            }
            visit
        },
    )
}

/// Runs a future whose steps nothing disturbs.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
    }
}

/// Polls to the end; returns also whether the store failed at the step that `fault` names.
fn disturb(mut answer: Answering, fault: Option<(usize, Fault)>) -> (Answer, bool) {
    let (ready, mut met) = (Ready::new(), false);
    for step in 0.. {
        let fault = fault.filter(|(at, _)| *at == step).map(|(_, fault)| fault);
        let (polled, met_now) = ready.poll(answer.as_mut(), fault);
        met |= met_now;
        if let Poll::Ready(answer) = polled {
            return (answer, met);
        }
    }
    unreachable!("it has an end")
}

/// Sessions of one client, at first with the manager `old` and then with one that migrates from it.
fn follow_disturbed(
    web: Web,
    (old, is_server_side): (Builder, bool),
    new: Builder,
    visits: &[(Visit, Around)],
    migrates_at: usize,
) {
    let clock = Clock::default();
    let old = old.clock(clock.now()).build().unwrap();
    let new = new
        .clock(clock.now())
        .migrate_from(old.clone())
        .build()
        .unwrap();
    let mut model = Model {
        is_server_side,
        ..Model::default()
    };
    let (mut jar, mut has_failed) = (Jar::default(), false);
    for (number, (visit, around)) in visits.iter().enumerate() {
        model.is_server_side |= number >= migrates_at;
        let manager = if number < migrates_at { &old } else { &new };
        clock.forward(Duration::from_secs(60 * visit.minutes_before));
        if around.is_late {
            clock.forward(Duration::from_secs(26 * 60 * 60));
            model.kept = Map::default();
        }
        let before = model.kept.clone();
        let (seen, answer) = request(web, manager, &jar, visit);
        let (answer, met) = disturb(answer, around.fault);
        jar.take(&answer);
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        if seen.len() == visit.ops.len() {
            visit.on_model(&seen, &mut model);
        } else {
            assert!(met && seen.is_empty(), "{seen:?}");
        }
        assert!(
            answer.status == visit.status || met && answer.status == 503,
            "{answer:?}"
        );
        has_failed |= met;
        if met {
            // It was kept whole or not at all. A client that was not told of a new id has lost it.
            let after = model.kept.clone();
            let mut all = vec![after];
            if answer.status >= 500 {
                let loses = |op: &Op| matches!(op, Op::Renew | Op::Destroy);
                if visit.ops.iter().any(loses) || before == Map::default() {
                    all.push(Map::default());
                }
                all.push(before);
            }
            let found = finish(look(web, manager, &mut jar));
            let is_found = |map: &&Map| {
                let mut flashes = map.flashes.clone();
                flashes.sort_by(|a, b| a.text.cmp(&b.text));
                // As it is read: of a number with a point the last digit may differ.
                let read = |json: &Json| serde_json::from_str(&json.to_string()).unwrap();
                let values = map
                    .values
                    .iter()
                    .map(|(key, json)| (key.clone(), read(json)));
                found.values == values.collect() && flashes == found.flashes
            };
            let kept = all.iter().find(is_found);
            let kept = kept.unwrap_or_else(|| panic!("{found:?} is none of {all:?}"));
            model.kept = kept.clone();
            model.kept.flashes.clear();
            if model.kept.values.is_empty() {
                // It may be there under an id that the client was not told.
                (jar, model.kept) = (Jar::default(), Map::default());
            }
        }
    }
    model.is_server_side = true;
    let last = Visit::of([Op::Keys, Op::Flashes]);
    let (seen, answer) = request(web, &new, &jar, &last);
    jar.take(&finish(answer));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    last.on_model(&seen, &mut model);
    // One that has nothing but a user need not be kept.
    if !has_failed && is_server_side && !model.kept.values.is_empty() {
        for user in ["ada", "eve"] {
            let listed = finish(new.user_sessions(user)).unwrap();
            let is_users = model.kept.user.as_deref() == Some(user);
            assert_eq!(listed.len(), usize::from(is_users), "{user}: {model:?}");
        }
    }
}

/// The store fails, the session's time ends, it is opened on demand, and it migrates.
fn any_disturbed_operations_give_the_same_session_as_on_a_map(web: Web) {
    let visits = vec((visit_of_a_user(), around()), 1..7);
    check(
        1,
        (visits, any::<Index>(), any::<bool>()),
        |(visits, at, on_demand)| {
            let memory = || Manager::builder(ServerSide::new(Stepwise::default()));
            let olds = [
                (backends()[0].1().cookie_name("old"), false),
                (backends()[1].1().cookie_name("old"), false),
                (memory().cookie_name("old"), true),
            ];
            for old in olds {
                let new = if on_demand {
                    memory().load_on_demand()
                } else {
                    memory()
                };
                let at = at.index(visits.len() + 1);
                block_on(async { follow_disturbed(web, old, new, &visits, at) });
            }
        },
    );
}

#[cfg(feature = "sqlite")]
#[test]
fn any_operations_give_the_same_session_in_sqlite_as_on_a_map() {
    check(2, vec(visit(), 1..6), |visits| {
        block_on(async {
            let store = session_manager::SqliteStore::connect(":memory:").await;
            let builder = Manager::builder(ServerSide::new(store.unwrap()));
            follow(Web::Axum, builder, true, &visits).await;
        });
    });
}

fn every_added_value_reads_back_equal(web: Web) {
    let entries = vec((".{0,8}", json()), 0..120);
    check(4, entries, |entries| {
        for (_, builder) in all_backends() {
            let manager = builder().build().unwrap();
            block_on(async {
                let (mut jar, mut map) = (Jar::default(), Map::default());
                let adds = entries
                    .iter()
                    .map(|(key, value)| Op::Add(key.clone(), value.clone()));
                let (seen, _) = send(
                    web,
                    &manager,
                    &mut jar,
                    &Visit::of(adds.collect::<Vec<_>>()),
                )
                .await;
                for ((key, value), seen) in entries.iter().zip(seen) {
                    let before = map.clone();
                    map.values.insert(key.clone(), value.clone());
                    match &*seen {
                        "()" => continue,
                        "reserved" => assert!(is_reserved(key), "{key:?}"),
                        seen => {
                            assert_eq!(seen, TOO_LARGE);
                            assert!(map.bytes() > SMALL, "{} bytes", map.bytes());
                        }
                    }
                    map = before;
                }
                let gets: Vec<_> = map
                    .values
                    .keys()
                    .cloned()
                    .map(Op::Get)
                    .chain([Op::Len])
                    .collect();
                let visit = Visit::of(gets);
                let (seen, _) = send(web, &manager, &mut jar, &visit).await;
                let mut model = Model {
                    kept: map,
                    ..Model::default()
                };
                visit.on_model(&seen, &mut model);
            });
        }
    });
}

/// A request whose session is open, and that goes on when it is told to.
struct Held {
    answer: Pin<Box<dyn Future<Output = Answer>>>,
    go: Arc<Notify>,
}

impl Held {
    async fn begin(web: Web, manager: &Manager, jar: &Jar, ops: &[Op]) -> Self {
        let (inside, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (telling, waiting, ops) = (Arc::clone(&inside), Arc::clone(&go), ops.to_vec());
        let app = App::new().get("/held", move |session, _| {
            let (inside, go) = (Arc::clone(&telling), Arc::clone(&waiting));
            let ops = ops.clone();
            async move {
                inside.notify_one();
                go.notified().await;
                for op in &ops {
                    op.on_session(&session).await;
                }
                Ok("")
            }
        });
        let (app, jar) = (app.wrap(manager.middleware()), jar.clone());
        let mut answer: Pin<Box<dyn Future<Output = Answer>>> =
            Box::pin(async move { app.call_with(web, "/held", &jar.0).await });
        tokio::select! {
            answer = &mut answer => panic!("it did not wait: {answer:?}"),
            () = inside.notified() => {}
        }
        Self { answer, go }
    }

    async fn end(self, jar: &mut Jar) {
        self.go.notify_one();
        let answer = self.answer.await;
        assert_eq!(answer.status, 200);
        jar.take(&answer);
    }
}

/// Two requests, both open before either commits; what a client that has the cookies of both sees
/// next.
async fn overlap(web: Web, before: &[Op], first: &[Op], second: &[Op]) -> Map {
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let mut jar = Jar::default();
    send(web, &manager, &mut jar, &Visit::of(before)).await;
    let late = Held::begin(web, &manager, &jar, second).await;
    let early = Held::begin(web, &manager, &jar, first).await;
    early.end(&mut jar).await;
    late.end(&mut jar).await;
    look(web, &manager, &mut jar).await
}

/// What a client with these cookies sees next.
async fn look(web: Web, manager: &Manager, jar: &mut Jar) -> Map {
    let after = Arc::new(Mutex::new(Map::default()));
    let shared = Arc::clone(&after);
    let app = App::new().get("/look", move |session: Session, _| {
        let after = Arc::clone(&shared);
        async move {
            let mut after = after.lock().unwrap();
            for key in session.keys() {
                let value = session.load(&key)?.unwrap();
                after.values.insert(key, value);
            }
            after.flashes = session.flashes();
            Ok("")
        }
    });
    let answer = app
        .wrap(manager.middleware())
        .call_with(web, "/look", &jar.0)
        .await;
    assert_eq!(answer.status, 200);
    // Messages are taken, and the client has that from its cookie alone if they are in it.
    jar.take(&answer);
    let mut after = after.lock().unwrap().clone();
    // Two that were left in one millisecond are ordered by chance.
    after.flashes.sort_by(|a, b| a.text.cmp(&b.text));
    after
}

/// Operations each of which changes something whatever was there: their values are all different.
fn blind_ops(from: i64) -> impl Strategy<Value = Vec<Op>> {
    let number = || select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let op = prop_oneof![
        4 => number().prop_map(|key| Op::Add(key, Json::Null)),
        4 => number().prop_map(|key| Op::Update(key, 1)),
        2 => Just(Op::Flash(String::new(), false)),
        1 => Just(Op::Clear),
        1 => Just(Op::Renew),
        1 => Just(Op::Destroy),
    ];
    vec(op, 0..5).prop_map(move |ops| {
        let numbered = ops.into_iter().zip(from..);
        let with_value = numbered.map(|(op, number)| match op {
            Op::Add(key, _) => Op::Add(key, number.into()),
            Op::Flash(..) => Op::Flash(number.to_string(), false),
            op => op,
        });
        with_value.collect()
    })
}

fn two_overlapping_requests_equal_one_after_the_other(web: Web) {
    let before = vec![Op::Add("a".into(), 1.into()), Op::Add("d".into(), 2.into())];
    check(
        1,
        (blind_ops(1_000), blind_ops(2_000)),
        |(first, second)| {
            let has = |ops: &[Op], wanted: fn(&Op) -> bool| ops.iter().any(wanted);
            let ends = |ops: &[Op]| has(ops, |op| matches!(op, Op::Destroy));
            let renews = has(&first, |op| matches!(op, Op::Renew));
            // What was ended or renewed meanwhile is nobody's to write to, but the new id can be ended.
            let is_dropped = (ends(&first) || renews) && !ends(&second);
            let mut model = Model::default();
            for op in before
                .iter()
                .chain(&first)
                .chain(second.iter().filter(|_| !is_dropped))
            {
                op.on_model(&mut model);
            }
            model.now.flashes.sort_by(|a, b| a.text.cmp(&b.text));
            assert_eq!(block_on(overlap(web, &before, &first, &second)), model.now);
        },
    );
}

/// Every order of both in which each keeps its own.
fn orders(a: &[Op], b: &[Op]) -> Vec<Vec<Op>> {
    let after = |first: &Op, rest: Vec<Vec<Op>>| -> Vec<Vec<Op>> {
        let begun = |mut order: Vec<Op>| {
            order.insert(0, first.clone());
            order
        };
        rest.into_iter().map(begun).collect()
    };
    match (a.split_first(), b.split_first()) {
        (None, _) => vec![b.to_vec()],
        (_, None) => vec![a.to_vec()],
        (Some((first_a, rest_a)), Some((first_b, rest_b))) => {
            let mut all = after(first_a, orders(rest_a, b));
            all.extend(after(first_b, orders(a, rest_b)));
            all
        }
    }
}

/// Key by key, as the merge is: a request that finds a key as it wants it does not write it, so that
/// of two keys one may be as if it came first and the other as if it came last.
fn after_two_requests_each_key_equals_some_order_of_writes(web: Web) {
    let key = || select(vec!["a", "b"]).prop_map(str::to_owned);
    let value = || (1..3_i64).prop_map(Json::from);
    let op = || {
        prop_oneof![
            3 => (key(), value()).prop_map(|(key, value)| Op::Add(key, value)),
            3 => key().prop_map(Op::Pop),
            2 => key().prop_map(Op::PopLoad),
            3 => (key(), 0..3_i64).prop_map(|(key, by)| Op::Update(key, by)),
            1 => Just(Op::Clear),
        ]
    };
    let before = (value(), any::<bool>()).prop_map(|(value, has_b)| {
        let keys = ["seed", "a", "b"]
            .into_iter()
            .take(if has_b { 3 } else { 2 });
        keys.map(|key| Op::Add(key.into(), value.clone()))
            .collect::<Vec<_>>()
    });
    let all = (before, vec(op(), 0..4), vec(op(), 0..4));
    check(1, all, |(before, first, second)| {
        let after = block_on(overlap(web, &before, &first, &second)).values;
        let explained: Vec<_> = orders(&first, &second)
            .into_iter()
            .map(|order| {
                let mut model = Model::default();
                for op in before.iter().chain(&order) {
                    op.on_model(&mut model);
                }
                model.now.values
            })
            .collect();
        for key in ["seed", "a", "b"] {
            let is_explained = explained
                .iter()
                .any(|values| values.get(key) == after.get(key));
            assert!(is_explained, "{key}: {after:?}");
        }
    });
}

/// What is sent is as long as `size` said, and what is refused would have been longer than a browser
/// takes.
fn a_cookie_may_fill_the_browser_limit_and_never_exceeds_it(web: Web) {
    let content = vec((".{0,40}", ".{0,400}", 0..3_u32), 1..30);
    let cookie = ("[a-z]{1,60}", "/[a-z]{0,60}", 1..1_000_u64, any::<bool>());
    check(
        2,
        (content, cookie),
        |(content, (name, path, days, persistent))| {
            for (_, builder) in backends() {
                let lasts = Duration::from_secs(days * 24 * 60 * 60);
                let builder = builder()
                    .cookie_name(&name)
                    .cookie_path(&path)
                    .persistent(persistent);
                let builder = builder
                    .secure(true)
                    .idle_timeout(lasts)
                    .absolute_timeout(lasts);
                let manager = builder.clock(Clock::default().now()).build().unwrap();
                let content = content.clone();
                let app = App::new().get("/fill", move |session: Session, _| {
                    let content = content.clone();
                    async move {
                        for (key, value, doublings) in content {
                            let before = session.size().unwrap();
                            match session.add(&key, value.repeat(1 << doublings)) {
                                Err(Error::TooLarge { size, limit, .. }) => {
                                    assert!(size > 4096 && limit == 4096, "{size}");
                                    assert_eq!(session.size(), Some(before));
                                }
                                Err(Error::ReservedKey) => assert!(is_reserved(&key)),
                                other => other?,
                            }
                        }
                        Ok(session.size().unwrap().used.to_string())
                    }
                });
                let app = app.wrap(manager.middleware());
                let answer = block_on(app.call_with(web, "/fill", ""));
                let said: usize = answer.body.parse().unwrap();
                let sent = answer.set_cookie().map_or(0, str::len);
                assert!(said <= 4096);
                // Room is kept for the most digits that a `Max-Age` can have.
                let digits = lasts.as_secs().min(34_560_000).to_string().len();
                let spare = if persistent && sent > 0 {
                    8 - digits
                } else {
                    0
                };
                assert_eq!(sent, said - spare);
            }
        },
    );
}

fn any_key_list_opens_old_cookies_and_signs_with_the_newest(web: Web) {
    fn key(number: usize) -> Key {
        key_of([number as u8; 32])
    }
    fn signed(keys: &[usize]) -> Manager {
        let backend = SignedCookie::new(key(keys[0]));
        Manager::new(
            keys[1..]
                .iter()
                .fold(backend, |backend, old| backend.accept(key(*old))),
        )
    }
    fn private(keys: &[usize]) -> Manager {
        let backend = PrivateCookie::new(key(keys[0]));
        Manager::new(
            keys[1..]
                .iter()
                .fold(backend, |backend, old| backend.accept(key(*old))),
        )
    }
    let keys = || subsequence((0..6).collect::<Vec<usize>>(), 1..=5).prop_shuffle();
    check(2, (keys(), any::<Index>()), |(keys, signer)| {
        let signer = signer.index(6);
        for backend in [signed, private] {
            let opens = async |keys: &[usize], jar: &Jar| {
                let visit = Visit::of([Op::Get("a".into())]);
                let (seen, answer) = send(web, &backend(keys), &mut jar.clone(), &visit).await;
                assert_eq!(answer.set_cookie(), None);
                seen == [r#"Some("b")"#]
            };
            block_on(async {
                let mut jar = Jar::default();
                let add = Visit::of([Op::Add("a".into(), "b".into())]);
                send(web, &backend(&[signer]), &mut jar, &add).await;
                assert_eq!(opens(&keys, &jar).await, keys.contains(&signer));
                let more = Visit::of([Op::Add("more".into(), 1.into()), add.ops[0].clone()]);
                send(web, &backend(&keys), &mut jar, &more).await;
                for other in 0..6 {
                    assert_eq!(opens(&[other], &jar).await, other == keys[0]);
                }
            });
        }
    });
}

on_every_framework!(
    any_operations_give_the_same_session_as_on_a_map,
    any_disturbed_operations_give_the_same_session_as_on_a_map,
    every_added_value_reads_back_equal,
    two_overlapping_requests_equal_one_after_the_other,
    after_two_requests_each_key_equals_some_order_of_writes,
    a_cookie_may_fill_the_browser_limit_and_never_exceeds_it,
    any_key_list_opens_old_cookies_and_signs_with_the_newest,
);
