//! The demo in axum: the routes of the application that `examples/demo` has in actix-web, whose `main.rs`
//! lists the environment variables of both.
//!
//! ```sh
//! cargo run --example demo_axum --features axum
//! ```

#[path = "../demo/shared/mod.rs"]
#[expect(unreachable_pub, reason = "written like library crates")]
#[allow(dead_code, reason = "a crate, of which the demo uses a part")]
mod shared;

use std::{error::Error, process::ExitCode};

use axum::{
    Form, Router,
    body::Body,
    extract::{FromRef, Request, State},
    http::{HeaderMap, StatusCode, header::USER_AGENT},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use session_manager::{Session, manager};
use shared::{
    Demo, Reply, account,
    admin::{self, Admin},
    auth::{self, Auth},
    csrf::{self, Csrf},
    devices, inspector, pages, races, session_page,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    shared::log();
    shared::exit(serve().await)
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let demo = Demo::from_env().await?;
    let listener = TcpListener::bind(&demo.address).await;
    let listener = listener.map_err(|error| demo.cannot_listen(&error))?;
    // Prints the bound address, because port 0 selects a free port.
    println!("Open http://{}", listener.local_addr()?);
    let mut app = Router::new();
    #[cfg(feature = "metrics")]
    {
        let show = async |State(demo): State<Demo>| shared::metrics_page::show(&demo.recorder);
        app = app.route(shared::metrics_page::PATH, get(show));
    }
    if let Some(inspector) = &demo.inspector {
        app = app.merge(inspector::axum::routes(inspector));
    }
    let app = app
        .merge(guarded_routes())
        .merge(open_routes())
        .route("/", get(async || Redirect::to(admin::PATH)))
        .route("/style.css", get(async || pages::style()))
        .route("/races.js", get(async || pages::script()))
        .with_state(demo)
        .layer(manager::middleware());
    Ok(axum::serve(listener, app).await?)
}

/// Returns the pages for which no login is needed.
fn open_routes() -> Router<Demo> {
    Router::new()
        .route(
            auth::LOGIN,
            get(async |session: Session, State(auth): State<Auth>| (auth.form)(&session)).post(
                async |session: Session,
                       State(auth): State<Auth>,
                       headers: HeaderMap,
                       Form(form)| {
                    auth::log_in(&auth, &session, agent(&headers), &form)
                },
            ),
        )
        .route(
            "/logout",
            post(async |session: Session| auth::log_out(&session)),
        )
        .route(
            "/state",
            get(async |session: Session| races::state(&session)),
        )
        .route(
            "/session",
            get(async |session: Session| session_page::show(&session)),
        )
        .route(
            "/session/store",
            post(async |session: Session, Form(form)| session_page::store(&session, &form)),
        )
        .route(
            "/session/fill",
            post(async |session: Session| session_page::fill(&session)),
        )
        .route(
            "/session/remove",
            post(async |session: Session, Form(form)| session_page::remove(&session, &form)),
        )
        .layer(from_fn_with_state(Csrf::new(), csrf::axum::protect))
}

/// Returns the pages for logged-in users. Without a login, they redirect before a form is checked.
fn guarded_routes() -> Router<Demo> {
    Router::new()
        .route(
            "/admin",
            get(async |session: Session, State(admin): State<Admin>| admin.list(&session)).post(
                async |session: Session, State(admin): State<Admin>, Form(form)| {
                    admin.create(&session, &form)
                },
            ),
        )
        .route(
            "/admin/delete",
            post(
                async |session: Session, State(admin): State<Admin>, Form(form)| {
                    admin.delete(&session, &form)
                },
            ),
        )
        .route(
            "/devices",
            get(async |session: Session, headers: HeaderMap| {
                devices::show(session, agent(&headers)).await
            }),
        )
        .route(
            "/devices/end",
            post(async |session: Session, Form(form)| devices::end(session, form).await),
        )
        .route("/devices/end-others", post(devices::end_others))
        .route(
            "/account",
            get(async |session: Session, State(auth): State<Auth>| account::show(&auth, &session)),
        )
        .route(
            "/account/confirm",
            post(
                async |session: Session, State(auth): State<Auth>, Form(form)| {
                    account::confirm(&auth, &session, &form)
                },
            ),
        )
        .route(
            "/account/password",
            post(async |session: Session, State(auth): State<Auth>| {
                account::change(&auth, &session)
            }),
        )
        .route(
            "/races",
            get(async |session: Session| races::show(&session)),
        )
        .route(
            "/races/begin",
            post(async |session: Session| races::begin(&session)),
        )
        .route(
            "/races/write",
            post(async |session: Session, Form(form)| races::write(session, form).await),
        )
        .route("/races/slow", post(races::slow))
        .route(
            "/races/switch",
            post(async |session: Session, State(demo): State<Demo>| races::switch(&demo, &session)),
        )
        .layer(from_fn_with_state(Csrf::new(), csrf::axum::protect))
        .layer(from_fn(required))
}

/// A middleware that redirects anonymous requests to the login.
async fn required(req: Request, next: Next) -> Result<Response, session_manager::Error> {
    let anonymous = auth::require(&req)?;
    Ok(match anonymous {
        None => next.run(req).await,
        Some(reply) => reply.into_response(),
    })
}

/// Returns the `User-Agent`.
fn agent(headers: &HeaderMap) -> &str {
    let agent = headers.get(USER_AGENT);
    agent.and_then(|agent| agent.to_str().ok()).unwrap_or("")
}

impl FromRef<Demo> for Auth {
    fn from_ref(demo: &Demo) -> Self {
        demo.auth
    }
}

impl FromRef<Demo> for Admin {
    fn from_ref(demo: &Demo) -> Self {
        demo.admin.clone()
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        match response.body(Body::from(self.body)) {
            Ok(response) => response,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
