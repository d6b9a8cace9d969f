//! The contract of [`Store`], as tests. Each function is named after the sentence that it proves.

mod ended;
mod overlap;
mod users;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use self::{
    ended::records_that_are_destroyed_are_reported,
    overlap::{
        destroying_wins_every_race, of_renewals_at_once_the_first_wins,
        updates_that_overlap_all_count, writes_that_overlap_all_survive,
    },
    users::{
        a_user_has_no_more_sessions_than_allowed, a_users_many_sessions_end_page_by_page,
        a_users_sessions_are_found, log_ins_at_once_leave_no_more_sessions_than_allowed,
        of_reservations_at_once_no_more_are_made_than_allowed,
    },
};
use crate::{
    changes::write::{Applied, Write},
    expiry::{Clock, Timestamp},
    random,
    record::{
        Record,
        entries::Entries,
        id::{StoreId, Verifier},
    },
    store::{Store, UserIndex},
    value::Value,
};

/// The real time, from which the suite goes on: a store may drop by the system's clock what is long
/// over.
static NOW: LazyLock<Timestamp> = LazyLock::new(|| Clock::default().now());
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(30);
/// Whom a record of the suite answers to at first, and to whom after a renewal.
const FIRST: Verifier = Verifier::from_bytes([1; 32]);
const SECOND: Verifier = Verifier::from_bytes([2; 32]);

/// Checks that `store` keeps the contract of [`Store`]: what is stored comes back, requests that
/// overlap lose nothing, what was destroyed stays destroyed, and time is the caller's.
///
/// It needs a tokio runtime of any kind, and uses ids of its own, so that the store may
/// hold other sessions meanwhile. Calls that overlap come from threads that it starts.
///
/// # Panics
///
/// With the sentence that does not hold.
pub async fn check_store<S: Store>(store: S) {
    let store = Arc::new(store);
    nothing_is_found_or_made_under_an_unknown_id(&*store).await;
    what_is_stored_comes_back(&*store).await;
    a_live_record_is_never_overwritten(&*store).await;
    writes_merge_key_by_key(&*store).await;
    writes_of_requests_that_saw_the_record_merge_too(&*store).await;
    a_record_whose_time_is_over_is_gone(&*store).await;
    a_write_for_another_version_is_a_conflict(&*store).await;
    a_renewed_record_answers_to_the_new_verifier_alone(&*store).await;
    what_was_destroyed_stays_destroyed(&*store).await;
    destroying_ends_a_renewed_record(&*store).await;
    writes_that_overlap_all_survive(&store).await;
    updates_that_overlap_all_count(&store).await;
    destroying_wins_every_race(&store).await;
    of_renewals_at_once_the_first_wins(&store).await;
    records_that_are_destroyed_are_reported(&store).await;
    if store.users().is_some() {
        a_users_sessions_are_found(&*store).await;
        a_users_many_sessions_end_page_by_page(&store).await;
    }
    if store.users().and_then(UserIndex::limit).is_some() {
        a_user_has_no_more_sessions_than_allowed(&*store).await;
        of_reservations_at_once_no_more_are_made_than_allowed(&store).await;
        log_ins_at_once_leave_no_more_sessions_than_allowed(&store).await;
    }
}

fn new_id() -> StoreId {
    let mut bytes = [0; 32];
    random::fill(&mut bytes);
    StoreId::from_bytes(bytes)
}

fn write(set: &[(&str, Value<&str>)]) -> Write {
    let mut write = Write::touch(FIRST, *NOW, *NOW, NOW.plus(HOUR));
    write.set = set
        .iter()
        .map(|(key, value)| ((*key).into(), value.into_owned()))
        .collect();
    write
}

/// The same as a request makes it that has loaded the record.
fn plain(set: &[(&str, Value<&str>)]) -> Write {
    let mut write = write(set);
    write.seen_expires = Some(write.expires);
    write
}

/// The same as a renewal.
fn renewal(set: &[(&str, Value<&str>)]) -> Write {
    let mut write = write(set);
    write.new_verifier = Some(SECOND);
    write
}

