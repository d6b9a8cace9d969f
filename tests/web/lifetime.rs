//! The lifetime of one session ("remember me"), and what is known of it: times, user, last login.

use std::time::{Duration, UNIX_EPOCH};

use crate::common::{App, Clock, Server, Web, all_backends, on_every_framework};
use session_manager::{Builder, Error, Lifetime, Session, store::Value};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Does one thing to a session, and answers what came of it.
fn act(session: &Session, what: &str) -> Result<String, Error> {
    let millis = |time: Option<session_manager::Timestamp>| {
        time.map_or("none".into(), |time| time.millis().to_string())
    };
    match what {
        "remember" => session.set_lifetime(Lifetime::Persistent {
            idle: 30 * DAY,
            absolute: 90 * DAY,
        })?,
        "browser" => session.set_lifetime(Lifetime::Browser)?,
        "add" => session.add("key", "value")?,
        "renew" => session.renew(),
        "clear" => session.clear(),
        "destroy" => session.destroy(),
        "mark" => session.mark_authenticated()?,
        "user" => session.set_user("ada")?,
        "times" => {
            let times = [session.created(), session.last_seen(), session.expires()];
            return Ok(times.map(millis).join(","));
        }
        "who" => return Ok(session.user().unwrap_or("none".into())),
        "fresh" => return Ok(session.authenticated_within(HOUR).to_string()),
        "get" => return Ok(session.get("key").unwrap_or("none".into())),
        "lifetime" => return Ok(format!("{:?}", session.lifetime())),
        other => panic!("{other}"),
    }
    Ok("done".into())
}

/// A path does several things: `/do/remember+add`.
fn serve(web: Web, builder: Builder) -> Server {
    let app = App::new().get("/do/{what}", async |session, what| {
        let said = what.split('+').map(|what| act(&session, what));
        Ok(said.collect::<Result<Vec<_>, _>>()?.join(" "))
    });
    Server::start(web, app.wrap(builder.build().unwrap().middleware()))
}

fn max_age(set_cookie: Option<&str>) -> Option<u64> {
    let (_, rest) = set_cookie?.split_once("; Max-Age=")?;
    rest.split(';').next()?.parse().ok()
}

/// The moment of a clock, in milliseconds.
fn now(clock: &Clock) -> u64 {
    let since = (clock.now())().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

fn timed(builder: Builder, clock: &Clock) -> Builder {
    builder
        .idle_timeout(HOUR)
        .absolute_timeout(3 * HOUR)
        .clock(clock.now())
}

fn a_persistent_session_outlives_the_managers_timeouts_and_the_browser(web: Web) {
    for (backend, builder) in all_backends() {
        let clock = Clock::default();
        let server = serve(web, timed(builder(), &clock));
        let answer = server.raw("/do/remember+add", &[]);
        assert_eq!(
            max_age(answer.set_cookie()),
            Some((30 * DAY).as_secs()),
            "{backend}"
        );
        let mut cookie = answer.cookie();
        for day in 1..=3 {
            clock.forward(29 * DAY);
            let answer = server.with_cookie("/do/get", &cookie);
            assert_eq!(answer.body, "value", "{backend}: {day}");
            // The touch tells the client the new end.
            let left = (30 * DAY).min(90 * DAY - day * 29 * DAY).as_secs();
            assert_eq!(max_age(answer.set_cookie()), Some(left), "{backend}: {day}");
            cookie = answer.cookie();
        }
        clock.forward(3 * DAY);
        let over = server.with_cookie("/do/get", &cookie);
        assert_eq!(
            over.body, "none",
            "{backend}: the absolute timeout is its own"
        );
    }
}

fn a_session_that_is_not_remembered_keeps_the_managers_timeouts(web: Web) {
    for (backend, builder) in all_backends() {
        let clock = Clock::default();
        let server = serve(web, timed(builder(), &clock).persistent(true));
        let plain = server.raw("/do/add", &[]);
        assert_eq!(
            max_age(plain.set_cookie()),
            Some(HOUR.as_secs()),
            "{backend}"
        );
        let browser = server.raw("/do/browser+add", &[]);
        assert!(browser.set_cookie().is_some());
        assert_eq!(max_age(browser.set_cookie()), None, "{backend}");
        clock.forward(HOUR);
        for cookie in [plain.cookie(), browser.cookie()] {
            assert_eq!(
                server.with_cookie("/do/get", &cookie).body,
                "none",
                "{backend}"
            );
        }
    }
}

fn a_lifetime_that_changes_is_told_to_the_client(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let first = server.raw("/do/add", &[]);
        assert_eq!(max_age(first.set_cookie()), None, "{backend}");
        let remembered = server.with_cookie("/do/remember", first.cookie());
        let month = Some((30 * DAY).as_secs());
        assert_eq!(max_age(remembered.set_cookie()), month, "{backend}");
        let forgotten = server.with_cookie("/do/browser", remembered.cookie());
        assert!(forgotten.set_cookie().is_some(), "{backend}");
        assert_eq!(max_age(forgotten.set_cookie()), None, "{backend}");
    }
}

