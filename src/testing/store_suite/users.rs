//! The index of users.

use std::sync::Arc;

use super::{
    HOUR, NOW, SECOND, apply, create, destroy, load, new_id, overlap::at_once, renewal, write,
};
use crate::{
    changes::write::Applied,
    expiry::Timestamp,
    record::id::StoreId,
    store::{Page, SessionSummary, Store, StoreError, UserIndex},
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
