//! The index of users.

use std::sync::Arc;

use super::{
    HOUR, MINUTE, NOW, SECOND, SHORT, apply, create, destroy, load, new_id, overlap::at_once,
    renewal, write,
};
use crate::{
    changes::write::Applied,
    expiry::Timestamp,
    record::id::StoreId,
    store::{Page, Reservation, SessionSummary, Store, StoreError, UserIndex},
    value::Value,
};

/// Every page of a list, one after the other.
async fn all_pages<T>(page: impl AsyncFn(Vec<u8>) -> Result<Page<T>, StoreError>) -> Vec<T> {
    let (mut all, mut from) = (Vec::new(), Vec::new());
    loop {
        let page = page(from).await.expect("the store answers");
        all.extend(page.items);
        match page.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

async fn listed(index: &dyn UserIndex, user: &str, now: Timestamp) -> Vec<SessionSummary> {
    let mut all = all_pages(async |from| index.sessions_of(user, &from, now).await).await;
    all.sort_unstable_by_key(|session| session.id);
    all
}

async fn stored(index: &dyn UserIndex, user: &str) -> Vec<StoreId> {
    let mut all = all_pages(async |from| index.ids_of(user, &from).await).await;
    all.sort_unstable();
    all
}

/// A user whom no other run knows.
fn new_user(what: &str) -> String {
    format!("{what} of \"suite\" {}", new_id())
}

pub(super) async fn a_users_sessions_are_found<S: Store>(store: &S) {
    let index = store.users().expect("asked before");
    let (user, other) = (new_user("用户"), new_user("other"));
    let of = async |user: &str, now: Timestamp| {
        let found = listed(index, user, now).await;
        let ids: Vec<_> = found.into_iter().map(|session| session.id).collect();
        if now == *NOW {
            assert_eq!(stored(index, user).await, ids, "both lists agree");
        }
        ids
    };
    assert_eq!(of(&user, *NOW).await, [], "an unknown user has no sessions");

    let values = [
        (SessionSummary::NOTE, Value::Text("a \"note\" 测试")),
        ("key", Value::Text("value")),
    ];
    let mut theirs = write(&values);
    theirs.user = Some(user.as_str().into());
    let one = new_id();
    assert!(store.create(one, &theirs).await.expect("the store answers"));
    let two = create(store, &[]).await;
    assert_eq!(apply(store, two, &theirs).await, Applied::Done);
    let mut both = [one, two];
    both.sort_unstable();
    assert_eq!(
        of(&user, *NOW).await,
        both,
        "sessions are found from the write on that set their user"
    );
    for session in listed(index, &user, *NOW).await {
        assert_eq!(session.note.as_deref(), Some("a \"note\" 测试"));
        assert_eq!(
            (session.created, session.last_seen, session.expires),
            (*NOW, *NOW, NOW.plus(HOUR)),
            "a summary says when a session began, was seen and ends"
        );
    }

    assert_eq!(apply(store, two, &renewal(&[])).await, Applied::Done);
    assert_eq!(
        of(&user, *NOW).await,
        both,
        "a renewed session is found once"
    );

    theirs.user = Some(other.as_str().into());
    assert_eq!(apply(store, two, &theirs).await, Applied::Gone);
    assert_eq!(
        (of(&user, *NOW).await, of(&other, *NOW).await),
        (both.to_vec(), vec![]),
        "a write that failed sets no user"
    );
    theirs.verifier = SECOND;
    assert_eq!(apply(store, two, &theirs).await, Applied::Done);
    assert_eq!(of(&user, *NOW).await, [one], "a session is one user's");
    assert_eq!(of(&other, *NOW).await, [two], "that of the last write");

    assert_eq!(
        of(&user, NOW.plus(HOUR)).await,
        [],
        "a session whose time is over is not listed"
    );
    destroy(store, one).await;
    assert_eq!(of(&user, *NOW).await, [], "nor one that was destroyed");
    destroy(store, two).await;
    assert_eq!(of(&other, *NOW).await, [], "renewed or not");
}

/// More than any page has.
pub(super) async fn a_users_many_sessions_end_page_by_page<S: Store>(store: &Arc<S>) {
    let index = store.users().expect("asked before");
    let (user, other) = (new_user("many"), new_user("other"));
    let create_of = |store: Arc<S>, user: String| async move {
        let mut theirs = write(&[("key", Value::Text("value"))]);
        theirs.user = Some(user.into());
        let id = new_id();
        assert!(store.create(id, &theirs).await.expect("the store answers"));
        id
    };
    let created = at_once(store, 25, |store, _| {
        let user = user.clone();
        async move {
            let mut ids = Vec::new();
            for _ in 0..100 {
                ids.push(create_of(Arc::clone(&store), user.clone()).await);
            }
            ids
        }
    });
    let mut created = created.await.concat();
    created.sort_unstable();
    let foreign = create_of(Arc::clone(store), other.clone()).await;
    let found = listed(index, &user, *NOW).await;
    let mut ids: Vec<_> = found.into_iter().map(|session| session.id).collect();
    ids.dedup();
    assert!(ids == created, "all 2,500 sessions are listed");
    let mut ids = stored(index, &user).await;
    ids.dedup();
    assert!(ids == created, "and all their ids");

    let destroy_of = async |user: &str, ids: &[StoreId]| {
        let ended = index.destroy_of(user, ids).await;
        ended.expect("the store answers")
    };
    assert_eq!(
        destroy_of(&user, &[foreign, new_id()]).await,
        0,
        "the id of another user's session ends nothing"
    );
    assert_eq!(destroy_of(&user, &[]).await, 0);
    assert!(load(&**store, foreign).await.is_some());
    assert_eq!(destroy_of(&user, &created[..1]).await, 1);
    assert_eq!(destroy_of(&user, &created[..1]).await, 0, "once");
    assert!(load(&**store, created[0]).await.is_none());
    assert_eq!(
        destroy_of(&user, &[created[1], foreign, created[2]]).await,
        2,
        "a page ends the user's own alone"
    );
    let kept = created[3];
    let (mut ended, mut from) = (0, Vec::new());
    loop {
        let page = index.ids_of(&user, &from).await;
        let page = page.expect("the store answers");
        let ids: Vec<_> = page.items.into_iter().filter(|id| *id != kept).collect();
        ended += destroy_of(&user, &ids).await;
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(ended, 2_496, "what ends meanwhile disturbs no list");
    assert_eq!(stored(index, &user).await, [kept], "but one are ended");
    assert!(load(&**store, kept).await.is_some());
    assert_eq!(destroy_of(&user, &[kept]).await, 1);
    assert_eq!(stored(index, &user).await, []);
    destroy(&**store, foreign).await;
}

fn place(of: StoreId, max: usize) -> Reservation {
    Reservation::new(of, max, *NOW, NOW.plus(MINUTE))
}

async fn reserve<S: Store>(store: &S, user: &str, place: &Reservation) -> bool {
    let limit = store.users().and_then(UserIndex::limit);
    let reserving = limit.expect("asked before").reserve(user, place);
    reserving.await.expect("the store answers")
}

pub(super) async fn a_user_has_no_more_sessions_than_allowed<S: Store>(store: &S) {
    let index = store.users().expect("asked before");
    let (user, other) = (new_user("limited"), new_user("other"));
    let create_of = async |user: &str, expires| {
        let (id, mut theirs) = (new_id(), write(&[("key", Value::Text("value"))]));
        theirs.expires = expires;
        theirs.user = Some(user.into());
        assert!(store.create(id, &theirs).await.expect("the store answers"));
        id
    };
    let release = async |id: StoreId| {
        let released = index.destroy_of(&user, &[id]).await;
        released.expect("the store answers")
    };
    let (one, two) = (new_id(), new_id());
    assert!(reserve(store, &user, &place(one, 2)).await);
    assert!(reserve(store, &user, &place(two, 2)).await);
    assert!(
        !reserve(store, &user, &place(new_id(), 2)).await,
        "a reservation takes a place"
    );
    assert!(
        reserve(store, &user, &place(one, 2)).await,
        "that of the session itself is renewed"
    );
    assert!(
        reserve(store, &other, &place(new_id(), 1)).await,
        "of one user alone"
    );
    assert!(
        load(store, one).await.is_none(),
        "a reservation is no session"
    );
    assert_eq!(
        release(place(one, 2).id()).await,
        1,
        "a place is given back"
    );
    assert_eq!(release(place(one, 2).id()).await, 0, "once");

    let begun = create_of(&user, NOW.plus(HOUR)).await;
    assert!(
        !reserve(store, &user, &place(one, 2)).await,
        "sessions and reservations count"
    );
    assert!(
        reserve(store, &user, &place(begun, 2)).await,
        "but the session that it is for does not"
    );
    assert!(
        reserve(store, &user, &place(one, 3)).await,
        "a session and its reservation count as one"
    );
    assert_eq!(release(place(one, 3).id()).await, 1);
    assert_eq!(release(place(begun, 2).id()).await, 1);
    assert_eq!(release(place(two, 2).id()).await, 1);

    let over = create_of(&user, NOW.plus(SHORT)).await;
    let mut later = place(one, 2);
    later.now = NOW.plus(SHORT);
    assert!(!reserve(store, &user, &place(one, 2)).await);
    assert!(
        reserve(store, &user, &later).await,
        "a session whose time is over does not count"
    );
    assert_eq!(release(place(one, 2).id()).await, 1);
    destroy(store, over).await;
    assert!(
        reserve(store, &user, &place(one, 2)).await,
        "nor one that was destroyed"
    );
    let mut past = place(two, 2);
    past.now = NOW.plus(MINUTE);
    past.until = past.now.plus(MINUTE);
    assert!(
        reserve(store, &user, &past).await,
        "a place is free again after its time"
    );
    for id in [begun, place(one, 2).id(), past.id()] {
        destroy(store, id).await;
    }

    let mut full = place(one, 2);
    full.elsewhere = vec![new_id(), one];
    assert!(reserve(store, &user, &full).await);
    full.elsewhere.push(new_id());
    assert!(
        !reserve(store, &user, &full).await,
        "sessions of another store count"
    );
    destroy(store, full.id()).await;
    assert_eq!(stored(index, &user).await, [], "nothing stays behind");
}

pub(super) async fn of_reservations_at_once_no_more_are_made_than_allowed<S: Store>(
    store: &Arc<S>,
) {
    for max in [1, 3] {
        let user = new_user("at once");
        let reserved = at_once(store, 12, |store, _| {
            let user = user.clone();
            async move {
                let place = place(new_id(), max);
                reserve(&*store, &user, &place).await.then(|| place.id())
            }
        });
        let reserved: Vec<_> = reserved.await.into_iter().flatten().collect();
        assert_eq!(reserved.len(), max, "of 12 log-ins at once");
        for id in reserved {
            destroy(&**store, id).await;
        }
    }
}

/// As a log-in does: it reserves, writes the session, and gives the place back.
pub(super) async fn log_ins_at_once_leave_no_more_sessions_than_allowed<S: Store>(store: &Arc<S>) {
    for max in [1, 2].repeat(10) {
        let user = new_user("log-ins");
        let made = at_once(store, 12, |store, number| {
            let user = user.clone();
            async move {
                let anonymous = match number % 2 {
                    0 => Some(create(&*store, &[]).await),
                    _ => None,
                };
                let place = place(anonymous.unwrap_or_else(new_id), max);
                if !reserve(&*store, &user, &place).await {
                    return anonymous;
                }
                let mut theirs = write(&[("key", Value::Text("value"))]);
                theirs.user = Some(user.as_str().into());
                if anonymous.is_some() {
                    assert_eq!(apply(&*store, place.session, &theirs).await, Applied::Done);
                } else {
                    let created = store.create(place.session, &theirs).await;
                    assert!(created.expect("the store answers"));
                }
                let index = store.users().expect("asked before");
                let released = index.destroy_of(&user, &[place.id()]).await;
                assert_eq!(released.expect("the store answers"), 1);
                Some(place.session)
            }
        });
        let made = made.await;
        let index = store.users().expect("asked before");
        let found = listed(index, &user, *NOW).await;
        assert_eq!(found.len(), max, "of 12 log-ins at once");
        for id in made.into_iter().flatten() {
            destroy(&**store, id).await;
        }
    }
}