fn a_lifetime_survives_renewal_and_clearing_and_ends_with_the_session(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/do/remember+add", &[]).cookie();
        let renewed = server.with_cookie("/do/renew", &cookie);
        let month = Some((30 * DAY).as_secs());
        assert_eq!(max_age(renewed.set_cookie()), month, "{backend}");
        let cleared = server.with_cookie("/do/clear+add+lifetime", renewed.cookie());
        assert!(
            cleared.body.contains("Persistent"),
            "{backend}: {}",
            cleared.body
        );
        let cookie = match cleared.set_cookie() {
            Some(_) => cleared.cookie(),
            None => renewed.cookie(),
        };
        let ended = server.with_cookie("/do/destroy+add+lifetime", cookie);
        assert_eq!(ended.body, "done done None", "{backend}");
        assert_eq!(max_age(ended.set_cookie()), None, "{backend}");
    }
}

fn the_times_of_a_session_are_those_of_its_record(web: Web) {
    for (backend, builder) in all_backends() {
        let clock = Clock::default();
        let server = serve(web, timed(builder(), &clock));
        let begun = now(&clock);
        let first = server.raw("/do/times+add", &[]);
        assert_eq!(
            first.body, "none,none,none done",
            "{backend}: not stored yet"
        );
        clock.forward(SECOND);
        let times = server.with_cookie("/do/times", first.cookie()).body;
        let hour = HOUR.as_millis() as u64;
        assert_eq!(
            times,
            format!("{begun},{begun},{}", begun + hour),
            "{backend}"
        );
        clock.forward(HOUR / 2);
        let touched = server.with_cookie("/do/get", first.cookie());
        let cookie = match touched.set_cookie() {
            Some(_) => touched.cookie(),
            None => first.cookie(),
        };
        let touched_at = now(&clock);
        let times = server.with_cookie("/do/times", cookie).body;
        assert_eq!(
            times,
            format!("{begun},{touched_at},{}", touched_at + hour),
            "{backend}"
        );
    }
}

fn a_login_is_fresh_for_a_while_and_renewal_keeps_its_time(web: Web) {
    for (backend, builder) in all_backends() {
        let clock = Clock::default();
        let server = serve(web, builder().clock(clock.now()));
        assert_eq!(server.raw("/do/fresh", &[]).body, "false", "{backend}");
        let answer = server.raw("/do/mark+fresh", &[]);
        assert_eq!(answer.body, "done true", "{backend}");
        clock.forward(HOUR);
        let answer = server.with_cookie("/do/fresh+renew", answer.cookie());
        assert_eq!(answer.body, "true done", "{backend}");
        clock.forward(SECOND);
        let late = server.with_cookie("/do/fresh+mark+fresh", answer.cookie());
        assert_eq!(late.body, "false done true", "{backend}");
        for end in ["clear", "destroy"] {
            let ended = server.raw(&format!("/do/mark+{end}+fresh"), &[]);
            assert_eq!(ended.body, "done done false", "{backend}");
        }
    }
}

#[cfg(feature = "memory")]
fn the_user_of_a_session_is_who_logged_in(web: Web) {
    let store = session_manager::MemoryStore::new();
    let builder = session_manager::Manager::builder(session_manager::ServerSide::new(store));
    let server = serve(web, builder);
    let login = server.raw("/do/who+user+who", &[]);
    assert_eq!(login.body, "none done ada");
    let later = server.with_cookie("/do/who+destroy+who", login.cookie());
    assert_eq!(later.body, "ada done none");
}

