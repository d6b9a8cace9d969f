//! What holds on every web framework, in tests that are written once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{App, Log, Page, Server, Web, backends, block_on, key, on_every_framework};
use session_manager::{
    Backend, Error, HasSession, Manager, Message, OnStoreError, PrivateCookie, Session,
    SignedCookie,
    backend::{BackendFuture, Commit, CommitOutcome, OpenOutcome, OpenRequest},
    manager,
};

fn signed() -> Manager {
    Manager::new(SignedCookie::new(key()))
}

fn serve(web: Web, app: App) -> Server {
    Server::start(web, app.wrap(signed().middleware()))
}

fn two_managers_on_one_request_each_find_their_own_session(web: Web) {
    let admin = Manager::builder(PrivateCookie::new(key()))
        .cookie_name("admin")
        .build()
        .unwrap();
    let (former, third) = (signed(), signed());
    manager::with(former.clone(), || drop(manager::get()));
    for admin_is_inside in [true, false] {
        let (in_handler, former, third) = (admin.clone(), former.clone(), third.clone());
        let app = App::new().get_request("/", move |request, _| {
            let (admin, former, third) = (in_handler.clone(), former.clone(), third.clone());
            async move {
                manager::get().add(&request, "who", "application")?;
                admin.add(&request, "who", "admin")?;
                let who = |manager: &Manager| manager.get(&request, "who");
                assert_eq!(who(&admin)?.as_deref(), Some("admin"));
                assert_eq!(who(&manager::get())?.as_deref(), Some("application"));
                let own = request.session()?.get("who");
                assert_eq!(own.as_deref(), Some("application"));
                assert_eq!(who(&former)?.as_deref(), Some("application"));
                let third = who(&third).unwrap_err();
                assert!(matches!(third, Error::NotMounted), "it was never mounted");
                // From a session as from the request.
                for session in [request.session()?, admin.session(&request)?] {
                    let who = |manager: &Manager| manager.get(&session, "who");
                    assert_eq!(who(&admin)?.as_deref(), Some("admin"));
                    assert_eq!(who(&manager::get())?.as_deref(), Some("application"));
                    assert_eq!(session.session()?.get("who"), session.get("who"));
                }
                Ok("both")
            }
        });
        let app = match admin_is_inside {
            true => app.wrap(admin.middleware()).wrap(manager::middleware()),
            false => app.wrap(manager::middleware()).wrap(admin.middleware()),
        };
        let answer = block_on(manager::scope(signed(), app.call(web, "/")));
        assert_eq!((answer.status, &*answer.body), (200, "both"));
        let set = answer.all("set-cookie");
        let mut names: Vec<_> = set.map(|set| set.split('=').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["_session", "admin"]);
    }
}

fn a_manager_on_a_route_without_its_middleware_is_not_mounted(web: Web) {
    let admin = Manager::builder(PrivateCookie::new(key()));
    let admin = admin.cookie_name("admin").build().unwrap();
    let app = App::new().get_request("/", move |request, _| {
        let asked = [
            admin.add(&request, "who", "admin"),
            request
                .session()
                .and_then(|session| admin.add(&session, "who", "admin")),
        ];
        async move {
            Ok(asked
                .map(|asked| matches!(asked, Err(Error::NotMounted)))
                .iter()
                .all(|it| *it)
                .to_string())
        }
    });
    let app = app.wrap(manager::middleware());
    let answer = block_on(manager::scope(signed(), app.call(web, "/")));
    assert_eq!((answer.status, &*answer.body), (200, "true"));
    assert_eq!(answer.set_cookie(), None);
}

