//! Measures calls of a store, and gives each its span.

use std::time::Instant;

use super::{CallOutcome, Event, Names, Observers, Operation};

/// A call of a store that is under way. It is told when it is dropped.
pub(crate) struct Timed<'o> {
    observers: &'o Observers,
    store: &'static str,
    operation: Operation,
    names: Names,
    begun: Instant,
    /// What a call that is dropped before its end is told as.
    pub(crate) outcome: CallOutcome,
    held: Option<&'o mut Vec<Told>>,
}

impl<'o> Timed<'o> {
    /// Begins to measure. The event goes to `held`, if the caller tells it later.
    pub(crate) fn begin(
        observers: &'o Observers,
        store: &'static str,
        operation: Operation,
        names: impl FnOnce() -> Names,
        held: Option<&'o mut Vec<Told>>,
    ) -> Self {
        Self {
            observers,
            store,
            operation,
            names: observers.names(names),
            begun: Instant::now(),
            outcome: CallOutcome::Cancelled,
            held,
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let event = Event::StoreCall {
            operation: self.operation,
            took: self.begun.elapsed(),
            outcome: self.outcome,
        };
        let names = std::mem::take(&mut self.names);
        match &mut self.held {
            Some(held) => held.push(Told { event, names }),
            None => self.observers.tell_of(self.store, event, &names),
        }
    }
}

/// An event that is to be told.
pub(crate) struct Told {
    event: Event,
    names: Names,
}

/// Events that are told once the caller has let go of what others wait for.
pub(crate) struct Held<'o> {
    pub(crate) observers: Option<&'o Observers>,
    pub(crate) store: &'static str,
    pub(crate) events: Vec<Told>,
}

impl Held<'_> {
    pub(crate) fn push(&mut self, event: Event, names: impl FnOnce() -> Names) {
        if let Some(observers) = self.observers {
            let names = observers.names(names);
            self.events.push(Told { event, names });
        }
    }

    /// Tells what there is.
    pub(crate) fn tell(&mut self) {
        if let Some(observers) = self.observers {
            for Told { event, names } in self.events.drain(..) {
                observers.tell_of(self.store, event, &names);
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Returns `true` if the calls of stores have spans.
pub(crate) fn is_traced() -> bool {
    #[cfg(feature = "tracing")]
    let is_traced = tracing::enabled!(target: "session_manager", tracing::Level::DEBUG);
    #[cfg(not(feature = "tracing"))]
    let is_traced = false;
    is_traced
}

/// Creates the span of a call of a store, which has no id: the store, the method, and how it ended.
#[cfg(feature = "tracing")]
pub(crate) fn span(store: &'static str, operation: Operation) -> tracing::Span {
    tracing::debug_span!(
        target: "session_manager",
        "session_store",
        store,
        operation = operation.as_str(),
        outcome = tracing::field::Empty,
    )
}
