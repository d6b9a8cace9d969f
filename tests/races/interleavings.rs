//! Overlapping steps in every order. No model checker supports the locks that this crate uses (those of the
//! standard library and `arc-swap`), so that the tests order its own steps: each call of a store, each poll
//! of a scope, each `set`. Threads, and Miri (`tests/miri.sh`), test what happens within one step.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Barrier, Mutex, PoisonError},
    task::Poll,
    thread,
    time::Duration,
};

use crate::common::{
    Answer, App, Web, block_on, current, named, on_every_framework,
    schedule::{Ready, Stepwise, every_schedule, pause, poll, runtime, step},
};
use session_manager::{
    Error, Manager, MemoryStore, Middleware, ServerSide, Session, Store, Timestamp, manager,
    store::{StoreId, Value, Verifier, Write},
};
use tokio::runtime::Runtime;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Look,
    Count,
    Add,
    /// In two steps.
    AddTwice,
    Clear,
    Renew,
    Destroy,
}

impl Does {
    const WRITES: [Self; 6] = [
        Self::Count,
        Self::Add,
        Self::AddTwice,
        Self::Clear,
        Self::Renew,
        Self::Destroy,
    ];

    async fn on_session(self, session: &Session, own: &str) -> Result<(), Error> {
        match self {
            Self::Look => {
                session.get("n");
            }
            Self::Count => {
                session.update("n", |n: Option<i64>| n.unwrap_or(0) + 1)?;
            }
            Self::Add => session.add(own, 1)?,
            Self::AddTwice => {
                session.add(own, 1)?;
                session.save().await?;
                session.add(own, 2)?;
            }
            Self::Clear => {
                session.clear();
                session.add(own, 1)?;
            }
            Self::Renew => {
                session.renew();
                session.add(own, 1)?;
            }
            Self::Destroy => session.destroy(),
        }
        Ok(())
    }

    /// The writes that it consists of.
    fn writes(self) -> Vec<Self> {
        match self {
            Self::Look => vec![],
            Self::AddTwice => vec![Self::Add, Self::AddTwice],
            other => vec![other],
        }
    }

    /// What may be there after one of its writes. The cookie that all began with opens nothing after a
    /// renewal; a request that had opened the session can still end it.
    fn after(self, model: &Model, own: &str) -> Vec<Model> {
        let Some((is_renewed, values)) = model else {
            return vec![None];
        };
        if *is_renewed {
            let mut after = vec![model.clone()];
            after.extend((self == Self::Destroy).then_some(None));
            return after;
        }
        let mut values = values.clone();
        match self {
            Self::Look => {}
            Self::Count => *values.entry("n".into()).or_default() += 1,
            Self::AddTwice => *values.entry(own.into()).or_default() = 2,
            Self::Destroy => return vec![None],
            Self::Clear => values.clear(),
            Self::Add | Self::Renew => {}
        }
        if matches!(self, Self::Add | Self::Clear | Self::Renew) {
            values.insert(own.into(), 1);
        }
        vec![Some((self == Self::Renew, values))]
    }
}

/// Whether it was renewed, and its values; `None` when it is gone.
type Model = Option<(bool, BTreeMap<String, i64>)>;

/// What there may be after these lists of writes, in every order in which each keeps its own.
fn explained(model: Model, writes: &[Vec<Does>; 3]) -> BTreeSet<Model> {
    let mut all = BTreeSet::new();
    for at in 0..3 {
        if let Some((first, rest)) = writes[at].split_first() {
            let mut left = writes.clone();
            left[at] = rest.to_vec();
            for model in first.after(&model, OWN[at]) {
                all.extend(explained(model, &left));
            }
        }
    }
    if writes.iter().all(Vec::is_empty) {
        all.insert(model);
    }
    all
}

const OWN: [&str; 3] = ["x", "y", "z"];

fn call(
    web: Web,
    middleware: Middleware,
    does: Does,
    own: &'static str,
    cookie: &str,
) -> Pin<Box<dyn Future<Output = Answer>>> {
    let app = App::new().get("/do", move |session, _| async move {
        let handle = session.handle();
        does.on_session(&session, own).await?;
        Ok(handle.unwrap_or_default())
    });
    let (app, cookie) = (app.wrap(middleware), cookie.to_owned());
    Box::pin(async move { app.call_with(web, "/do", &cookie).await })
}

fn finish(mut future: Pin<Box<dyn Future<Output = Answer>>>) -> Answer {
    loop {
        if let Poll::Ready(answer) = poll(future.as_mut()) {
            return answer;
        }
    }
}

