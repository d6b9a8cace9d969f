//! The crate in actix-web: whatever has a request reaches its session.
#![cfg(all(feature = "actix", feature = "cookies"))]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, Error as ActixError, HttpMessage, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse},
    error, guard,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    web::{self, ServiceConfig},
};
use common::{Server, engines, key, script};
use session_manager::{
    Backend, BackendFuture, Commit, Error, HasSession, Manager, Message, OnStoreError, Opened,
    Opening, PrivateCookie, Reply, Session, SignedCookie, manager,
};

fn signed() -> Manager {
    Manager::new(SignedCookie::new(key()))
}

fn get(routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) -> Server {
    Server::start(signed().middleware(), routes)
}

/// A function of a library crate: any request will do.
fn count(req: &(impl HasSession + ?Sized)) -> i32 {
    let count = manager::get().load(req, "count").unwrap().unwrap_or(0) + 1;
    manager::get().add(req, "count", count).unwrap();
    count
}

#[test]
fn the_same_session_is_reached_from_middleware_guard_handler_and_response() {
    async fn middleware(
        req: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
        assert_eq!(count(&req), 1);
        let response = next.call(req).await?;
        assert_eq!(count(&response), 5);
        Ok(response)
    }
    async fn handler(req: HttpRequest, session: Session) -> String {
        assert_eq!(count(&req), 3);
        assert_eq!(count(&session), 4);
        session.get("count").unwrap()
    }
    let server = get(|config| {
        let guarded = web::get().guard(guard::fn_guard(|context| count(context) == 2));
        config.service(
            web::resource("/")
                .route(guarded.to(handler))
                .wrap(from_fn(middleware)),
        );
    });
    // The inner middleware is mounted on the resource, so that the session is open before it.
    let answer = server.raw("/", &[]);
    assert_eq!((answer.status, &*answer.body), (200, "4"));
    let check = get(script::routes);
    assert_eq!(
        check.with_cookie("/run/get.count", answer.cookie()).body,
        "5"
    );
}

#[test]
fn an_error_of_inner_middleware_keeps_the_session_unless_it_is_a_server_error() {
    async fn refuse(
        req: ServiceRequest,
        _: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
        req.session()?.flash(Message::warning("Log in first"))?;
        let error = match req.path() {
            "/401" => error::ErrorUnauthorized("who are you?"),
            _ => error::ErrorInternalServerError("broken"),
        };
        Err::<ServiceResponse, _>(error)
    }
    let server = get(|config| {
        config.configure(script::routes);
        config.service(
            web::scope("")
                .wrap(from_fn(refuse))
                .default_service(web::to(HttpResponse::Ok)),
        );
    });
    let answer = server.raw("/401", &[]);
    assert_eq!((answer.status, &*answer.body), (401, "who are you?"));
    assert_eq!(answer.header("vary"), Some("Cookie"));
    assert_eq!(
        server.with_cookie("/run/flashes", answer.cookie()).body,
        "Log in first"
    );

    let answer = server.raw("/500", &[]);
    assert_eq!((answer.status, &*answer.body), (500, "broken"));
    assert_eq!(answer.set_cookie(), None);
}

#[test]
fn two_managers_on_one_request_each_find_their_own_session_first() {
    let admin = Manager::builder(PrivateCookie::new(key()))
        .cookie_name("admin")
        .build()
        .unwrap();
    let third = signed();
    let app = async {
        let in_handler = admin.clone();
        let handler = move |req: HttpRequest| {
            let (admin, third) = (in_handler.clone(), third.clone());
            async move {
                manager::get().add(&req, "who", "application")?;
                admin.add(&req, "who", "admin")?;
                assert_eq!(admin.get(&req, "who")?.as_deref(), Some("admin"));
                assert_eq!(
                    manager::get().get(&req, "who")?.as_deref(),
                    Some("application")
                );
                assert_eq!(req.session()?.get("who").as_deref(), Some("application"));
                assert_eq!(third.get(&req, "who")?.as_deref(), Some("application"));
                Ok::<_, Error>("both")
            }
        };
        for admin_is_inside in [true, false] {
            let handler = web::get().to(handler.clone());
            let (inner, outer) = match admin_is_inside {
                true => (admin.middleware(), manager::middleware()),
                false => (manager::middleware(), admin.middleware()),
            };
            let app = App::new().wrap(inner).wrap(outer).route("/", handler);
            let app = actix_web::test::init_service(app).await;
            let response = actix_web::test::call_service(
                &app,
                actix_web::test::TestRequest::default().to_request(),
            )
            .await;
            assert_eq!(response.status(), StatusCode::OK);
            let mut names: Vec<_> = response
                .response()
                .cookies()
                .map(|cookie| cookie.name().to_owned())
                .collect();
            names.sort_unstable();
            assert_eq!(names, ["_session", "admin"]);
        }
    };
    actix_web::rt::System::new().block_on(manager::scope(signed(), app));
}

