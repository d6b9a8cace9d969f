//! A tour of session-manager: a login, an admin panel and the application's own pages share one
//! session. Only one line of `serve` determines where it is stored.
//!
//! ```sh
//! cargo run --example demo
//! ```
//!
//! - `auth` and `admin` represent library crates. Each calls [`manager::get`] and depends neither on
//!   the backend nor on the other.
//! - `csrf` protects the forms, and `inspector` shows a developer the session at `/inspector`, in a debug
//!   build alone. They are the packages in `examples/library-authors`, here as modules: as dependencies
//!   they would turn on features of session-manager in every build of its tests.
//! - `session_page`, `devices`, `account` and `pages` are the application: a page that shows the session,
//!   one that lists the user's sessions, one that asks for a fresh login, and the templates, which show
//!   all flash messages.
//! - `metrics_page` is the page `/metrics` for Prometheus, with the feature `metrics`.
//!
//! `DEMO_ADDR` is the address to listen on (default `127.0.0.1:7000`), `DEMO_FRESH` how many seconds a
//! login is fresh (default 600). [`Builder::from_env`] reads
//! `SESSION_SECRET`, the secret for cookies and ids, and `SESSION_URL`, which selects the backend; all
//! but the cookies need a feature:
//!
//! | `SESSION_URL` | | `--features` |
//! |---|---|---|
//! | `signed:` | in a signed cookie: the default | |
//! | `private:` | in an encrypted cookie | |
//! | `memory:` | in this process | `memory` |
//! | `redis://…`, `redis+cluster://…`, `redis+sentinel://…` | in Redis or Valkey | `redis` |
//! | `postgres://…` | in PostgreSQL | `postgres` |
//! | `mysql://…`, `mariadb://…` | in MySQL or MariaDB | `mysql` |
//! | `sqlite:…` | in a file | `sqlite` |
//!
//! Parameters set the rest: `SESSION_URL='memory:?idle=20m&persistent=true'`.
#![expect(
    unreachable_pub,
    reason = "`auth` and `admin` are written like library crates"
)]

mod account;
mod admin;
mod auth;
#[path = "../library-authors/csrf/src/lib.rs"]
#[allow(dead_code, reason = "a crate, of which the demo uses a part")]
mod csrf;
mod devices;
#[path = "../library-authors/inspector/src/lib.rs"]
#[allow(dead_code, reason = "a crate, of which the demo uses a part")]
mod inspector;
#[cfg(feature = "metrics")]
mod metrics_page;
mod pages;
mod session_page;

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, http::header, middleware::from_fn, web};
use session_manager::{Builder, manager};

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

async fn serve() -> Result<(), Box<dyn Error>> {
    let mut builder = Builder::from_env().await?;
    // Refused in a release build.
    let inspector = inspector::Inspector::new().ok();
    if let Some(inspector) = &inspector {
        builder = builder.observe(inspector.observer());
    }
    #[cfg(feature = "metrics")]
    let (builder, recorder) = metrics_page::observe(builder)?;
    manager::set(builder.build()?);

    let auth = auth::Auth {
        is_right: |name, password| (name, password) == ("ada", "lovelace"),
        form: pages::login,
        home: admin::PATH,
        fresh: fresh()?,
        at_login: |session| csrf::rotate(session),
    };
    let admin = admin::Admin {
        records: admin::Records::new([
            ("Jacquard loom", "joseph"),
            ("Difference Engine", "charles"),
            ("Analytical Engine", "charles"),
        ]),
        // Only this line and the guard below connect `admin` to `auth`.
        author: auth::user,
        page: pages::records,
    };

    let address = env::var("DEMO_ADDR").unwrap_or_else(|_| "127.0.0.1:7000".to_owned());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(manager::middleware())
            // Without a login, these redirect before a form is checked.
            .service(
                web::scope(admin::PATH)
                    .wrap(from_fn(csrf::actix::protect))
                    .wrap(from_fn(auth::required))
                    .configure(admin::routes(admin.clone())),
            )
            .configure(account::routes(auth))
            .configure(devices::routes)
            .configure(|app| {
                #[cfg(feature = "metrics")]
                app.service(metrics_page::page(recorder.clone()));
                if let Some(inspector) = &inspector {
                    app.configure(inspector::actix::routes(inspector));
                }
            })
            .service(web::redirect("/", admin::PATH))
            .route("/style.css", web::get().to(style))
            .service(
                web::scope("")
                    .wrap(from_fn(csrf::actix::protect))
                    .configure(auth::routes(auth))
                    .configure(session_page::routes),
            )
    })
    .bind(&address)
    .map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program: set DEMO_ADDR to another address, or to \
             127.0.0.1:0 for a free port"
        ),
        _ => format!("cannot listen on {address} (DEMO_ADDR): {error}"),
    })?;

    // Prints the bound address, because port 0 selects a free port.
    if let Some(address) = server.addrs().first() {
        println!("Open http://{address}");
    }
    Ok(server.run().await?)
}

/// Returns how long a login is fresh, from `DEMO_FRESH` in seconds.
fn fresh() -> Result<Duration, Box<dyn Error>> {
    match env::var("DEMO_FRESH") {
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(_) => Err(format!("DEMO_FRESH is a number of seconds, not `{text}`").into()),
        },
        Err(_) => Ok(Duration::from_secs(10 * 60)),
    }
}

async fn style() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/css; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(include_str!("style.css"))
}
