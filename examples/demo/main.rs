//! What session-manager is for, on one screen: a log-in, an admin panel and a page of the
//! application's own share one session, and only this file knows which engine keeps it.
//!
//! ```sh
//! cargo run --example demo
//! ```
//!
//! - `auth` and `admin` stand for library crates. Each calls [`manager::get`] and knows neither the
//!   engine nor the other.
//! - `session_page` and `pages` are the application: a page that looks into the session, and the
//!   templates, which take the flash messages of all three.
//!
//! `DEMO_ADDR` is the address to listen on (`127.0.0.1:7000`), `SESSION_SECRET` the key of the
//! sessions, `SESSION_ENGINE` where they live (`signed` or `private`).
#![expect(
    unreachable_pub,
    reason = "`auth` and `admin` are written as the crates for which they stand"
)]

mod admin;
mod auth;
mod pages;
mod session_page;

use std::{env, error::Error, io, process::ExitCode};

use actix_web::{App, HttpResponse, HttpServer, http::header, middleware::from_fn, web};
use session_manager::{Key, Manager, PrivateCookie, manager};

#[actix_web::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The only place that knows where sessions live.
fn choose_engine() -> Result<(), Box<dyn Error>> {
    match env::var("SESSION_ENGINE").as_deref() {
        // Nothing to do: the default manager is a signed cookie, and reads SESSION_SECRET.
        Err(env::VarError::NotPresent) | Ok("signed") => {}
        Ok("private") => {
            let key = Key::from_env("SESSION_SECRET")?;
            manager::set(Manager::new(PrivateCookie::new(key)));
        }
        _ => Err("SESSION_ENGINE is neither `signed` nor `private`")?,
    }
    Ok(())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    choose_engine()?;

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
