//! Calls that overlap.

use std::{
    panic::resume_unwind,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::mpsc};

use super::{apply, assert_entries, create, destroy, load, plain, renewal, write};
use crate::{changes::write::Applied, record::id::Verifier, store::Store, value::Value};

/// For how long calls overlap at least: a store that answers at once is asked thousands of times.
const OVERLAP: Duration = Duration::from_millis(100);

/// Runs `task` as many times as said at the same moment, and returns what each returned.
///
/// Each has a thread, so that a store that is not atomic and never awaits is found out on any
/// runtime. The runtime goes on meanwhile, for it may drive the store's connections.
pub(super) async fn at_once<S, F, T>(
    store: &Arc<S>,
    times: usize,
    task: impl Fn(Arc<S>, usize) -> F,
) -> Vec<T>
where
    S: Store,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let ready = Arc::new(Barrier::new(times));
    let (done, mut finished) = mpsc::unbounded_channel();
    let threads: Vec<_> = (0..times)
        .map(|number| {
            let (task, ready) = (task(Arc::clone(store), number), Arc::clone(&ready));
            let (runtime, done) = (Handle::current(), done.clone());
            thread::spawn(move || {
                ready.wait();
                // No task receives it if the suite was given up.
                let _ = done.send(runtime.block_on(task));
            })
        })
        .collect();
    drop(done);
    let mut results = Vec::with_capacity(times);
    while let Some(result) = finished.recv().await {
        results.push(result);
    }
    for thread in threads {
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
    }
    results
}

pub(super) async fn writes_that_overlap_all_survive<S: Store>(store: &Arc<S>) {
    writes_survive(store, false).await;
    writes_survive(store, true).await;
}

async fn writes_survive<S: Store>(store: &Arc<S>, is_plain: bool) {
    let id = create(&**store, &[]).await;
    let written = at_once(store, 50, move |store, number| async move {
        let (key, begun) = (format!("key{number}"), Instant::now());
        let make = if is_plain { plain } else { write };
        for count in 1_u64.. {
            let change = make(&[(&key, Value::Text(&count.to_string()))]);
            assert_eq!(apply(&*store, id, &change).await, Applied::Done);
            if begun.elapsed() >= OVERLAP {
                return (key, count);
            }
        }
        unreachable!("it ends after a while")
    });
    let written = written.await;
    let record = load(&**store, id)
        .await
        .expect("the record was not destroyed");
    for (key, count) in &written {
        let count = count.to_string();
        assert_eq!(
            record.entries.get(key),
            Some(Value::Text(&*count)),
            "of 50 writers at once each finds its last write"
        );
    }
    let writes: u64 = written.iter().map(|(_, count)| count).sum();
    if !is_plain {
        assert_eq!(record.version, 1 + writes, "and each write counts");
    }
    destroy(&**store, id).await;
}

pub(super) async fn updates_that_overlap_all_count<S: Store>(store: &Arc<S>) {
    let id = create(&**store, &[("count", Value::Json("0"))]).await;
    let added = at_once(store, 50, |store, _| async move {
        let (mut added, begun) = (0_u64, Instant::now());
        while added == 0 || begun.elapsed() < OVERLAP {
            let record = load(&*store, id)
                .await
                .expect("the record was not destroyed");
            let count: u64 = record
                .entries
                .get("count")
                .expect("it is there")
                .decode()
                .expect("a number");
            let next = (count + 1).to_string();
            let mut change = write(&[("count", Value::Json(&next))]);
            change.if_version = Some(record.version);
            let was = Value::Json(count.to_string().into());
            change.expected = vec![("count".into(), Some(was))];
            if apply(&*store, id, &change).await == Applied::Done {
                added += 1;
            }
        }
        added
    });
    let added: u64 = added.await.into_iter().sum();
    assert_entries(
        load(&**store, id).await.as_ref(),
        &[("count", Value::Json(&added.to_string()))],
        "of increments at once all count",
    );
    destroy(&**store, id).await;
}

pub(super) async fn destroying_wins_every_race<S: Store>(store: &Arc<S>) {
    for round in 0..10 {
        let id = create(&**store, &[("key", Value::Text("value"))]).await;
        at_once(store, 12, |store, number| async move {
            let change = [("key", Value::Text("late"))];
            match number {
                // Among the first in one round, among the last in another.
                _ if number == round => destroy(&*store, id).await,
                _ if number % 4 == 0 => drop(apply(&*store, id, &write(&change)).await),
                _ if number % 2 == 0 => drop(apply(&*store, id, &plain(&change)).await),
                _ => drop(apply(&*store, id, &renewal(&change)).await),
            }
        })
        .await;
        assert!(
            load(&**store, id).await.is_none(),
            "what was destroyed in a race is gone, renewed or not"
        );
    }
}

pub(super) async fn of_renewals_at_once_the_first_wins<S: Store>(store: &Arc<S>) {
    for _ in 0..10 {
        let id = create(&**store, &[("kept", Value::Text("value"))]).await;
        let done = at_once(store, 8, |store, number| async move {
            let key = format!("key{number}");
            let make = if number % 4 == 1 { write } else { plain };
            let mut change = make(&[(&key, Value::Text("value"))]);
            if number % 2 == 0 {
                change.new_verifier = Some(new_verifier(number));
            }
            (apply(&*store, id, &change).await == Applied::Done).then_some(number)
        });
        let done: Vec<_> = done.await.into_iter().flatten().collect();
        let record = load(&**store, id)
            .await
            .expect("the record was not destroyed");
        let renewals = done.iter().filter(|number| *number % 2 == 0);
        let won: Vec<_> = renewals.map(|number| new_verifier(*number)).collect();
        assert_eq!(won, [record.verifier], "of renewals at once one wins");
        let written = done.iter().map(|number| format!("key{number}"));
        let mut keys: Vec<_> = written.chain(["kept".to_owned()]).collect();
        keys.sort_unstable();
        let mut found: Vec<_> = record.entries.iter().map(|(key, _)| key).collect();
        found.sort_unstable();
        assert_eq!(
            found, keys,
            "what was written before the renewal or with it is there, and nothing else"
        );
        destroy(&**store, id).await;
    }
}

fn new_verifier(number: usize) -> Verifier {
    Verifier::from_bytes([10 + number as u8; 32])
}