async fn load<S: Store>(store: &S, id: StoreId) -> Option<Record> {
    store.load(id, *NOW).await.expect("the store answers")
}

async fn create<S: Store>(store: &S, set: &[(&str, Value<&str>)]) -> StoreId {
    let id = new_id();
    assert!(
        store
            .create(id, &write(set))
            .await
            .expect("the store answers"),
        "a new id is free"
    );
    id
}

async fn apply<S: Store>(store: &S, id: StoreId, write: &Write) -> Applied {
    store.apply(id, write).await.expect("the store answers")
}

async fn destroy<S: Store>(store: &S, id: StoreId) {
    store.destroy(id).await.expect("the store answers");
}

fn assert_entries(record: Option<&Record>, expected: &[(&str, Value<&str>)], sentence: &str) {
    let record = record.unwrap_or_else(|| panic!("{sentence}: the record is there"));
    assert_eq!(
        sorted(&record.entries),
        sorted(&expected.iter().copied().collect()),
        "{sentence}"
    );
}

fn sorted(entries: &Entries) -> Vec<(&str, &'static str, &str)> {
    let kind = |value: &Value<&str>| {
        if matches!(value, Value::Text(_)) {
            "text"
        } else {
            "JSON"
        }
    };
    let values = entries
        .iter()
        .map(|(key, value)| (key, kind(&value), value));
    let mut sorted: Vec<_> = values
        .map(|(key, kind, value)| match value {
            Value::Text(text) | Value::Json(text) => (key, kind, text),
        })
        .collect();
    sorted.sort_unstable();
    sorted
}

async fn nothing_is_found_or_made_under_an_unknown_id<S: Store>(store: &S) {
    let id = new_id();
    assert!(
        load(store, id).await.is_none(),
        "an unknown id has no record"
    );
    let values = [("key", Value::Text("value"))];
    assert_eq!(
        apply(store, id, &write(&values)).await,
        Applied::Gone,
        "a write never makes a record"
    );
    assert_eq!(
        apply(store, id, &plain(&values)).await,
        Applied::Gone,
        "nor does one that saw it"
    );
    assert_eq!(
        apply(store, id, &renewal(&values)).await,
        Applied::Gone,
        "nor does a renewal"
    );
    assert!(load(store, id).await.is_none());
    assert!(
        store
            .create(id, &write(&values))
            .await
            .expect("the store answers"),
        "and its id stays free"
    );
    assert_entries(load(store, id).await.as_ref(), &values, "for a record");
    destroy(store, id).await;
    destroy(store, id).await;
    assert!(load(store, id).await.is_none());
}

async fn what_is_stored_comes_back<S: Store>(store: &S) {
    let long = "long ".repeat(20_000);
    let values = [
        ("", Value::Text("an empty key")),
        ("empty", Value::Text("")),
        ("中文", Value::Text("测试 🦀")),
        (
            "quotes",
            Value::Text("\" ' ` \\ \n \r \t % _ $ {} [] -- ; \u{7f}"),
        ),
        ("$.\"path\"[0]", Value::Text("a key that looks like a path")),
        ("a'b\"c\\d", Value::Text("a key that ends a string")),
        (
            "\u{1}reserved",
            Value::Text("as session-manager's own keys begin"),
        ),
        ("nul", Value::Text("\0 a \0")),
        ("looks like JSON", Value::Text("{\"a\":null}")),
        ("null", Value::Json("null")),
        ("number", Value::Json("1e400")),
        (
            "order",
            Value::Json("{\"b\":1,\"a\":{\"z\":null,\"y\":[1.0,\"\\u0000\"]}}"),
        ),
        ("long", Value::Text(&long)),
    ];
    let id = new_id();
    let mut first = write(&values);
    first.user = Some("user-of-the-suite".into());
    assert!(store.create(id, &first).await.expect("the store answers"));
    let record = load(store, id).await;
    assert_entries(
        record.as_ref(),
        &values,
        "what is created comes back, to the byte",
    );
    let record = record.expect("it was there a line ago");
    assert_eq!(
        (record.created, record.last_seen, record.expires),
        (*NOW, *NOW, NOW.plus(HOUR))
    );
    assert_eq!(record.version, 1, "a new record is of version 1");
    assert_eq!(record.verifier, FIRST, "it answers to whom it was made for");
    assert_eq!(record.user.as_deref(), Some("user-of-the-suite"));
    destroy(store, id).await;

    let id = create(store, &[]).await;
    assert_entries(load(store, id).await.as_ref(), &[], "a record may be empty");
    assert_eq!(apply(store, id, &write(&values)).await, Applied::Done);
    assert_entries(
        load(store, id).await.as_ref(),
        &values,
        "what is written comes back",
    );
    destroy(store, id).await;

    let id = create(store, &[]).await;
    assert_eq!(apply(store, id, &plain(&values)).await, Applied::Done);
    assert_entries(
        load(store, id).await.as_ref(),
        &values,
        "also what a request writes that saw the record",
    );
    destroy(store, id).await;
}