#[test]
fn a_middleware_mounted_twice_opens_one_session_and_sends_one_cookie() {
    async fn between(
        req: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
        req.session()?.add("outside", "1")?;
        next.call(req).await
    }
    let middleware = signed().middleware();
    let inner = middleware.clone();
    let server = Server::start(middleware, move |config| {
        let twice = web::scope("").wrap(inner.clone()).wrap(from_fn(between));
        config.service(twice.configure(script::routes));
    });
    let cookie = server.raw("/run/add.inside.2", &[]).cookie();
    let read = server.with_cookie("/run/get.outside,get.inside", cookie);
    assert_eq!(read.body, "1,2");
}

#[test]
fn flash_messages_are_read_synchronously_inside_a_template_and_escaped() {
    async fn page(session: Session) -> Result<String, ActixError> {
        let mut templates = minijinja::Environment::new();
        let page = "{% for f in flashes() %}<p class={{ f.kind }}>{{ f.text }}</p>{% endfor %}";
        templates
            .add_template("page.html", page)
            .map_err(error::ErrorInternalServerError)?;
        templates.add_function("flashes", move || {
            minijinja::Value::from(minijinja::value::Serde(session.flashes()))
        });
        let page = templates
            .get_template("page.html")
            .and_then(|page| page.render(()));
        page.map_err(error::ErrorInternalServerError)
    }
    async fn leave(session: Session) -> Result<&'static str, Error> {
        session.flash(Message::error("<script>alert(1)</script>"))?;
        Ok("")
    }
    let server = get(|config| {
        config
            .route("/leave", web::get().to(leave))
            .route("/page", web::get().to(page));
    });
    let visitor = server.visitor();
    visitor.body("/leave");
    let expected = "<p class=error>&lt;script&gt;alert(1)&lt;&#x2f;script&gt;</p>";
    assert_eq!(visitor.body("/page"), expected);
    assert_eq!(visitor.body("/page"), "");
}

#[test]
fn a_session_in_a_spawned_thread_reads_on_and_a_write_after_the_head_is_an_error() {
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let server = get(move |config| {
        let keep = Arc::clone(&keep);
        config.route(
            "/",
            web::get().to(move |session: Session| {
                session.add("key", "value").unwrap();
                *keep.lock().unwrap() = Some(session);
                async { "sent" }
            }),
        );
    });
    server.raw("/", &[]).cookie();
    let session = kept.lock().unwrap().take().unwrap();
    std::thread::spawn(move || {
        let saved = || actix_web::rt::System::new().block_on(session.save());
        assert_eq!(session.get("key").as_deref(), Some("value"));
        assert!(
            saved().is_ok(),
            "what was done before went with the response"
        );
        assert!(matches!(session.add("key", "late"), Err(Error::HeadSent)));
        assert!(matches!(session.flash("late"), Err(Error::HeadSent)));
        assert!(matches!(
            session.pop_load::<String>("key"),
            Err(Error::HeadSent)
        ));
        assert!(saved().is_ok(), "who wrote was told");
        assert_eq!(session.pop("key").as_deref(), Some("value"));
        assert!(
            matches!(saved(), Err(Error::HeadSent)),
            "`pop` cannot tell, so `save` does"
        );
    })
    .join()
    .unwrap();
}

#[test]
fn many_threads_may_write_to_one_session_at_once() {
    let server = get(|config| {
        config.route(
            "/",
            web::get().to(async |session: Session| {
                let threads = (0..8).map(|number| {
                    let session = session.clone();
                    std::thread::spawn(move || {
                        session.add(&format!("key{number}"), number).unwrap();
                        session.flash(format!("message{number}")).unwrap();
                        for _ in 0..50 {
                            session
                                .update("count", |count: Option<i32>| count.unwrap_or(0) + 1)
                                .unwrap();
                        }
                    })
                });
                threads
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
                format!(
                    "{} {} {}",
                    session.len(),
                    session.flashes().len(),
                    session.get("count").unwrap()
                )
            }),
        );
    });
    assert_eq!(server.raw("/", &[]).body, "9 8 400");
}

#[test]
fn update_may_use_the_session_itself_without_a_deadlock() {
    let server = get(|config| {
        config.route(
            "/",
            web::get().to(async |session: Session| {
                session.add("step", 5)?;
                let inner = session.clone();
                let next = session.update("count", move |count: Option<i32>| {
                    count.unwrap_or(0) + inner.load::<i32>("step").unwrap().unwrap()
                })?;
                let twice = session.update("count", |count: Option<i32>| count.unwrap_or(0) * 2)?;
                Ok::<_, Error>(format!("{next} {twice}"))
            }),
        );
    });
    assert_eq!(server.raw("/", &[]).body, "5 10");
}

#[test]
fn headers_that_the_handler_set_are_kept_and_not_said_twice() {
    let server = get(|config| {
        config.route(
            "/",
            web::get().to(async |session: Session| {
                session.add("key", "value")?;
                Ok::<_, Error>(
                    HttpResponse::Ok()
                        .insert_header((header::VARY, "Accept, Cookie"))
                        .insert_header((header::CACHE_CONTROL, "public, max-age=60"))
                        .insert_header((header::SET_COOKIE, "other=1"))
                        .finish(),
                )
            }),
        );
    });
    let answer = server.raw("/", &[]);
    assert_eq!(answer.all("vary").collect::<Vec<_>>(), ["Accept, Cookie"]);
    let cache: Vec<_> = answer.all("cache-control").collect();
    assert_eq!(cache, ["public, max-age=60", "no-cache=\"Set-Cookie\""]);
    assert_eq!(answer.all("set-cookie").count(), 2);
}

