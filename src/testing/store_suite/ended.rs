//! What a store reports of records that end.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use super::{FIRST, NOW, apply, create, destroy, renewal, write};
use crate::{
    changes::write::{Applied, Write},
    store::{
        Store,
        endings::{Endings, Heard, tag_of},
    },
    value::Value,
};

/// How long a report may take.
const LIMIT: Duration = Duration::from_secs(10);

async fn next(endings: &Endings, sentence: &str) -> Heard {
    let heard = poll_fn(|context| endings.poll(context));
    let heard = tokio::time::timeout(LIMIT, heard).await;
    heard.unwrap_or_else(|_| panic!("{sentence}"))
}

pub(super) async fn records_that_are_destroyed_are_reported<S: Store>(store: &Arc<S>) {
    let endings = Endings::default();
    let watching = {
        let (store, endings) = (Arc::clone(store), endings.clone());
        tokio::spawn(async move { store.watch_ended(&endings).await })
    };
    let mut watching = pin!(watching);
    let begun = poll_fn(|context| {
        if let Poll::Ready(heard) = endings.poll(context)
            && heard.is_complete
        {
            return Poll::Ready(None);
        }
        watching.as_mut().poll(context).map(Some)
    });
    let begun = tokio::time::timeout(LIMIT, begun).await;
    let begun = begun.expect("a store says whether it reports the records that are destroyed");
    if let Some(cannot) = begun {
        let cannot = cannot.expect("watching does not panic");
        return cannot.expect("a store can be watched");
    }
    let values = [("key", Value::Text("value"))];
    let (gone, kept) = (
        create(&**store, &values).await,
        create(&**store, &values).await,
    );
    assert_eq!(apply(&**store, kept, &write(&values)).await, Applied::Done);
    assert_eq!(
        apply(&**store, kept, &renewal(&values)).await,
        Applied::Done
    );
    destroy(&**store, gone).await;
    let mut of_user = None;
    if let Some(index) = store.users() {
        let id = create(&**store, &values).await;
        let user = format!("reported {id}");
        let mut write = Write::touch(FIRST, *NOW, *NOW, NOW.plus(super::HOUR));
        write.user = Some(user.as_str().into());
        assert_eq!(apply(&**store, id, &write).await, Applied::Done);
        let ended = index.destroy_of(&user, &[id]).await;
        assert_eq!(ended.expect("the store answers"), 1);
        of_user = Some(id);
    }
    let mut missing: Vec<_> = [Some(gone), of_user]
        .into_iter()
        .flatten()
        .map(tag_of)
        .collect();
    while !missing.is_empty() {
        let heard = next(&endings, "a record that is destroyed is reported").await;
        assert!(heard.is_complete, "a store goes on to report");
        assert!(
            !heard.tags.contains(&tag_of(kept)),
            "a record that is renewed has not ended"
        );
        missing.retain(|tag| !heard.tags.contains(tag));
    }
    destroy(&**store, kept).await;
    watching.abort();
}
