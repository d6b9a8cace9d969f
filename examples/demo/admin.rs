//! An admin panel, as a library crate would do it.
//!
//! It knows session-manager and the web framework, but neither the engine, nor the templates, nor
//! how visitors log in: the application guards it, and tells it who is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::{HttpRequest, HttpResponse, http::header::LOCATION, web};
use serde::Deserialize;
use session_manager::{Error, Message, manager};

/// Where an application mounts it.
pub const PATH: &str = "/admin";

/// How many records this visitor created.
const CREATED: &str = "admin.created";

const MAX_RECORDS: usize = 100;
const MAX_TITLE: usize = 80;

/// What an application says: the records, who is there, and what the page looks like.
#[derive(Clone)]
pub struct Admin {
    /// What is administered.
    pub records: Records,
    /// Who does it.
    pub author: fn(&HttpRequest) -> Result<Option<String>, Error>,
    /// Draws a page that posts `title` to [`PATH`] and `id` to `delete` below it.
    pub page: fn(&HttpRequest, &Overview<'_>) -> Result<HttpResponse, actix_web::Error>,
}

/// What there is to draw.
pub struct Overview<'a> {
    /// The newest is the last.
    pub records: &'a [Record],
    /// How many of them this visitor created since logging in.
    pub created: u32,
}

/// Some thing with a title.
pub struct Record {
    pub id: u32,
    pub title: String,
    pub author: String,
}

/// The records, as long as the process lives, and a hundred at most.
#[derive(Clone)]
pub struct Records(Arc<Mutex<Table>>);

struct Table {
    records: Vec<Record>,
    next_id: u32,
}

impl Records {
    /// Records to begin with, as titles and authors.
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
    /// Whether there was room.
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
            "There is room for {MAX_RECORDS} records: delete one first"
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
        None => Message::warning("Somebody else deleted that record before"),
    };
    manager::get().flash(&req, message)?;
    Ok(see_the_list())
}

fn see_the_list() -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, PATH))
        .finish()
}
