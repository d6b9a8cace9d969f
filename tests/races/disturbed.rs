//! Two requests of one session in every order of their steps, with one disturbance: a call of the store
//! fails or answers too late, a client disconnects, or the clock moves. On a store, on demand, and while
//! the session migrates.
//!
//! They switch as often as `SWITCHES` says, besides where one of them ends: once by default, and twice
//! without a disturbance. `interleavings.rs` has three requests and every switch, without disturbances.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use crate::common::{
    Answer, App, Clock, Web, backends,
    schedule::{Fault, Ready, Stepwise, every_schedule, pause, poll, runtime, settle, step},
    setting as setting_of,
};
use session_manager::{Builder, Error, Manager, ServerSide, Session};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Count,
    Add,
    /// In two steps.
    AddTwice,
    Clear,
    Renew,
    Destroy,
    /// Says that the session is eve's.
    SetUser,
    /// Ends all of ada's sessions.
    EndUser,
}

use Does::*;

/// How the session is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Plain,
    OnDemand,
    FromCookie,
    FromMemory,
}

/// The disturbance, once and at any step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    StoreFails,
    ClientLeaves,
    /// A touch is due then.
    HoursPass,
    /// The session has expired then.
    ADayPasses,
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A session; `None` when it is gone.
type Model = Option<Data>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Data {
    values: BTreeMap<String, i64>,
    is_adas: bool,
    /// No other request that is open writes to it.
    is_renewed: bool,
}

/// One commit of a request, and whether it must have been made.
#[derive(Clone, Copy)]
struct Commit {
    does: Does,
    own: &'static str,
    must: bool,
}

impl Commit {
    fn after(self, model: &Model) -> Model {
        let mut data = model.clone()?;
        match self.does {
            Destroy => return None,
            EndUser => return Some(data).filter(|data| !data.is_adas),
            _ if data.is_renewed => return Some(data),
            Count => *data.values.entry("n".into()).or_default() += 1,
            Clear => data.values.clear(),
            Renew => data.is_renewed = true,
            SetUser => data.is_adas = false,
            Add | AddTwice => {}
        }
        if self.does != Count {
            let value = if self.does == AddTwice { 2 } else { 1 };
            data.values.insert(self.own.into(), value);
        }
        Some(data)
    }
}

/// What there may be after these commits, in every order in which each request keeps its own.
fn explained(model: Model, commits: [&[Commit]; 2], all: &mut BTreeSet<Model>) {
    let mut is_over = true;
    for at in 0..2 {
        if let Some((first, rest)) = commits[at].split_first() {
            is_over = false;
            let mut left = commits;
            left[at] = rest;
            explained(first.after(&model), left, all);
            if !first.must {
                explained(model.clone(), left, all);
            }
        }
    }
    if is_over {
        all.insert(model);
    }
}

/// How far the handler of a request came.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Whether it found the session.
    found: Option<bool>,
    /// How many commits `save` acknowledged.
    saved: usize,
    is_done: bool,
}

type Shared = Arc<Mutex<Progress>>;

async fn handle(does: Does, own: &str, session: &Session, progress: &Shared) -> Result<(), Error> {
    match does {
        Count => drop(session.update("n", |n: Option<i64>| n.unwrap_or(0) + 1)?),
        Add => session.add(own, 1)?,
        AddTwice => {
            session.add(own, 1)?;
            session.save().await?;
            progress.lock().unwrap().saved = 1;
            session.add(own, 2)?;
        }
        Clear => {
            session.clear();
            session.add(own, 1)?;
        }
        Renew => {
            session.renew();
            session.add(own, 1)?;
        }
        Destroy => {
            session.destroy();
            progress.lock().unwrap().is_done = true;
            // The client may leave while the handler goes on.
            step().await;
        }
        SetUser => {
            session.set_user("eve")?;
            session.add(own, 1)?;
        }
        EndUser => drop(session.manager().destroy_user_sessions("ada").await?),
    }
    Ok(())
}

type Answering = Pin<Box<dyn Future<Output = Answer>>>;

struct Request {
    does: Does,
    own: &'static str,
    progress: Shared,
    /// `None` when it is over.
    future: Option<Answering>,
    ready: Arc<Ready>,
    has_started: bool,
    /// `None` if its client went away.
    answer: Option<Answer>,
    met_a_fault: bool,
}