/// Three requests of one session, and every order of their calls of the store. The clock of `runtime`
/// stands until all of them wait for it.
fn run(runtime: &Runtime, does: [Does; 3]) -> usize {
    let begun = Some((false, BTreeMap::from([("n".to_owned(), 1)])));
    let explained = explained(begun, &does.map(Does::writes));
    every_schedule(|choose| {
        let entered = runtime.enter();
        let store = Stepwise::default();
        let manager = Manager::new(ServerSide::new(store.clone()));
        let call =
            |does, own, cookie: &str| call(Web::Axum, manager.middleware(), does, own, cookie);
        let cookie = finish(call(Does::Count, "", "")).cookie();
        let handle = finish(call(Does::Look, "", &cookie)).body;
        let mut under_way: Vec<_> = OWN
            .into_iter()
            .zip(does)
            .map(|(own, does)| (does, call(does, own, &cookie), Ready::new()))
            .collect();
        let others_end_it = does
            .iter()
            .any(|does| matches!(does, Does::Renew | Does::Destroy));
        for (_, request, ready) in &mut under_way {
            assert!(
                ready.poll(request.as_mut(), None).0.is_pending(),
                "each opens its session first"
            );
        }
        drop(entered);
        while !under_way.is_empty() {
            let is_ready = |at: &usize| under_way[*at].2.is();
            let ready: Vec<_> = (0..under_way.len()).filter(is_ready).collect();
            let at = match ready.as_slice() {
                [] => {
                    runtime.block_on(pause());
                    continue;
                }
                [at] => *at,
                several => several[choose(several.len())],
            };
            let _entered = runtime.enter();
            let (own, request, ready) = &mut under_way[at];
            if let (Poll::Ready(answer), _) = ready.poll(request.as_mut(), None) {
                // A request that saves is told when another one ended or renewed the session.
                let is_told = *own == Does::AddTwice && others_end_it && answer.status == 500;
                assert!(answer.status == 200 || is_told, "{does:?}: {answer:?}");
                drop(under_way.remove(at));
            }
        }
        let after = values(&store, &handle);
        let is_explained = explained
            .iter()
            .any(|model| model.as_ref().map(|(_, values)| values) == after.as_ref());
        assert!(is_explained, "{does:?}: {after:?} is none of {explained:?}");
    })
}

/// What a session holds; `None` when it is gone.
fn values(store: &Stepwise, handle: &str) -> Option<BTreeMap<String, i64>> {
    let now = Manager::new(ServerSide::new(store.clone()))
        .settings()
        .now();
    let record = block(store.0.load(id(handle), now)).unwrap()?;
    let value = |(key, value): (&str, Value<&str>)| (key.to_owned(), value.decode().unwrap());
    Some(record.entries.iter().map(value).collect())
}