async fn a_live_record_is_never_overwritten<S: Store>(store: &S) {
    let kept = [("key", Value::Text("first"))];
    let id = create(store, &kept).await;
    let second = write(&[("key", Value::Text("second"))]);
    let created = store.create(id, &second).await.expect("the store answers");
    assert!(!created, "an id that is taken is refused");
    assert_entries(
        load(store, id).await.as_ref(),
        &kept,
        "and its record stays as it was",
    );
    destroy(store, id).await;
}

async fn writes_merge_key_by_key<S: Store>(store: &S) {
    let nested = Value::Json("{\"a\":1,\"b\":null}");
    let id = create(
        store,
        &[
            ("kept", nested),
            ("other", Value::Text("1")),
            ("gone", Value::Json("2")),
        ],
    )
    .await;
    let mut change = write(&[
        ("other", Value::Json("{\"c\":null}")),
        ("new", Value::Text("3")),
    ]);
    change.remove = vec!["gone".into(), "never was".into()];
    change.now = NOW.plus(Duration::from_secs(1));
    change.expires = change.now.plus(HOUR);
    assert_eq!(apply(store, id, &change).await, Applied::Done);
    let record = load(store, id).await;
    let expected = [
        ("kept", nested),
        ("other", Value::Json("{\"c\":null}")),
        ("new", Value::Text("3")),
    ];
    assert_entries(
        record.as_ref(),
        &expected,
        "a write changes the keys that it names, each whole",
    );
    let record = record.expect("it was there a line ago");
    assert_eq!(
        (record.created, record.last_seen, record.expires),
        (*NOW, change.now, change.expires)
    );
    assert_eq!(record.version, 2, "a write counts the version up");

    let whole = write(&[("kept", Value::Json("{\"d\":1}"))]);
    assert_eq!(apply(store, id, &whole).await, Applied::Done);
    let expected = [("kept", Value::Json("{\"d\":1}")), expected[1], expected[2]];
    assert_entries(
        load(store, id).await.as_ref(),
        &expected,
        "an object is replaced, not merged",
    );

    let touch = Write::touch(FIRST, *NOW, NOW.plus(HOUR / 2), NOW.plus(2 * HOUR));
    assert_eq!(apply(store, id, &touch).await, Applied::Done);
    let record = load(store, id).await;
    assert_entries(record.as_ref(), &expected, "a touch changes no value");
    let record = record.expect("it was there a line ago");
    assert_eq!(
        (record.last_seen, record.expires),
        (touch.now, touch.expires),
        "but when it ends"
    );
    assert_eq!(record.version, 3, "and is no new version");

    let mut clear = write(&[("after", Value::Text("4"))]);
    clear.clear = true;
    assert_eq!(apply(store, id, &clear).await, Applied::Done);
    let expected = [("after", Value::Text("4"))];
    assert_entries(
        load(store, id).await.as_ref(),
        &expected,
        "clearing comes before setting",
    );
    clear.set.clear();
    assert_eq!(apply(store, id, &clear).await, Applied::Done);
    assert_entries(
        load(store, id).await.as_ref(),
        &[],
        "an emptied record is empty, and there",
    );
    destroy(store, id).await;
}

