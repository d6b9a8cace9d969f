//! An admin panel, written like a library crate.
//!
//! It depends on session-manager and the web framework, but not on the backend, the templates or
//! the login. The application guards it and supplies the user's name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, web};
use serde::Deserialize;
use session_manager::{Error, Message, manager};

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
    pub author: fn(&HttpRequest) -> Result<Option<String>, Error>,
    /// Renders a page that posts `title` to [`PATH`] and `id` to `delete` below it.
    pub page: fn(&HttpRequest, &Overview<'_>) -> Result<HttpResponse, actix_web::Error>,
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

/// Mounts the panel in a scope at [`PATH`].
pub fn routes(admin: Admin) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.app_data(web::Data::new(admin))
            .service(web::resource("").get(list).post(create))
            .route("/delete", web::post().to(delete));
    }
}

async fn list(req: HttpRequest, admin: web::Data<Admin>) -> Result<HttpResponse, actix_web::Error> {
    let overview = Overview {
        created: manager::get().load(&req, CREATED)?.unwrap_or(0),
        records: &admin.records.lock().records,
    };
    (admin.page)(&req, &overview)
}

#[derive(Deserialize)]
struct Create {
    title: String,
}

async fn create(
    req: HttpRequest,
    admin: web::Data<Admin>,
    form: web::Form<Create>,
) -> Result<HttpResponse, Error> {
    let title = form.title.trim();
    let author = (admin.author)(&req)?.unwrap_or_default();
    let message = if !(1..=MAX_TITLE).contains(&title.chars().count()) {
        Message::error(format!("A title has 1 to {MAX_TITLE} characters"))
    } else if !admin.records.lock().create(title, &author) {
        Message::error(format!(
            "There can be at most {MAX_RECORDS} records: delete one first"
        ))
    } else {
        let session = manager::get().session(&req)?;
        session.update(CREATED, |created: Option<u32>| {
            created.unwrap_or(0).saturating_add(1)
        })?;
        Message::success(format!("Created “{title}”"))
    };
    manager::get().flash(&req, message)?;
    Ok(see_the_list())
}

#[derive(Deserialize)]
struct Delete {
    id: u32,
}

async fn delete(
    req: HttpRequest,
    admin: web::Data<Admin>,
    form: web::Form<Delete>,
) -> Result<HttpResponse, Error> {
    let message = match admin.records.lock().delete(form.id) {
        Some(record) => Message::success(format!("Deleted “{}”", record.title)),
        None => Message::warning("That record was already deleted"),
    };
    manager::get().flash(&req, message)?;
    Ok(see_the_list())
}

fn see_the_list() -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, PATH))
        .finish()
}
