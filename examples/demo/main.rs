//! A tour of session-manager in actix-web: a login, an admin panel and the application's own pages share
//! one session. Only one line, in `shared/mod.rs`, determines where it is stored.
//!
//! ```sh
//! cargo run --example demo
//! ```
//!
//! `shared` is the application, this file its routes in actix-web. `examples/demo_axum` has the routes of
//! the same application in axum.
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

#[expect(unreachable_pub, reason = "written like library crates")]
#[allow(dead_code, reason = "a crate, of which the demo uses a part")]
mod shared;

use std::{error::Error, process::ExitCode};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, Responder,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header::USER_AGENT},
    middleware::{Next, from_fn},
    web::{self, Data, Form},
};
use session_manager::{Session, manager};
use shared::{
    Demo, Reply, account, admin, auth, csrf, devices, inspector, pages, races, session_page,
};

#[actix_web::main]
async fn main() -> ExitCode {
    shared::log();
    shared::exit(serve().await)
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let demo = Data::new(Demo::from_env().await?);
    let served = demo.clone();
    let server = HttpServer::new(move || {
        // Without a login, these redirect before a form is checked.
        let guarded = |path| {
            web::scope(path)
                .wrap(from_fn(csrf::actix::protect))
                .wrap(from_fn(required))
        };
        App::new()
            .app_data(served.clone())
            .wrap(manager::middleware())
            .service(guarded(admin::PATH).configure(admin_routes))
            .service(guarded(devices::PATH).configure(devices_routes))
            .service(guarded(account::PATH).configure(account_routes))
            .service(guarded(races::PATH).configure(races_routes))
            .configure(|app| {
                #[cfg(feature = "metrics")]
                app.route(
                    shared::metrics_page::PATH,
                    web::get()
                        .to(async |demo: Data<Demo>| shared::metrics_page::show(&demo.recorder)),
                );
                if let Some(inspector) = &served.inspector {
                    app.configure(inspector::actix::routes(inspector));
                }
            })
            .service(web::redirect("/", admin::PATH))
            .route("/style.css", web::get().to(async || pages::style()))
            .route("/races.js", web::get().to(async || pages::script()))
            .service(
                web::scope("")
                    .wrap(from_fn(csrf::actix::protect))
                    .configure(open_routes),
            )
    })
    .bind(&demo.address)
    .map_err(|error| demo.cannot_listen(&error))?;

    // Prints the bound address, because port 0 selects a free port.
    if let Some(address) = server.addrs().first() {
        println!("Open http://{address}");
    }
    Ok(server.run().await?)
}

/// Mounts the pages for which no login is needed.
fn open_routes(app: &mut web::ServiceConfig) {
    app.service(
        web::resource(auth::LOGIN)
            .get(async |session: Session, demo: Data<Demo>| (demo.auth.form)(&session))
            .post(
                async |session: Session,
                       demo: Data<Demo>,
                       req: HttpRequest,
                       Form(form): Form<_>| {
                    auth::log_in(&demo.auth, &session, agent(&req), &form)
                },
            ),
    )
    .route(
        "/logout",
        web::post().to(async |session: Session| auth::log_out(&session)),
    )
    .route(
        "/state",
        web::get().to(async |session: Session| races::state(&session)),
    )
    .service(
        web::scope(session_page::PATH)
            .route(
                "",
                web::get().to(async |session: Session| session_page::show(&session)),
            )
            .route(
                "/store",
                web::post().to(async |session: Session, Form(form): Form<_>| {
                    session_page::store(&session, &form)
                }),
            )
            .route(
                "/fill",
                web::post().to(async |session: Session| session_page::fill(&session)),
            )
            .route(
                "/remove",
                web::post().to(async |session: Session, Form(form): Form<_>| {
                    session_page::remove(&session, &form)
                }),
            ),
    );
}

fn admin_routes(app: &mut web::ServiceConfig) {
    app.service(
        web::resource("")
            .get(async |session: Session, demo: Data<Demo>| demo.admin.list(&session))
            .post(
                async |session: Session, demo: Data<Demo>, Form(form): Form<_>| {
                    demo.admin.create(&session, &form)
                },
            ),
    )
    .route(
        "/delete",
        web::post().to(
            async |session: Session, demo: Data<Demo>, Form(form): Form<_>| {
                demo.admin.delete(&session, &form)
            },
        ),
    );
}

fn devices_routes(app: &mut web::ServiceConfig) {
    app.route(
        "",
        web::get().to(async |session: Session, req: HttpRequest| {
            devices::show(session, agent(&req)).await
        }),
    )
    .route(
        "/end",
        web::post()
            .to(async |session: Session, Form(form): Form<_>| devices::end(session, form).await),
    )
    .route("/end-others", web::post().to(devices::end_others));
}

fn account_routes(app: &mut web::ServiceConfig) {
    app.route(
        "",
        web::get()
            .to(async |session: Session, demo: Data<Demo>| account::show(&demo.auth, &session)),
    )
    .route(
        "/confirm",
        web::post().to(
            async |session: Session, demo: Data<Demo>, Form(form): Form<_>| {
                account::confirm(&demo.auth, &session, &form)
            },
        ),
    )
    .route(
        "/password",
        web::post()
            .to(async |session: Session, demo: Data<Demo>| account::change(&demo.auth, &session)),
    );
}

fn races_routes(app: &mut web::ServiceConfig) {
    app.route(
        "",
        web::get().to(async |session: Session| races::show(&session)),
    )
    .route(
        "/begin",
        web::post().to(async |session: Session| races::begin(&session)),
    )
    .route(
        "/write",
        web::post()
            .to(async |session: Session, Form(form): Form<_>| races::write(session, form).await),
    )
    .route("/slow", web::post().to(races::slow))
    .route(
        "/switch",
        web::post().to(async |session: Session, demo: Data<Demo>| races::switch(&demo, &session)),
    );
}

/// A middleware that redirects anonymous requests to the login.
async fn required(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match auth::require(&req)? {
        None => Ok(next.call(req).await?.map_into_boxed_body()),
        Some(reply) => {
            let response = reply.respond_to(req.request());
            Ok(req.into_response(response))
        }
    }
}

/// Returns the `User-Agent`.
fn agent(req: &HttpRequest) -> &str {
    let agent = req.headers().get(USER_AGENT);
    agent.and_then(|agent| agent.to_str().ok()).unwrap_or("")
}

impl Responder for Reply {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        for header in self.headers {
            response.insert_header(header);
        }
        response.body(self.body)
    }
}
