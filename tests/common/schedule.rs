//! Every order in which requests can take their steps, of which each call of a store is one.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use session_manager::{
    MemoryStore, Store, StoreError, Timestamp,
    backend::BackendFuture,
    store::{Applied, Page, Record, SessionSummary, StoreId, UserIndex, Write},
};

/// Calls `run` once for every combination of its choices, and returns how many there were. The function
/// that `run` receives chooses one of the given number.
pub fn every_schedule(mut run: impl FnMut(&mut dyn FnMut(usize) -> usize)) -> usize {
    let mut choices: Vec<(usize, usize)> = Vec::new();
    for count in 1.. {
        let mut depth = 0;
        run(&mut |of| {
            if depth == choices.len() {
                choices.push((0, of));
            }
            let (chosen, was_of) = choices[depth];
            assert_eq!(of, was_of, "the same choices lead to the same state");
            depth += 1;
            chosen
        });
        while choices.pop_if(|(chosen, of)| *chosen + 1 == *of).is_some() {}
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return count,
        }
    }
    unreachable!("it has an end")
}

/// How a call of a store fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The call does nothing.
    Refuses,
    /// The call succeeds, and its reply comes too late.
    AnswersLate,
}

thread_local! {
    /// The number of polls so far: everything within one poll is one turn.
    static TURN: Cell<u64> = const { Cell::new(0) };
    /// The fault of the next call of a store.
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Waits for the next turn.
pub async fn step() {
    let begun = TURN.get();
    poll_fn(|context| match TURN.get() > begun {
        true => Poll::Ready(()),
        false => {
            // The test polls without being woken; spawned tasks need the waker.
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    poll_waking(future, Waker::noop())
}

fn poll_waking<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    TURN.set(TURN.get() + 1);
    future.poll(&mut Context::from_waker(waker))
}

/// Whether a request can go on: it waits for its turn, or what it waited for has come.
pub struct Ready(AtomicBool);

impl Ready {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Polls, and lets the call of a store in it fail; returns also whether there was one.
    pub fn poll<F: Future + ?Sized>(
        self: &Arc<Self>,
        future: Pin<&mut F>,
        fault: Option<Fault>,
    ) -> (Poll<F::Output>, bool) {
        FAULT.set(fault);
        self.0.store(false, Ordering::SeqCst);
        let polled = poll_waking(future, &Arc::clone(self).into());
        (polled, FAULT.take() != fault)
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns a runtime whose clock moves only when every task waits for it.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

/// Moves the clock beyond every pause, which are random and shorter.
pub async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(64)).await;
}

/// Runs tasks until each of them waits or has ended.
pub async fn settle() {
    for _ in 0..32 {
        TURN.set(TURN.get() + 1);
        tokio::task::yield_now().await;
    }
}

/// A store that waits before each call until the next turn.
#[derive(Clone, Default)]
pub struct Stepwise(pub MemoryStore);

async fn call<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    step().await;
    match FAULT.take() {
        None => call.await,
        Some(Fault::Refuses) => Err(StoreError::failed(
            "stepwise",
            std::io::Error::other("connection refused"),
        )),
        Some(Fault::AnswersLate) => {
            call.await?;
            Err(StoreError::TimedOut {
                store: "stepwise",
                millis: 2_000,
            })
        }
    }
}

impl Store for Stepwise {
    fn name(&self) -> &'static str {
        "stepwise"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        call(self.0.load(id, now)).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        call(self.0.create(id, write)).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        call(self.0.apply(id, write)).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        call(self.0.destroy(id)).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }
}

impl Stepwise {
    fn index(&self) -> &dyn UserIndex {
        self.0.users().expect("memory has an index of users")
    }
}

impl UserIndex for Stepwise {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        BackendFuture::pending(call(self.index().sessions_of(user, from, now)))
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        BackendFuture::pending(call(self.index().ids_of(user, from)))
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        BackendFuture::pending(call(self.index().destroy_of(user, ids)))
    }
}