/// An engine whose store is away: it takes its time, and fails.
struct Away;

impl Backend for Away {
    fn engine(&self) -> &'static str {
        "away"
    }

    fn open<'a>(&'a self, request: Opening<'_>) -> BackendFuture<'a, Result<Opened, Error>> {
        assert!(
            request.request.is::<HttpRequest>(),
            "an adapter can look at the framework's request"
        );
        BackendFuture::pending(async {
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
            Err(Error::Unavailable {
                source: "connection refused by 127.0.0.1:6379".into(),
            })
        })
    }

    fn commit<'a>(&'a self, _: Commit<'_>) -> BackendFuture<'a, Result<Reply, Error>> {
        panic!("a session that could not be opened is never committed");
    }
}

#[test]
fn an_engine_that_cannot_open_the_session_fails_the_request_or_gives_an_empty_one_that_takes_no_writes()
 {
    let log = common::Log::of_process();
    let serve = |policy| {
        let manager = Manager::builder(Away)
            .on_store_error(policy)
            .build()
            .unwrap();
        Server::start(manager.middleware(), script::routes)
    };
    let failed = serve(OnStoreError::Fail).raw("/run/get.key", &[]);
    assert_eq!((failed.status, &*failed.body), (503, "Service Unavailable"));
    assert_eq!(log.lines("connection refused by 127.0.0.1:6379").len(), 1);

    let anonymous = serve(OnStoreError::Anonymous);
    let answer = anonymous.raw("/run/get.key,len,add.key.value,flash.hello,destroy", &[]);
    assert_eq!(
        (answer.status, &*answer.body),
        (200, "none,0,read only,read only,done")
    );
    assert_eq!(answer.set_cookie(), None);
    assert_eq!(answer.header("vary"), Some("Cookie"));
}

/// An engine that opens an empty session, and cannot keep it.
struct Forgetful;

impl Backend for Forgetful {
    fn engine(&self) -> &'static str {
        "forgetful"
    }

    fn open<'a>(&'a self, _: Opening<'_>) -> BackendFuture<'a, Result<Opened, Error>> {
        BackendFuture::ready(Ok(Opened::Nothing))
    }

    fn commit<'a>(&'a self, commit: Commit<'_>) -> BackendFuture<'a, Result<Reply, Error>> {
        assert_eq!(
            commit.changes.entries().count(),
            1,
            "a commit receives what the request did"
        );
        BackendFuture::pending(async {
            Err(Error::Unavailable {
                source: "disk full".into(),
            })
        })
    }
}

#[test]
fn a_response_that_claims_what_could_not_be_kept_is_replaced_by_a_503() {
    let server = Server::start(Manager::new(Forgetful).middleware(), script::routes);
    assert_eq!(server.raw("/run/get.key", &[]).status, 200);
    let answer = server.raw("/run/add.key.value", &[]);
    assert_eq!((answer.status, &*answer.body), (503, "Service Unavailable"));
}

#[test]
fn size_says_how_much_of_the_cookie_is_used() {
    for (engine, builder) in engines() {
        let server = Server::start(
            builder().secure(true).build().unwrap().middleware(),
            |config| {
                config.route(
                    "/",
                    web::get().to(async |session: Session| {
                        session.add("key", "value")?;
                        let size = session.size().unwrap();
                        Ok::<_, Error>(format!("{} of {}", size.used, size.limit))
                    }),
                );
            },
        );
        let answer = server.raw("/", &[]);
        let sent = answer.set_cookie().unwrap().len();
        assert_eq!(answer.body, format!("{sent} of 4096"), "{engine}");
    }
}

#[test]
fn no_debug_text_shows_a_key_a_value_or_a_cookie() {
    let request = actix_web::test::TestRequest::default().to_srv_request();
    let shown = actix_web::rt::System::new().block_on(async {
        let manager = signed();
        let app = App::new().wrap(manager.middleware()).route(
            "/",
            web::get().to(async |session: Session| {
                session.add("a-key", "a-stored-value").unwrap();
                format!(
                    "{session:?} {:?} {:?}",
                    session.manager(),
                    session.sessions()
                )
            }),
        );
        let app = actix_web::test::init_service(app).await;
        let response = app
            .call(actix_web::test::TestRequest::default().to_request())
            .await
            .unwrap();
        let cookie = response
            .response()
            .cookies()
            .next()
            .unwrap()
            .value()
            .to_owned();
        let body = actix_web::test::read_body(response).await;
        (String::from_utf8(body.to_vec()).unwrap(), cookie)
    });
    assert!(shown.0.contains("signed cookie"), "{shown:?}");
    for secret in ["a-key", "a-stored-value", &*shown.1] {
        assert!(!shown.0.contains(secret), "{secret} in {}", shown.0);
    }
    assert!(request.extensions().get::<Session>().is_none());
}
