//! The application of the demo: everything that does not depend on a web framework.
//!
//! Its handlers take a [`Session`](session_manager::Session), which both frameworks extract, and return
//! a [`Reply`]. `main.rs` of each demo has the routes.
//!
//! - `auth` and `admin` represent library crates. Each calls [`manager::get`] and depends neither on
//!   the backend nor on the other.
//! - `csrf` protects the forms, and `inspector` shows a developer the session at `/inspector`, in a debug
//!   build alone. They are the packages in `examples/library-authors`, here as modules: as dependencies
//!   they would turn on features of session-manager in every build of its tests.
//! - `session_page`, `devices`, `account`, `races` and `pages` are the application: a page that shows the
//!   session, one that lists the user's sessions, one that asks for a fresh login, one with races to try,
//!   and the templates, which show all flash messages.
//! - `metrics_page` is the page `/metrics` for Prometheus, with the feature `metrics`.

pub mod account;
pub mod admin;
pub mod auth;
#[path = "../../library-authors/csrf/src/lib.rs"]
pub mod csrf;
pub mod devices;
#[path = "../../library-authors/inspector/src/lib.rs"]
pub mod inspector;
#[cfg(feature = "metrics")]
pub mod metrics_page;
pub mod pages;
pub mod races;
mod reply;
pub mod session_page;

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use session_manager::{Builder, manager};

pub use self::reply::Reply;

/// What the handlers of both demos share.
#[derive(Clone)]
pub struct Demo {
    pub auth: auth::Auth,
    pub admin: admin::Admin,
    /// Refused in a release build.
    pub inspector: Option<inspector::Inspector>,
    #[cfg(feature = "metrics")]
    pub recorder: metrics_exporter_prometheus::PrometheusHandle,
    /// The address to listen on.
    pub address: String,
}

impl Demo {
    /// Sets the process-wide manager and reads the settings of the demo, all from the environment.
    pub async fn from_env() -> Result<Self, Box<dyn Error>> {
        let demo = Self {
            inspector: inspector::Inspector::new().ok(),
            #[cfg(feature = "metrics")]
            recorder: metrics_page::install()?,
            auth: auth::Auth {
                is_right: |name, password| (name, password) == ("ada", "lovelace"),
                form: pages::login,
                home: admin::PATH,
                fresh: fresh()?,
                at_login: |session| csrf::rotate(session),
            },
            admin: admin::Admin {
                records: admin::Records::new([
                    ("Jacquard loom", "joseph"),
                    ("Difference Engine", "charles"),
                    ("Analytical Engine", "charles"),
                ]),
                // Only this line and the middleware of the routes connect `admin` to `auth`.
                author: |session| auth::user(session),
                page: pages::records,
            },
            address: env::var("DEMO_ADDR").unwrap_or_else(|_| "127.0.0.1:7000".to_owned()),
        };
        manager::set(demo.observe(Builder::from_env().await?).build()?);
        Ok(demo)
    }

    /// Shows what happens to the sessions of this manager in the inspector and the metrics.
    pub fn observe(&self, mut builder: Builder) -> Builder {
        if let Some(inspector) = &self.inspector {
            builder = builder.observe(inspector.observer());
        }
        #[cfg(feature = "metrics")]
        let builder = builder.observe(session_manager::observer::Metrics::new());
        builder
    }

    /// Explains why the demo cannot listen on its address.
    pub fn cannot_listen(&self, error: &io::Error) -> String {
        let address = &self.address;
        match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is in use by another program: set DEMO_ADDR to another address, or to \
                 127.0.0.1:0 for a free port"
            ),
            _ => format!("cannot listen on {address} (DEMO_ADDR): {error}"),
        }
    }
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

/// Prints warnings and errors to standard error.
pub fn log() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
}

/// Prints the error with which the demo ended, if there is one.
pub fn exit(served: Result<(), Box<dyn Error>>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
