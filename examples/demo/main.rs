//! What session-manager is for, on one screen: a log-in, an admin panel and a page of the
//! application's own share one session, and only `engine` knows where it is kept.
//!
//! ```sh
//! cargo run --example demo
//! ```
//!
//! - `auth` and `admin` stand for library crates. Each calls [`manager::get`] and knows neither the
//!   engine nor the other.
//! - `session_page`, `devices` and `pages` are the application: a page that looks into the session,
//!   one that lists where its user is logged in, and the templates, which take the flash messages of
//!   them all.
//!
//! `DEMO_ADDR` is the address to listen on (`127.0.0.1:7000`), `SESSION_SECRET` the key of sessions
//! in cookies. `SESSION_STORE` is where sessions live; all but the cookies need a feature:
//!
//! | `SESSION_STORE` | | `--features` |
//! |---|---|---|
//! | `signed` | in a signed cookie: the default | |
//! | `private` | in an encrypted cookie | |
//! | `memory` | in this process | `memory` |
//! | `redis://…`, `redis+cluster://…`, `redis+sentinel://…` | in Redis or Valkey | `redis` |
//! | `postgres://…` | in PostgreSQL | `postgres` |
//! | `mysql://…`, `mariadb://…` | in MySQL or MariaDB | `mysql` |
//! | `sqlite:…` | in a file | `sqlite` |
#![expect(
    unreachable_pub,
    reason = "`auth` and `admin` are written as the crates for which they stand"
)]

mod admin;
mod auth;
mod devices;
mod engine;
mod pages;
mod session_page;

use std::{env, error::Error, io, process::ExitCode};

use actix_web::{App, HttpResponse, HttpServer, http::header, middleware::from_fn, web};
use session_manager::manager;

#[actix_web::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Why a store failed is in the sources of its error, some of which quote their own.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let why = cause.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        next = cause.source();
    }
    text
}

async fn serve() -> Result<(), Box<dyn Error>> {
    engine::choose().await?;

    let auth = auth::Auth {
        is_right: |name, password| (name, password) == ("ada", "lovelace"),
        form: pages::login,
        home: admin::PATH,
    };
    let admin = admin::Admin {
        records: admin::Records::new([
            ("Jacquard loom", "joseph"),
            ("Difference Engine", "charles"),
            ("Analytical Engine", "charles"),
        ]),
        // `admin` knows nothing of `auth`: this is where the two meet, and in the guard below.
        author: auth::user,
        page: pages::records,
    };

    let address = env::var("DEMO_ADDR").unwrap_or_else(|_| "127.0.0.1:7000".to_owned());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(manager::middleware())
            .configure(auth::routes(auth))
            .service(
                web::scope(admin::PATH)
                    .wrap(from_fn(auth::required))
                    .configure(admin::routes(admin.clone())),
            )
            .configure(session_page::routes)
            .configure(devices::routes)
            .service(web::redirect("/", admin::PATH))
            .route("/style.css", web::get().to(style))
    })
    .bind(&address)
    .map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is taken by another program: set DEMO_ADDR to another address, or to \
             127.0.0.1:0 for a port that is free"
        ),
        _ => format!("cannot listen on {address} (DEMO_ADDR): {error}"),
    })?;

    // The address that was really bound: port 0 stands for any that is free.
    if let Some(address) = server.addrs().first() {
        println!("Open http://{address}");
    }
    Ok(server.run().await?)
}

async fn style() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/css; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(include_str!("style.css"))
}