async fn a_record_whose_time_is_over_is_gone<S: Store>(store: &S) {
    let id = create(store, &[("key", Value::Text("value"))]).await;
    let last = Timestamp::from_millis(NOW.plus(HOUR).millis() - 1);
    let over = NOW.plus(HOUR);
    let at = |now: Timestamp| async move { store.load(id, now).await.expect("the store answers") };
    assert!(
        at(last).await.is_some(),
        "a record lasts to the last millisecond"
    );
    assert!(at(over).await.is_none(), "and is never served after it");
    let mut late = Write::touch(FIRST, *NOW, over, over.plus(HOUR));
    assert_eq!(
        apply(store, id, &late).await,
        Applied::Gone,
        "nor can it be touched"
    );
    late.new_verifier = Some(SECOND);
    assert_eq!(apply(store, id, &late).await, Applied::Gone, "nor renewed");
    let mut late = plain(&[("late", Value::Text("value"))]);
    (late.now, late.expires) = (over, over.plus(HOUR));
    assert_eq!(apply(store, id, &late).await, Applied::Gone, "nor written");
    let mut again = write(&[("key", Value::Text("again"))]);
    again.now = over;
    again.expires = over.plus(HOUR);
    assert!(
        store.create(id, &again).await.expect("the store answers"),
        "its id is free"
    );
    assert_entries(
        at(over).await.as_ref(),
        &[("key", Value::Text("again"))],
        "for another",
    );
    destroy(store, id).await;
}

/// As in [`Write::expected`].
fn was(values: &[(&str, Option<Value<&str>>)]) -> Vec<(Box<str>, Option<Value>)> {
    let values = values.iter();
    values
        .map(|(key, value)| ((*key).into(), value.map(Value::into_owned)))
        .collect()
}

async fn writes_of_requests_that_saw_the_record_merge_too<S: Store>(store: &S) {
    let id = create(
        store,
        &[("kept", Value::Text("1")), ("gone", Value::Text("2"))],
    )
    .await;
    // Each ends later than the one before, as in a session that is used.
    for step in 1..=20_u32 {
        let count = step.to_string();
        let mut change = plain(&[("count", Value::Json(&count))]);
        change.now = NOW.plus(step * HOUR / 4);
        (change.expires, change.seen_expires) =
            (change.now.plus(HOUR), Some(change.now.plus(HOUR / 2)));
        change.remove = vec!["gone".into(), "never was".into()];
        assert_eq!(apply(store, id, &change).await, Applied::Done);
        let record = store.load(id, change.now).await.expect("the store answers");
        let values = [("kept", Value::Text("1")), ("count", Value::Json(&count))];
        assert_entries(record.as_ref(), &values, "it has what was written");
        let record = record.expect("it was there a line ago");
        assert_eq!(
            (record.created, record.last_seen, record.expires),
            (*NOW, change.now, change.expires),
            "and ends when the last write says"
        );
        let last = Timestamp::from_millis(change.expires.millis() - 1);
        if step == 20 {
            // A store may delete what is over when it is told so.
            let at = |now: Timestamp| async move {
                store.load(id, now).await.expect("the store answers")
            };
            assert!(at(last).await.is_some() && at(change.expires).await.is_none());
        }
    }
    destroy(store, id).await;
}

