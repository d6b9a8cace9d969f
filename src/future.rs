//! The future of a backend or a store: a result at once, or one that takes time.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// What a [`Backend`](crate::Backend) returns: a result at once, or a future.
///
/// A backend that does no I/O pays for no future on the heap.
pub struct BackendFuture<'a, T>(State<'a, T>);

enum State<'a, T> {
    Ready(Option<T>),
    Pending(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

/// Polls once; returns the result if it is ready.
#[cfg(feature = "server-side")]
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

impl<'a, T> BackendFuture<'a, T> {
    /// Creates a future whose result is there.
    pub fn ready(result: T) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// Polls once; returns the result if it is ready. What answers at once, as a store
    /// in memory does, is finished where it stands. A caller that waits polls again, and is woken.
    ///
    /// Not to be called with a session locked: a backend may call what the application gave to
    /// [`update`](crate::Session::update).
    pub(crate) fn now(mut self) -> Result<T, Self> {
        self.take_now().ok_or(self)
    }

    /// Returns the result as [`now`](Self::now) does, and keeps the future if it has to be awaited.
    pub(crate) fn take_now(&mut self) -> Option<T> {
        match &mut self.0 {
            State::Ready(result) => result.take(),
            State::Pending(future) => {
                match future
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                }
            }
        }
    }

    /// Creates a future whose result takes time.
    pub fn pending(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(State::Pending(Box::pin(future)))
    }
}

impl<T: Unpin> Future for BackendFuture<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.get_mut().0 {
            #[expect(
                clippy::expect_used,
                reason = "the contract of `Future`, as in `std::future::Ready`"
            )]
            State::Ready(result) => Poll::Ready(result.take().expect("polled after it was ready")),
            State::Pending(future) => future.as_mut().poll(context),
        }
    }
}

impl<T> fmt::Debug for BackendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "BackendFuture(ready)",
            State::Pending(_) => "BackendFuture(pending)",
        })
    }
}
