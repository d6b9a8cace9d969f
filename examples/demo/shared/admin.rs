//! An admin panel, written like a library crate.
//!
//! It depends on session-manager, but not on the web framework, the backend, the templates or the login.
//! The application guards it and supplies the user's name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use session_manager::{Error, Message, Session, manager};

use super::Reply;

/// The path at which the application mounts the panel.
pub const PATH: &str = "/admin";

/// The session key for the number of records that this user created.
const CREATED: &str = "admin.created";

const MAX_RECORDS: usize = 100;
const MAX_TITLE: usize = 80;

/// The application's part of the panel: the records, the user and the page.
#[derive(Clone)]
pub struct Admin {
    /// The records to manage.
    pub records: Records,
    /// Returns the name of the logged-in user.
    pub author: fn(&Session) -> Result<Option<String>, Error>,
    /// Renders a page that posts `title` to [`PATH`] and `id` to `delete` below it.
    pub page: fn(&Session, &Overview<'_>) -> Result<Reply, Error>,
}

/// The content of the page.
pub struct Overview<'a> {
    /// The records, oldest first.
    pub records: &'a [Record],
    /// The number of records that this user created since logging in.
    pub created: u32,
}

/// A record with a title.
pub struct Record {
    pub id: u32,
    pub title: String,
    pub author: String,
}

/// The records, kept in memory, at most [`MAX_RECORDS`].
#[derive(Clone)]
pub struct Records(Arc<Mutex<Table>>);

struct Table {
    records: Vec<Record>,
    next_id: u32,
}

impl Records {
    /// Creates a table with these titles and authors.
    pub fn new<const N: usize>(records: [(&str, &str); N]) -> Self {
        let mut table = Table {
            records: Vec::new(),
            next_id: 1,
        };
        for (title, author) in records {
            table.create(title, author);
        }
        Self(Arc::new(Mutex::new(table)))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Adds a record and returns `true`, or returns `false` if the table is full.
    fn create(&mut self, title: &str, author: &str) -> bool {
        let has_room = self.records.len() < MAX_RECORDS;
        if has_room {
            self.records.push(Record {
                id: self.next_id,
                title: title.to_owned(),
                author: author.to_owned(),
            });
            self.next_id += 1;
        }
        has_room
    }

    fn delete(&mut self, id: u32) -> Option<Record> {
        let at = self.records.iter().position(|record| record.id == id)?;
        Some(self.records.remove(at))
    }
}

impl Admin {
    pub fn list(&self, session: &Session) -> Result<Reply, Error> {
        let overview = Overview {
            created: manager::get().load(session, CREATED)?.unwrap_or(0),
            records: &self.records.lock().records,
        };
        (self.page)(session, &overview)
    }

    pub fn create(&self, session: &Session, form: &Create) -> Result<Reply, Error> {
        let title = form.title.trim();
        let author = (self.author)(session)?.unwrap_or_default();
        let message = if !(1..=MAX_TITLE).contains(&title.chars().count()) {
            Message::error(format!("A title has 1 to {MAX_TITLE} characters"))
        } else if !self.records.lock().create(title, &author) {
            Message::error(format!(
                "There can be at most {MAX_RECORDS} records: delete one first"
            ))
        } else {
            session.update(CREATED, |created: Option<u32>| {
                created.unwrap_or(0).saturating_add(1)
            })?;
            Message::success(format!("Created “{title}”"))
        };
        manager::get().flash(session, message)?;
        Ok(Reply::see_other(PATH))
    }

    pub fn delete(&self, session: &Session, form: &Delete) -> Result<Reply, Error> {
        let message = match self.records.lock().delete(form.id) {
            Some(record) => Message::success(format!("Deleted “{}”", record.title)),
            None => Message::warning("That record was already deleted"),
        };
        manager::get().flash(session, message)?;
        Ok(Reply::see_other(PATH))
    }
}

#[derive(Deserialize)]
pub struct Create {
    title: String,
}

#[derive(Deserialize)]
pub struct Delete {
    id: u32,
}