#[cfg(not(feature = "memory"))]
fn the_user_of_a_session_is_who_logged_in(_: Web) {}

#[cfg(feature = "memory")]
fn a_lifetime_migrates_and_a_log_out_outlives_it(web: Web) {
    use session_manager::{Manager, MemoryStore, ServerSide};

    for (from, old) in crate::common::backends() {
        for shorten in ["get", "browser", "browser+renew"] {
            let clock = Clock::default();
            let old = old().clock(clock.now()).build().unwrap();
            let cookie = {
                let app = App::new().get("/do", async |session: Session, _| {
                    act(&session, "remember")?;
                    act(&session, "add")
                });
                Server::start(web, app.wrap(old.middleware()))
                    .raw("/do", &[])
                    .cookie()
            };
            let new = Manager::builder(ServerSide::new(MemoryStore::new()));
            let server = serve(web, new.clock(clock.now()).migrate_from(old));
            let moved = server.with_cookie(&format!("/do/add+mark+{shorten}"), &cookie);
            let read = server.with_cookie("/do/lifetime", moved.cookie()).body;
            assert_eq!(
                read.contains("Persistent"),
                shorten == "get",
                "{from}: {read}"
            );
            server.with_cookie("/do/destroy", moved.cookie());
            // Longer than any timeout of the managers, shorter than the old cookie's.
            for days in [1, 7, 12] {
                clock.forward(days * DAY);
                let read = server.with_cookie("/do/get", &cookie).body;
                assert_eq!(read, "none", "{from}, {shorten}: {days} days later");
            }
        }
    }
}

#[cfg(not(feature = "memory"))]
fn a_lifetime_migrates_and_a_log_out_outlives_it(_: Web) {}

fn an_invalid_lifetime_is_an_error_and_changes_nothing(web: Web) {
    for (backend, builder) in all_backends() {
        let app = App::new().get("/set/{idle}", async |session: Session, idle| {
            let seconds = |text: &str| text.parse().map_or(Duration::MAX, Duration::from_secs);
            let (idle, absolute) = idle.split_once('-').unwrap();
            let set = session.set_lifetime(Lifetime::Persistent {
                idle: seconds(idle),
                absolute: seconds(absolute),
            });
            let refused = matches!(set, Err(Error::InvalidLifetime { .. }));
            Ok(format!("{refused} {}", session.lifetime().is_none()))
        });
        let server = Server::start(web, app.wrap(builder().build().unwrap().middleware()));
        for lifetime in ["0-0", "0-9", "9-0", "9-8", "max-max", "9-max"] {
            let answer = server.raw(&format!("/set/{lifetime}"), &[]);
            assert_eq!(answer.body, "true true", "{backend}: {lifetime}");
            assert_eq!(answer.set_cookie(), None, "{backend}: {lifetime}");
        }
    }
}

fn all_entries_come_in_one_call_with_text_and_json_told_apart(web: Web) {
    for (backend, builder) in all_backends() {
        let app = App::new().get("/entries", async |session: Session, _| {
            session.mark_authenticated()?;
            session.set_lifetime(Lifetime::Browser)?;
            session.flash("message")?;
            session.add("b", "1")?;
            session.add("a", 1)?;
            let expected = [
                ("a".to_owned(), Value::Json("1".into())),
                ("b".to_owned(), Value::Text("1".into())),
            ];
            Ok((session.entries() == expected).to_string())
        });
        let server = Server::start(web, app.wrap(builder().build().unwrap().middleware()));
        assert_eq!(server.raw("/entries", &[]).body, "true", "{backend}");
    }
}

on_every_framework! {
    a_persistent_session_outlives_the_managers_timeouts_and_the_browser,
    a_session_that_is_not_remembered_keeps_the_managers_timeouts,
    a_lifetime_that_changes_is_told_to_the_client,
    a_lifetime_survives_renewal_and_clearing_and_ends_with_the_session,
    the_times_of_a_session_are_those_of_its_record,
    a_login_is_fresh_for_a_while_and_renewal_keeps_its_time,
    the_user_of_a_session_is_who_logged_in,
    a_lifetime_migrates_and_a_log_out_outlives_it,
    an_invalid_lifetime_is_an_error_and_changes_nothing,
    all_entries_come_in_one_call_with_text_and_json_told_apart,
}