async fn a_write_for_another_version_is_a_conflict<S: Store>(store: &S) {
    let (first, second) = (Value::Text("first"), Value::Text("second"));
    let id = create(store, &[("key", first)]).await;
    let mut change = write(&[("key", second)]);
    for (other, value) in [(0, Some(first)), (2, Some(second)), (2, None)] {
        change.if_version = Some(other);
        change.expected = was(&[("key", value)]);
        for new_verifier in [None, Some(SECOND)] {
            change.new_verifier = new_verifier;
            assert_eq!(apply(store, id, &change).await, Applied::Conflict);
        }
    }
    let record = load(store, id).await;
    assert_entries(
        record.as_ref(),
        &[("key", first)],
        "a conflict writes nothing",
    );
    let record = record.expect("it was there a line ago");
    assert_eq!((record.verifier, record.version), (FIRST, 1), "nor renews");
    change.if_version = Some(1);
    change.expected = was(&[("key", Some(first))]);
    assert_eq!(apply(store, id, &change).await, Applied::Done);
    assert_entries(
        load(store, id).await.as_ref(),
        &[("key", second)],
        "a match writes",
    );
    let record = load(store, id).await.expect("it was there a line ago");
    assert_eq!((record.verifier, record.version), (SECOND, 2), "and renews");
    destroy(store, id).await;

    // What another request writes meanwhile is noticed, in whichever way it was written.
    let third = Value::Json("3");
    for seen in [None, Some(NOW.plus(HOUR))] {
        for (key, old) in [("key", Some(first)), ("new", None)] {
            for removes in [false, true] {
                let id = create(store, &[("key", first)]).await;
                let record = load(store, id).await.expect("it was just created");
                let mut faster = write(&[(key, third)]);
                faster.seen_expires = seen;
                if removes && old.is_some() {
                    faster.set.clear();
                    faster.remove = vec![key.into()];
                }
                assert_eq!(apply(store, id, &faster).await, Applied::Done);
                let mut slower = write(&[(key, second)]);
                slower.if_version = Some(record.version);
                slower.expected = was(&[(key, old)]);
                assert_eq!(
                    apply(store, id, &slower).await,
                    Applied::Conflict,
                    "the value that {slower:?} was computed from is not there any more"
                );
                let record = load(store, id).await.expect("the record was not destroyed");
                slower.if_version = Some(record.version);
                slower.expected = was(&[(key, record.entries.get(key))]);
                assert_eq!(apply(store, id, &slower).await, Applied::Done);
                let record = load(store, id).await.expect("the record was not destroyed");
                assert_eq!(record.entries.get(key), Some(second), "then it is written");
                destroy(store, id).await;
            }
        }
    }

    // A write that clears is computed from all values.
    for seen in [None, Some(NOW.plus(HOUR))] {
        let id = create(store, &[("key", first)]).await;
        let mut faster = write(&[("other", third)]);
        faster.seen_expires = seen;
        let mut clear = renewal(&[]);
        (clear.clear, clear.if_version) = (true, Some(1));
        clear.expected = was(&[("key", Some(first))]);
        assert_eq!(apply(store, id, &faster).await, Applied::Done);
        assert_eq!(
            apply(store, id, &clear).await,
            Applied::Conflict,
            "a value was added that it does not know"
        );
        let record = load(store, id).await.expect("the record was not destroyed");
        clear.if_version = Some(record.version);
        clear.expected = was(&[("key", Some(first)), ("other", Some(third))]);
        assert_eq!(apply(store, id, &clear).await, Applied::Done);
        assert_entries(load(store, id).await.as_ref(), &[], "then all are gone");
        destroy(store, id).await;
    }
}