fn of_two_managers_with_one_cookie_name_the_outer_one_wins(web: Web) {
    let outer = Manager::new(PrivateCookie::new(key()));
    let inner = signed();
    let (adds, reads) = (
        [inner.clone(), outer.clone()],
        [inner.clone(), outer.clone()],
    );
    let app = App::new()
        .get_request("/add", move |request, _| {
            let mut adds = adds.iter();
            let added =
                adds.try_for_each(|manager| manager.add(&request, "by", manager.backend_name()));
            async { added.map(|()| "") }
        })
        .get_request("/read", move |request, _| {
            let read = reads.each_ref().map(|manager| manager.get(&request, "by"));
            async move { Ok(format!("{read:?}")) }
        });
    let server = Server::start(web, app.wrap(inner.middleware()).wrap(outer.middleware()));
    let visitor = server.visitor();
    let added = visitor.get("/add");
    assert_eq!(added.all("set-cookie").count(), 2, "one for each manager");
    // Neither reads what the other wrote, and reading sends nothing.
    let read = visitor.get("/read");
    assert_eq!(read.body, r#"[Ok(None), Ok(Some("private cookie"))]"#);
    assert_eq!(read.set_cookie(), None);
}

fn a_middleware_mounted_twice_opens_one_session(web: Web) {
    let middleware = signed().middleware();
    let app = App::new()
        .wrap(middleware.clone())
        .before(|request| request.session().unwrap().add("outside", "1").unwrap())
        .wrap(middleware);
    let server = Server::start(web, app);
    let cookie = server.raw("/run/add.inside.2", &[]).cookie();
    let read = server.with_cookie("/run/get.outside,get.inside", cookie);
    assert_eq!(read.body, "1,2");
}

#[test]
fn without_middleware_a_request_is_a_500_and_the_log_says_why() {
    let log = Log::of_process();
    // The line names nothing that tells requests apart, and other tests may cause it too.
    let lines = || log.lines("manager::middleware()");
    for web in Web::ALL {
        let before = lines().len();
        let server = Server::start(web, App::new());
        let answer = server.raw("/run/flash.lost", &[]);
        assert_eq!(answer.status, 500, "{web}");
        let lines = lines();
        assert!(lines.len() > before, "{web}: {lines:#?}");
        let is_whole = |line: &String| line.contains("ERROR") && line.contains("cargo tree -d");
        assert!(lines.iter().any(is_whole), "{web}: {lines:#?}");
    }
}

fn a_template_reads_flash_messages_and_escapes_them(web: Web) {
    fn page(session: Session) -> Result<String, minijinja::Error> {
        let mut templates = minijinja::Environment::new();
        let page = "{% for f in flashes() %}<p class={{ f.kind }}>{{ f.text }}</p>{% endfor %}";
        templates.add_template("page.html", page)?;
        templates.add_function("flashes", move || {
            minijinja::Value::from(minijinja::value::Serde(session.flashes()))
        });
        templates.get_template("page.html")?.render(())
    }
    let app = App::new()
        .get("/leave", async |session, _| {
            session.flash(Message::error("<script>alert(1)</script>"))?;
            Ok("")
        })
        .get("/page", async |session, _| Ok(page(session).unwrap()));
    let server = serve(web, app);
    let visitor = server.visitor();
    visitor.body("/leave");
    let expected = "<p class=error>&lt;script&gt;alert(1)&lt;&#x2f;script&gt;</p>";
    assert_eq!(visitor.body("/page"), expected);
    assert_eq!(visitor.body("/page"), "");
}

fn after_the_response_head_a_thread_may_read_but_not_write(web: Web) {
    for (_, builder) in backends() {
        let kept: Arc<Mutex<Option<Session>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let app = App::new().get("/", move |session, _| {
            session.add("key", "value").unwrap();
            *keep.lock().unwrap() = Some(session);
            async { Ok("sent") }
        });
        let manager = builder().build().unwrap();
        let server = Server::start(web, app.wrap(manager.middleware()));
        server.raw("/", &[]).cookie();
        let session = kept.lock().unwrap().take().unwrap();
        std::thread::spawn(move || {
            let saved = || block_on(session.save());
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
}

fn many_threads_may_write_to_one_session_at_once(web: Web) {
    let app = App::new().get("/", async |session, _| {
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
        Ok(format!(
            "{} {} {}",
            session.len(),
            session.flashes().len(),
            session.get("count").unwrap()
        ))
    });
    assert_eq!(serve(web, app).raw("/", &[]).body, "9 8 400");
}

fn update_may_use_the_session_itself_without_a_deadlock(web: Web) {
    let app = App::new().get("/", async |session, _| {
        session.add("step", 5)?;
        let inner = session.clone();
        let next = session.update("count", move |count: Option<i32>| {
            count.unwrap_or(0) + inner.load::<i32>("step").unwrap().unwrap()
        })?;
        let twice = session.update("count", |count: Option<i32>| count.unwrap_or(0) * 2)?;
        Ok(format!("{next} {twice}"))
    });
    assert_eq!(serve(web, app).raw("/", &[]).body, "5 10");
}

fn headers_that_the_handler_set_are_kept_and_not_repeated(web: Web) {
    let app = App::new().get("/", async |session, _| {
        session.add("key", "value")?;
        Ok(Page {
            headers: vec![
                ("vary", "Accept, Cookie"),
                ("cache-control", "public, max-age=60"),
                ("set-cookie", "other=1"),
            ],
            ..Page::from("")
        })
    });
    let answer = serve(web, app).raw("/", &[]);
    assert_eq!(answer.all("vary").collect::<Vec<_>>(), ["Accept, Cookie"]);
    let cache: Vec<_> = answer.all("cache-control").collect();
    assert_eq!(cache, ["public, max-age=60", "no-cache=\"Set-Cookie\""]);
    assert_eq!(answer.all("set-cookie").count(), 2);
}

/// A backend whose store is unavailable: it fails after a moment.
struct Away(Web);

impl Backend for Away {
    fn name(&self) -> &'static str {
        "away"
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        assert!(
            match self.0 {
                Web::Actix => request.request.is::<actix_web::HttpRequest>(),
                #[cfg(feature = "axum")]
                Web::Axum => request.request.is::<axum::http::Extensions>(),
            },
            "an adapter can look at the framework's request"
        );
        let source = format!("connection refused by {}", self.0).into();
        BackendFuture::pending(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Err(Error::Unavailable { source })
        })
    }

    fn commit(
        self: Arc<Self>,
        _: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        panic!("a session that could not be opened is never committed");
    }
}

fn a_failed_open_fails_the_request_or_gives_a_read_only_session(web: Web) {
    let log = Log::of_process();
    let serve = |policy| {
        let manager = Manager::builder(Away(web))
            .on_store_error(policy)
            .build()
            .unwrap();
        Server::scripts(web, manager.middleware())
    };
    let failed = serve(OnStoreError::Fail).raw("/run/get.key", &[]);
    assert_eq!((failed.status, &*failed.body), web.unavailable());
    assert_eq!(log.lines(&format!("connection refused by {web}")).len(), 1);

    let anonymous = serve(OnStoreError::Anonymous);
    let answer = anonymous.raw("/run/get.key,len,add.key.value,flash.hello", &[]);
    assert_eq!(
        (answer.status, &*answer.body),
        (200, "none,0,read only,read only")
    );
    assert_eq!(answer.set_cookie(), None);
    assert_eq!(answer.header("vary"), Some("Cookie"));
}

/// A backend that opens an empty session, and fails to store it.
struct Forgetful;

impl Backend for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn open(
        self: Arc<Self>,
        _: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        BackendFuture::ready(Ok(OpenOutcome::Nothing))
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
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

fn a_failed_commit_replaces_the_response_with_a_503(web: Web) {
    let server = Server::scripts(web, Manager::new(Forgetful).middleware());
    assert_eq!(server.raw("/run/get.key", &[]).status, 200);
    let answer = server.raw("/run/add.key.value", &[]);
    assert_eq!((answer.status, &*answer.body), web.unavailable());
}

fn size_reports_how_much_of_the_cookie_is_used(web: Web) {
    for (backend, builder) in backends() {
        let app = App::new().get("/", async |session, _| {
            session.add("key", "value")?;
            let size = session.size().unwrap();
            Ok(format!("{} of {}", size.used, size.limit))
        });
        let manager = builder().secure(true).build().unwrap();
        let answer = Server::start(web, app.wrap(manager.middleware())).raw("/", &[]);
        let sent = answer.set_cookie().unwrap().len();
        assert_eq!(answer.body, format!("{sent} of 4096"), "{backend}");
    }
}

on_every_framework!(
    two_managers_on_one_request_each_find_their_own_session,
    a_manager_on_a_route_without_its_middleware_is_not_mounted,
    of_two_managers_with_one_cookie_name_the_outer_one_wins,
    a_middleware_mounted_twice_opens_one_session,
    a_template_reads_flash_messages_and_escapes_them,
    many_threads_may_write_to_one_session_at_once,
    update_may_use_the_session_itself_without_a_deadlock,
    headers_that_the_handler_set_are_kept_and_not_repeated,
    a_failed_commit_replaces_the_response_with_a_503,
    size_reports_how_much_of_the_cookie_is_used,
    after_the_response_head_a_thread_may_read_but_not_write,
    a_failed_open_fails_the_request_or_gives_a_read_only_session,
);