impl Request {
    fn new(manager: &Manager, does: Does, own: &'static str, cookie: &str) -> Self {
        let progress = Shared::default();
        let shared = Arc::clone(&progress);
        let app = App::new().get("/do", move |session, _| {
            let progress = Arc::clone(&shared);
            async move {
                progress.lock().unwrap().found = Some(!session.is_empty());
                handle(does, own, &session, &progress).await?;
                progress.lock().unwrap().is_done = true;
                Ok("")
            }
        });
        let (app, cookie) = (app.wrap(manager.middleware()), cookie.to_owned());
        let future = async move { app.call_with(Web::Axum, "/do", &cookie).await };
        Self {
            does,
            own,
            progress,
            future: Some(Box::pin(future)),
            ready: Ready::new(),
            has_started: false,
            answer: None,
            met_a_fault: false,
        }
    }

    fn is_ok(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.status == 200)
    }

    /// The commits that it made or may have made.
    fn commits(&self, is_certain: bool) -> Vec<Commit> {
        let progress = *self.progress.lock().unwrap();
        // Without the session it can write to none; it can end a user's all the same.
        if self.does != EndUser && progress.found != Some(true) || progress.found.is_none() {
            return Vec::new();
        }
        // A log-out holds, even if the client does not wait for the response.
        let sticks = self.does == Destroy && progress.is_done && self.answer.is_none();
        let all = match self.does {
            AddTwice => vec![Add, AddTwice],
            does => vec![does],
        };
        let commit = |(at, does)| Commit {
            does,
            own: self.own,
            must: is_certain && (self.is_ok() || sticks || at < progress.saved),
        };
        all.into_iter().enumerate().map(commit).collect()
    }

    /// The cookie that it gave to its client.
    fn cookie(&self) -> Option<String> {
        let answer = self.answer.as_ref()?;
        let pairs = answer.all("set-cookie").map(|line| line.split(';').next());
        let mut pairs = pairs.map(|pair| pair.unwrap().to_owned());
        pairs.find(|pair| !pair.ends_with('='))
    }
}

/// Runs a future whose steps nothing disturbs.
fn finish(mut future: Answering) -> Answer {
    loop {
        if let Poll::Ready(answer) = poll(future.as_mut()) {
            return answer;
        }
    }
}

struct World {
    clock: Clock,
    old: Option<Manager>,
    manager: Manager,
}

impl World {
    fn new(setting: Setting) -> Self {
        let clock = Clock::default();
        let build = |builder: Builder| builder.clock(clock.now()).build().unwrap();
        let memory = || Manager::builder(ServerSide::new(Stepwise::default()));
        let (old, new) = match setting {
            Setting::Plain => (None, memory()),
            Setting::OnDemand => (None, memory().load_on_demand()),
            Setting::FromCookie => (Some(build(backends()[0].1().cookie_name("old"))), memory()),
            Setting::FromMemory => (Some(build(memory().cookie_name("old"))), memory()),
        };
        let new = match &old {
            Some(old) => new.migrate_from(old.clone()),
            None => new,
        };
        Self {
            manager: build(new),
            clock,
            old,
        }
    }

    /// The cookie of a session of ada's.
    fn begin(&self) -> String {
        let app = App::new().get("/begin", async |session, _| {
            // Cookie backends have no index.
            let _ = session.set_user("ada");
            session.add("base", 1)?;
            session.add("n", 1)?;
            Ok("")
        });
        let manager = self.old.as_ref().unwrap_or(&self.manager);
        let app = app.wrap(manager.middleware());
        finish(Box::pin(app.call_with(Web::Axum, "/begin", ""))).cookie()
    }