/// Runs a future that never waits.
fn block<T>(future: impl Future<Output = T>) -> T {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn id(handle: &str) -> StoreId {
    let digits = |at| u8::from_str_radix(&handle[2 * at..2 * at + 2], 16).unwrap();
    StoreId::from_bytes(std::array::from_fn(digits))
}

#[test]
fn three_requests_equal_some_order_of_their_writes() {
    let runtime = runtime();
    let schedules = {
        let mut schedules = 0;
        if cfg!(miri) {
            schedules += run(&runtime, [Does::Count, Does::Renew, Does::Destroy]);
        }
        let writes = if cfg!(miri) { &[][..] } else { &Does::WRITES };
        for (a, first) in writes.iter().enumerate() {
            for (b, second) in writes.iter().enumerate().skip(a) {
                for third in &writes[b..] {
                    schedules += run(&runtime, [*first, *second, *third]);
                }
            }
        }
        schedules
    };
    println!("{schedules} schedules");
    assert!(schedules > if cfg!(miri) { 50 } else { 5_000 });
}

/// One call of a store, on the one record that there is.
#[derive(Clone, Copy, Debug)]
enum Call {
    Load,
    Create,
    Add(i64),
    AddIf(u64),
    Renew,
    Destroy,
}

impl Call {
    /// The call that a number stands for.
    fn of(number: u64) -> Self {
        match number % 8 {
            0 => Self::Load,
            1 | 2 => Self::Create,
            3 => Self::AddIf(number / 8 % 3 + 1),
            4 => Self::Renew,
            5 => Self::Destroy,
            _ => Self::Add((number / 8 % 9) as i64),
        }
    }

    fn on(self, store: &MemoryStore) -> String {
        let id = StoreId::from_bytes([1; 32]);
        let (old, new) = (Verifier::from_bytes([2; 32]), Verifier::from_bytes([3; 32]));
        let now = Timestamp::from_millis(1_000);
        let mut write = Write::touch(old, now, now, now.plus(Duration::from_secs(60)));
        let set = |number: i64| vec![("a".into(), Value::Json(number.to_string().into()))];
        match self {
            Self::Load => {
                let record = block(store.load(id, now)).unwrap();
                let shown = record.map(|record| {
                    let value = record
                        .entries
                        .get("a")
                        .map(|value| value.as_str().to_owned());
                    (record.version, record.verifier, record.user, value)
                });
                return format!("{shown:?}");
            }
            Self::Create => {
                write.user = Some("ada".into());
                return block(store.create(id, &write)).unwrap().to_string();
            }
            Self::Add(number) => write.set = set(number),
            Self::AddIf(version) => {
                write.set = set(-1);
                write.if_version = Some(version);
            }
            Self::Renew => {
                write.new_verifier = Some(new);
                write.user = Some("grace".into());
            }
            Self::Destroy => return format!("{:?}", block(store.destroy(id)).unwrap()),
        }
        format!("{:?}", block(store.apply(id, &write)).unwrap())
    }
}

/// Whether the calls that each thread made, with what came of them, can have been made in one order,
/// and left what was found.
fn is_linear(made: &[Vec<(Call, String)>], found: &str) -> bool {
    fn go(
        made: &[Vec<(Call, String)>],
        done: &mut [usize],
        order: &mut Vec<Call>,
        found: &str,
    ) -> bool {
        let store = MemoryStore::with_capacity(1);
        for call in order.iter() {
            call.on(&store);
        }
        let mut is_last = true;
        for at in 0..made.len() {
            let Some((call, result)) = made[at].get(done[at]) else {
                continue;
            };
            is_last = false;
            let copy = MemoryStore::with_capacity(1);
            for call in order.iter() {
                call.on(&copy);
            }
            if call.on(&copy) == *result {
                done[at] += 1;
                order.push(*call);
                if go(made, done, order, found) {
                    return true;
                }
                order.pop();
                done[at] -= 1;
            }
        }
        is_last && Call::Load.on(&store) == found
    }
    go(made, &mut vec![0; made.len()], &mut Vec::new(), found)
}

#[test]
fn three_threads_on_one_record_equal_some_order_of_calls() {
    const ROUNDS: u64 = if cfg!(miri) { 3 } else { 2_000 };
    let stores: Vec<_> = (0..ROUNDS).map(|_| MemoryStore::with_capacity(1)).collect();
    let together = Barrier::new(3);
    let made: Vec<Vec<Vec<_>>> = thread::scope(|scope| {
        let threads = (0..3_u64).map(|thread| {
            let (stores, together) = (&stores, &together);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15 ^ (thread + 1);
                let mut next = move || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random >> 11
                };
                let round = |store| {
                    let calls: Vec<_> = (0..3).map(|_| Call::of(next())).collect();
                    together.wait();
                    let made = calls.into_iter().map(|call| (call, call.on(store)));
                    made.collect::<Vec<_>>()
                };
                stores.iter().map(round).collect()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (round, store) in stores.iter().enumerate() {
        let made: Vec<_> = made.iter().map(|thread| thread[round].clone()).collect();
        let found = Call::Load.on(store);
        assert!(is_linear(&made, &found), "{made:?} left {found}");
    }
}

/// Held by a test that sets the process's manager.
static GLOBAL: Mutex<()> = Mutex::new(());

/// Two requests that wait for their store and in their handler, and two calls of `set`: each request
/// opens and keeps its session with the manager that was there when it came.
fn a_request_keeps_its_manager_when_another_is_set(web: Web) {
    let _alone = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    let managers = ["one", "two", "three"].map(|name| {
        let store = Stepwise::default();
        let builder = Manager::builder(ServerSide::new(store.clone())).cookie_name(name);
        (name, store, Arc::new(builder.build().unwrap()))
    });
    let schedules = block_on(async {
        every_schedule(|choose| {
            let sessions = managers.each_ref().map(|(_, _, manager)| {
                let call = |does, cookie| finish(call(web, manager.middleware(), does, "", cookie));
                let cookie = call(Does::Count, "").cookie();
                let handle = call(Does::Look, &cookie).body;
                (cookie, handle)
            });
            let cookies = sessions.each_ref().map(|(cookie, _)| &**cookie).join("; ");
            let mut expected = managers
                .each_ref()
                .map(|_| BTreeMap::from([("n".into(), 1)]));
            let set = |at: usize| drop(manager::set(Arc::clone(&managers[at].2)));
            set(0);
            let mut is_set = 0;
            // Neither waits for the other: an update would.
            let mut under_way: Vec<_> = [("x", Does::AddTwice), ("y", Does::Add)]
                .into_iter()
                .map(|(own, does)| {
                    let request = call(web, manager::middleware(), does, own, &cookies);
                    (own, Some(does), request)
                })
                .collect();
            while !under_way.is_empty() || is_set + 1 < managers.len() {
                let others = usize::from(is_set + 1 < managers.len());
                let at = match under_way.len() + others {
                    1 => 0,
                    several => choose(several),
                };
                let Some((own, comes, request)) = under_way.get_mut(at) else {
                    is_set += 1;
                    set(is_set);
                    continue;
                };
                for write in comes.take().map(Does::writes).unwrap_or_default() {
                    let after = write.after(&Some((false, expected[is_set].clone())), own);
                    expected[is_set] = after[0].clone().unwrap().1;
                }
                if let Poll::Ready(answer) = poll(request.as_mut()) {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    drop(under_way.remove(at));
                }
            }
            for (at, (name, store, _)) in managers.iter().enumerate() {
                let kept = values(store, &sessions[at].1).unwrap();
                assert_eq!(kept, expected[at], "{name}");
            }
        })
    });
    println!("{schedules} schedules");
    assert!(schedules > if cfg!(miri) { 5 } else { 500 }, "{schedules}");
}

on_every_framework!(a_request_keeps_its_manager_when_another_is_set);

/// Every thread replaces the manager at once, and others look: each manager is taken out once, by
/// the next `set`, and no reader sees one that was taken out before.
#[test]
fn managers_that_are_set_at_once_follow_one_another() {
    const EACH: usize = if cfg!(miri) { 10 } else { 300 };
    let _alone = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    manager::set(named("first"));
    let taken = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for setter in 0..4 {
            let taken = &taken;
            scope.spawn(move || {
                for number in 0..EACH {
                    let former = manager::set(named(&format!("m{setter}-{number}")));
                    let name = former.settings().cookie_name().to_owned();
                    assert!(taken.lock().unwrap().insert(name), "taken out twice");
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = [0; 4];
                for _ in 0..10 * EACH {
                    let name = current();
                    let Some((setter, number)) =
                        name.strip_prefix('m').and_then(|name| name.split_once('-'))
                    else {
                        continue;
                    };
                    let (setter, number): (usize, usize) =
                        (setter.parse().unwrap(), number.parse().unwrap());
                    assert!(number >= last[setter], "an old one came back");
                    last[setter] = number;
                }
            });
        }
    });
    let mut taken = taken.into_inner().unwrap();
    assert!(taken.insert(current()), "the last one is still there");
    assert_eq!(taken.len(), 4 * EACH + 1, "none was lost");
}

/// Polled in every order: one that nests, one that panics, and one that is dropped half-way.
#[test]
fn interleaved_scopes_each_see_their_own_manager() {
    let names = ["one", "two", "three"];
    let managers = names.map(|name| Arc::new(named(name)));
    let inner = Arc::new(named("inner"));
    let outer = named("outer");
    let schedules = manager::with(outer, || {
        every_schedule(|choose| {
            let task = |at: usize| {
                let inner = Arc::clone(&inner);
                manager::scope(Arc::clone(&managers[at]), async move {
                    for turn in 0..3 {
                        assert_eq!(current(), names[at]);
                        match (at, turn) {
                            (0, 1) => {
                                let nested = async {
                                    assert_eq!(current(), "inner");
                                    step().await;
                                    assert_eq!(current(), "inner");
                                };
                                manager::scope(Arc::clone(&inner), nested).await;
                            }
                            (1, 2) => manager::with(Arc::clone(&inner), || panic!("asked for")),
                            _ => step().await,
                        }
                        assert_eq!(current(), names[at]);
                    }
                })
            };
            let mut tasks: Vec<_> = (0..3).map(|at| (at, 0, Box::pin(task(at)))).collect();
            while !tasks.is_empty() {
                let chosen = match tasks.len() {
                    1 => 0,
                    several => choose(several),
                };
                let (at, polls, task) = &mut tasks[chosen];
                *polls += 1;
                let polled = catch_unwind(AssertUnwindSafe(|| poll(task.as_mut())));
                assert_eq!(current(), "outer");
                assert!(polled.is_ok() || *at == 1);
                if !matches!(polled, Ok(Poll::Pending)) || (*at == 2 && *polls == 2) {
                    drop(tasks.remove(chosen));
                    assert_eq!(current(), "outer");
                }
            }
        })
    });
    assert!(schedules > 100, "{schedules}");
}
