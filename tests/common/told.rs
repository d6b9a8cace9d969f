//! An observer that keeps what it is told, as text.

use std::sync::{Arc, Mutex};

use session_manager::{
    Observer,
    observer::{About, Event},
};

#[derive(Clone, Default)]
pub struct Told {
    told: Arc<Mutex<Vec<One>>>,
    wants_names: bool,
}

/// An event: its text, whether it is a store call, and what it is about.
#[derive(Clone, Debug)]
pub struct One {
    pub text: String,
    pub is_call: bool,
    pub backend: &'static str,
    pub cookie_name: String,
    pub handle: Option<String>,
    pub user: Option<String>,
}

impl Told {
    /// Creates an observer that asks for names.
    pub fn with_names() -> Self {
        Self {
            wants_names: true,
            ..Self::default()
        }
    }

    /// Takes all that was told.
    pub fn all(&self) -> Vec<One> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// Takes all, and returns what is no store call.
    pub fn life(&self) -> String {
        Self::texts(self.all().iter().filter(|one| !one.is_call))
    }

    /// Takes all, and returns the store calls.
    pub fn calls(&self) -> String {
        Self::texts(self.all().iter().filter(|one| one.is_call))
    }

    fn texts<'a>(all: impl Iterator<Item = &'a One>) -> String {
        let texts: Vec<_> = all.map(|one| &*one.text).collect();
        texts.join(", ")
    }
}

impl Observer for Told {
    fn event(&self, event: Event, about: &About<'_>) {
        let text = match event {
            Event::Created => "created".into(),
            Event::Renewed => "renewed".into(),
            Event::UserSet => "user set".into(),
            Event::Migrated => "migrated".into(),
            Event::Destroyed { by, count } => format!("destroyed {count} by {}", by.as_str()),
            Event::Expired => "expired".into(),
            Event::Refused { why } => format!("refused {}", why.as_str()),
            Event::TooLarge => "too large".into(),
            Event::Conflict => "conflict".into(),
            Event::StoreCall {
                operation, outcome, ..
            } => format!("{} {}", operation.as_str(), outcome.as_str()),
            other => format!("{other:?}"),
        };
        self.told.lock().unwrap().push(One {
            text,
            is_call: matches!(event, Event::StoreCall { .. }),
            backend: about.backend,
            cookie_name: about.cookie_name.to_owned(),
            handle: about.handle.map(str::to_owned),
            user: about.user.map(str::to_owned),
        });
    }

    fn wants_names(&self) -> bool {
        self.wants_names
    }
}