    /// What this cookie opens.
    fn read(&self, cookie: &str) -> BTreeMap<String, i64> {
        let app = App::new().get("/read", async |session, _| {
            let pair = |key: String| Ok((key.clone(), session.load::<i64>(&key)?.unwrap_or(0)));
            let values: Result<BTreeMap<_, _>, Error> =
                session.keys().into_iter().map(pair).collect();
            Ok(serde_json::to_string(&values?).unwrap())
        });
        let app = app.wrap(self.manager.middleware());
        let cookie = cookie.to_owned();
        let answer = finish(Box::pin(async move {
            app.call_with(Web::Axum, "/read", &cookie).await
        }));
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Whether the session was ada's from the beginning.
    fn has_users(&self) -> bool {
        let old = self.old.as_ref();
        old.is_none_or(|old| old.backend_name() == "stepwise")
    }

    fn sessions_of_ada(&self) -> usize {
        let mut listing = Box::pin(self.manager.user_sessions("ada"));
        loop {
            if let Poll::Ready(listed) = poll(listing.as_mut()) {
                return listed.unwrap().len();
            }
        }
    }
}

/// Takes one way through all choices, and checks what came of it.
async fn run(
    setting: Setting,
    wrong: Wrong,
    does: [Does; 2],
    choose: &mut dyn FnMut(usize) -> usize,
) {
    let world = World::new(setting);
    let cookie = world.begin();
    let names = ["x", "y"];
    let mut requests = [0, 1].map(|at| Request::new(&world.manager, does[at], names[at], &cookie));
    let mut may_go_wrong = wrong != Wrong::Nothing;
    let mut over_at_start = false;
    let mut late_starters = [false; 2];
    let most = if wrong == Wrong::Nothing { 2 } else { 1 };
    let (mut at, mut switches) = (choose(2), setting_of("SWITCHES", most));
    while requests.iter().any(|request| request.future.is_some()) {
        let is_ready = |at: usize| requests[at].future.is_some() && requests[at].ready.is();
        match (is_ready(at), is_ready(1 - at)) {
            (true, true) if switches > 0 && choose(2) == 1 => {
                switches -= 1;
                at = 1 - at;
            }
            (true, _) => {}
            // One that is over, or that waits for the other.
            (false, true) => at = 1 - at,
            (false, false) => {
                pause().await;
                continue;
            }
        }
        let mut fault = None;
        if may_go_wrong {
            let started = requests[at].has_started;
            let choices = match wrong {
                Wrong::StoreFails if started => 3,
                Wrong::ClientLeaves if started => 2,
                Wrong::HoursPass | Wrong::ADayPasses => 2,
                _ => 1,
            };
            let chosen = if choices > 1 { choose(choices) } else { 0 };
            may_go_wrong = chosen == 0;
            match (wrong, chosen) {
                (_, 0) | (Wrong::Nothing, _) => {}
                (Wrong::StoreFails, 1) => fault = Some(Fault::Refuses),
                (Wrong::StoreFails, _) => fault = Some(Fault::AnswersLate),
                (Wrong::ClientLeaves, _) => {
                    requests[at].future = None;
                    continue;
                }
                (Wrong::HoursPass, _) => world.clock.forward(2 * HOUR),
                (Wrong::ADayPasses, _) => {
                    world.clock.forward(25 * HOUR);
                    let in_flight = |it: &Request| it.has_started && it.future.is_some();
                    over_at_start = !requests.iter().any(in_flight);
                    for (at, request) in requests.iter().enumerate() {
                        late_starters[at] = !request.has_started;
                    }
                }
            }
        }
        let request = &mut requests[at];
        request.has_started = true;
        let future = request.future.as_mut().unwrap();
        let (polled, met) = request.ready.poll(future.as_mut(), fault);
        request.met_a_fault |= met;
        if let Poll::Ready(answer) = polled {
            request.answer = Some(answer);
            request.future = None;
        }
    }
    if wrong == Wrong::ClientLeaves {
        settle().await;
    }
    let is_over = wrong == Wrong::ADayPasses && !may_go_wrong;
    check(&world, &cookie, &requests, (setting, wrong), is_over);
    if is_over && over_at_start {
        for (request, is_late) in requests.iter().zip(late_starters) {
            let found = request.progress.lock().unwrap().found;
            assert!(
                !is_late || found != Some(true),
                "{does:?}: an old session opened"
            );
        }
    }
}

fn check(
    world: &World,
    cookie: &str,
    requests: &[Request; 2],
    way: (Setting, Wrong),
    is_over: bool,
) {
    let does = requests.each_ref().map(|request| request.does);
    let told = requests.each_ref().map(|request| {
        let status = request.answer.as_ref().map(|answer| answer.status);
        (
            status,
            request.cookie().is_some(),
            *request.progress.lock().unwrap(),
        )
    });
    let way = format!("{way:?} {does:?} {told:?}");

    // A request fails if its own call of the store does; one that saves is told when its session ended.
    for (request, other) in [(&requests[0], &requests[1]), (&requests[1], &requests[0])] {
        let Some(answer) = &request.answer else {
            continue;
        };
        let ends = matches!(other.does, Renew | Destroy | EndUser) || is_over;
        let is_told = request.does == AddTwice && ends && answer.status == 500;
        let fails = request.met_a_fault && matches!(answer.status, 500 | 503);
        assert!(
            answer.status == 200 || is_told || fails,
            "{way}: {answer:?}"
        );
    }

    let mut models = BTreeSet::new();
    let begun = Data {
        values: [("base".to_owned(), 1), ("n".to_owned(), 1)].into(),
        is_adas: world.has_users(),
        is_renewed: false,
    };
    let commits = requests.each_ref().map(|request| request.commits(!is_over));
    explained(Some(begun.clone()), [&commits[0], &commits[1]], &mut models);
    if is_over {
        models.insert(None);
    }
    // A log-out that failed half-way has ended the new record and left no mark that it did: the old
    // cookie opens what it holds. The client's own cookie opens nothing.
    let fails = |request: &Request| request.does == Destroy && !request.is_ok();
    if world.old.is_some() && requests.iter().any(|it| it.met_a_fault && fails(it)) {
        models.insert(Some(begun.clone()));
    }

    // The session, by whichever cookie opens it.
    let mut found = BTreeSet::from([world.read(cookie)]);
    for request in requests {
        let Some(cookie) = request.cookie() else {
            continue;
        };
        let read = world.read(&cookie);
        if request.progress.lock().unwrap().found == Some(true) {
            found.insert(read);
        } else {
            // One that it began, and that has nothing of the other.
            let own = |key: &String| key == request.own || key == "n";
            assert!(read.keys().all(own), "{way}: {read:?}");
        }
    }
    found.remove(&BTreeMap::new());
    assert!(found.len() <= 1, "{way}: two sessions {found:?}");
    let found = found.pop_first();
    let explaining: Vec<_> = models
        .iter()
        .filter(|model| match (model, &found) {
            (Some(data), Some(found)) => data.values == *found,
            // A client that was not told of its new id has lost the session.
            (Some(data), None) => {
                let is_untold = |it: &Request| it.does == Renew && !it.is_ok();
                data.is_renewed && requests.iter().any(is_untold)
            }
            (None, found) => found.is_none(),
        })
        .collect();
    assert!(
        !explaining.is_empty(),
        "{way}: {found:?} is none of {models:?}"
    );

    if let Some(found) = &found
        && world.clock.moved() == Duration::ZERO
    {
        // It lives, so that a request which did not find it was late for its id, and is told nothing.
        for request in requests {
            if request.progress.lock().unwrap().found == Some(false) {
                assert_eq!(request.cookie(), None, "{way}: beside {found:?}");
            }
        }
    }
    if world.has_users() && !is_over {
        let listed = world.sessions_of_ada();
        let is_adas = |model: &Model| model.as_ref().is_some_and(|it| it.is_adas);
        // An old record that could not be ended when its session migrated is listed, and opens nothing.
        let is_left_behind = world.old.is_some()
            && (requests.iter()).any(|request| request.met_a_fault || request.answer.is_none());
        let explains = |model: &Model| usize::from(is_adas(model)) == listed;
        assert!(
            explaining.iter().any(|model| explains(model)) || is_left_behind && listed == 1,
            "{way}: {listed} sessions are listed, and there is {explaining:?}"
        );
    }
}

fn all_pairs(setting: Setting, wrong: Wrong) -> usize {
    let runtime = runtime();
    let all = [
        Count, Add, AddTwice, Clear, Renew, Destroy, SetUser, EndUser,
    ];
    let mut schedules = 0;
    for (number, first) in all.into_iter().enumerate() {
        for second in all.into_iter().skip(number) {
            schedules += every_schedule(|choose| {
                runtime.block_on(run(setting, wrong, [first, second], choose));
            });
        }
    }
    println!("{setting:?}, {wrong:?}: {schedules} schedules");
    schedules
}

macro_rules! tests {
    ($($setting:ident $module:ident),+) => {
        $(mod $module {
            use super::{Setting::$setting, Wrong, all_pairs};

            #[test]
            fn two_disturbed_requests_equal_some_order_of_their_commits() {
                assert!(all_pairs($setting, Wrong::Nothing) > 500);
            }

            #[test]
            fn a_failing_store_call_undoes_no_other_request() {
                assert!(all_pairs($setting, Wrong::StoreFails) > 1_000);
            }

            #[test]
            fn a_client_disconnect_equals_some_order_of_the_commits() {
                assert!(all_pairs($setting, Wrong::ClientLeaves) > 1_000);
            }

            #[test]
            fn a_touch_that_becomes_due_between_steps_loses_nothing() {
                assert!(all_pairs($setting, Wrong::HoursPass) > 1_000);
            }

            #[test]
            fn a_session_that_expires_between_steps_stays_closed() {
                assert!(all_pairs($setting, Wrong::ADayPasses) > 1_000);
            }
        })+
    };
}

tests!(
    Plain on_a_store,
    OnDemand on_demand,
    FromCookie from_a_cookie,
    FromMemory from_memory
);
