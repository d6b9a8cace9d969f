//! What observers are told of a session.

use super::{
    Session,
    state::{Line, State},
};
use crate::{
    backend::{CommitOutcome, OpenOutcome},
    changes::Changes,
    observer::{EndedBy, Event, Names, Refusal},
};

/// What a request does to a session, as far as observers are told of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    /// Whether there was a session before.
    pub(super) had: bool,
    destroyed: bool,
    renewed: bool,
    user_set: bool,
}

impl Done {
    pub(super) fn add(&mut self, changes: &Changes) {
        self.destroyed |= changes.is_destroyed();
        self.renewed |= changes.is_renewed();
        self.user_set |= changes.user().is_some();
    }
}

/// What a commit tells once it is done.
pub(super) struct Telling {
    done: Done,
    migrates: bool,
    /// The names of the session as it is stored before the commit, and its user after it.
    before: Names,
    user: Option<String>,
}

const DESTROYED: Event = Event::Destroyed {
    by: EndedBy::Handler,
    count: 1,
};

impl Session {
    /// Tells an event once the state is unlocked.
    pub(super) fn tell(&self, state: &mut State, event: Event) {
        if let Some(observers) = self.0.manager.observers() {
            let names = observers.names(|| self.names(state));
            state.lines.push(Line::Event(event, names));
        }
    }

    fn names(&self, state: &State) -> Names {
        Names {
            handle: self.handle_of(state),
            user: self.user_of(state),
        }
    }

    /// Tells what became of the request's cookie.
    pub(super) fn tell_opened(&self, state: &mut State, opened: &OpenOutcome) {
        if self.0.manager.observers().is_none() {
            return;
        }
        match opened {
            OpenOutcome::Refused(why) => self.tell(state, why.event()),
            OpenOutcome::Nothing | OpenOutcome::Ended if state.tokens.name_a_session() => {
                let why = Refusal::Unknown;
                self.tell(state, Event::Refused { why });
            }
            _ => {}
        }
    }

    /// Returns what the commit that begins is to tell.
    pub(super) fn telling(&self, state: &State) -> Option<Box<Telling>> {
        let observers = self.0.manager.observers()?;
        let changes = &state.pending.changes;
        let mut done = Done {
            had: state.record().is_some(),
            ..Done::default()
        };
        done.add(changes);
        Some(Box::new(Telling {
            done,
            migrates: state.origin.is_some(),
            before: observers.names(|| Names {
                handle: self.handle_of(state),
                user: state
                    .record()
                    .and_then(|it| it.user.as_deref())
                    .map(str::to_owned),
            }),
            user: observers.names(|| self.names(state)).user,
        }))
    }

    /// Tells what a commit did. The state has its outcome already.
    pub(super) fn tell_done(&self, state: &mut State, telling: Telling, outcome: &CommitOutcome) {
        let Some(observers) = self.0.manager.observers() else {
            return;
        };
        let Telling {
            done,
            migrates,
            before,
            user,
        } = telling;
        let is_set = matches!(outcome, CommitOutcome::Set { .. });
        let ends = done.had && (done.destroyed || *outcome == CommitOutcome::Remove);
        if ends {
            state.lines.push(Line::Event(DESTROYED, before));
        }
        let began = is_set && (!done.had || done.destroyed);
        let goes_on = done.had && !ends;
        let after = observers.names(|| Names {
            handle: state.tokens.own().and_then(|token| {
                let backend = self.0.manager.backend();
                let handle = backend.handle(token, self.settings(state))?;
                Some(handle.to_string())
            }),
            user,
        });
        let events = [
            (began, Event::Created),
            (goes_on && migrates && is_set, Event::Migrated),
            (goes_on && done.renewed, Event::Renewed),
            ((began || goes_on) && done.user_set, Event::UserSet),
        ];
        for (_, event) in events.into_iter().filter(|(happened, _)| *happened) {
            state.lines.push(Line::Event(event, after.clone()));
        }
    }

    /// Tells what other code that keeps the session was given.
    pub(super) fn tell_live(&self, state: &mut State, keep: bool) {
        let done = state.live_done;
        let has = state.record().is_some_and(|it| !it.entries.is_empty());
        if done.had && done.destroyed {
            self.tell(state, DESTROYED);
        }
        let began = keep && has && (!done.had || done.destroyed);
        if began {
            self.tell(state, Event::Created);
        } else if done.had && !done.destroyed && done.renewed {
            self.tell(state, Event::Renewed);
        }
    }
}