async fn a_renewed_record_answers_to_the_new_verifier_alone<S: Store>(store: &S) {
    let first = [("kept", Value::Text("1")), ("gone", Value::Text("2"))];
    let id = create(store, &first).await;
    let later = NOW.plus(Duration::from_secs(60));
    let mut change = renewal(&[("user", Value::Text("ada"))]);
    (change.created, change.now, change.expires) = (later, later, later.plus(HOUR));
    change.remove = vec!["gone".into()];
    assert_eq!(apply(store, id, &change).await, Applied::Done);
    let record = load(store, id).await;
    let expected = [("kept", Value::Text("1")), ("user", Value::Text("ada"))];
    assert_entries(
        record.as_ref(),
        &expected,
        "a renewed record has its data, and what was written",
    );
    let record = record.expect("it was there a line ago");
    assert_eq!(record.verifier, SECOND, "and answers to the new verifier");
    assert_eq!(
        (record.created, record.last_seen, record.expires),
        (later, later, later.plus(HOUR)),
        "it begins again"
    );
    assert_eq!(record.version, 2);

    let values = [("late", Value::Text("3"))];
    let mut clear = write(&values);
    clear.clear = true;
    let mut of_another_version = write(&values);
    of_another_version.if_version = Some(1);
    of_another_version.expected = was(&[("user", None)]);
    let mut of_this_version = write(&values);
    of_this_version.if_version = Some(2);
    of_this_version.expected = was(&[("late", None)]);
    let mut of_a_user = write(&[]);
    of_a_user.user = Some("late".into());
    for late in [
        write(&values),
        plain(&values),
        write(&[]),
        renewal(&values),
        renewal(&[]),
        clear,
        of_another_version,
        of_this_version,
        of_a_user,
    ] {
        assert_eq!(
            apply(store, id, &late).await,
            Applied::Gone,
            "for the old verifier it is gone: {late:?}"
        );
    }
    let after = load(store, id).await;
    assert_entries(after.as_ref(), &expected, "whose late writes write nothing");
    let after = after.expect("it was there a line ago");
    assert_eq!(
        (
            after.verifier,
            after.created,
            after.last_seen,
            after.expires
        ),
        (SECOND, later, later, later.plus(HOUR))
    );
    assert_eq!((after.version, after.user), (2, None));

    let mut next = write(&[("next", Value::Text("4"))]);
    next.verifier = SECOND;
    assert_eq!(apply(store, id, &next).await, Applied::Done);
    let record = load(store, id).await.expect("the record was not destroyed");
    assert_eq!(record.entries.len(), 3, "the new verifier writes");
    assert_eq!(
        (record.verifier, record.created),
        (SECOND, later),
        "and what is no renewal leaves whose it is, and when it began"
    );

    let mut back = renewal(&[]);
    (back.verifier, back.new_verifier) = (SECOND, Some(FIRST));
    assert_eq!(apply(store, id, &back).await, Applied::Done);
    let record = load(store, id).await.expect("the record was not destroyed");
    assert_eq!(
        (record.verifier, record.created, record.version),
        (FIRST, *NOW, 3),
        "a renewal may write nothing else, and is then no new version"
    );
    destroy(store, id).await;
}

async fn destroying_ends_a_renewed_record<S: Store>(store: &S) {
    let id = create(store, &[("key", Value::Text("value"))]).await;
    assert_eq!(apply(store, id, &renewal(&[])).await, Applied::Done);
    destroy(store, id).await;
    assert!(
        load(store, id).await.is_none(),
        "an id ends its record, renewed or not"
    );
    let mut late = write(&[("key", Value::Text("late"))]);
    for verifier in [FIRST, SECOND] {
        for seen in [None, Some(late.expires)] {
            (late.verifier, late.seen_expires) = (verifier, seen);
            assert_eq!(apply(store, id, &late).await, Applied::Gone);
        }
    }
    assert!(load(store, id).await.is_none());
}

async fn what_was_destroyed_stays_destroyed<S: Store>(store: &S) {
    let id = create(store, &[("key", Value::Text("value"))]).await;
    destroy(store, id).await;
    assert!(
        load(store, id).await.is_none(),
        "a destroyed record is gone"
    );
    let late = write(&[("key", Value::Text("late"))]);
    assert_eq!(
        apply(store, id, &late).await,
        Applied::Gone,
        "a late write does not revive it"
    );
    let late = plain(&[("key", Value::Text("late"))]);
    assert_eq!(apply(store, id, &late).await, Applied::Gone);
    assert_eq!(
        apply(store, id, &renewal(&[])).await,
        Applied::Gone,
        "nor does a late renewal"
    );
    assert!(load(store, id).await.is_none());
    destroy(store, id).await;
}
