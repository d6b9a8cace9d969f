//! An application that keeps its sessions with actix-session, and crates that reach them through this
//! one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
};

use crate::common::{Log, Server, Told, script};
use actix_session::{
    SessionMiddleware,
    config::CookieContentSecurity,
    storage::{CookieSessionStore, LoadError, SaveError, SessionKey, SessionStore, UpdateError},
};
use actix_web::{
    App, HttpRequest, HttpResponse,
    cookie::{Key, time::Duration},
    web::{self, ServiceConfig},
};
use session_manager::{
    ActixSession, ConfigError, Error, HasSession, Manager, Message, Session, SignedCookie,
};

type State = HashMap<String, String>;

/// A store of actix-session that a test can look into.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<HashMap<String, State>>>);

impl Shelf {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl SessionStore for Shelf {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        Ok(self.0.lock().unwrap().get(key.as_ref()).cloned())
    }

    async fn save(&self, state: State, _: &Duration) -> Result<SessionKey, SaveError> {
        static COUNT: Mutex<u64> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let key = format!("key-{count}");
        self.0.lock().unwrap().insert(key.clone(), state);
        Ok(key.try_into().unwrap())
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        _: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        self.0
            .lock()
            .unwrap()
            .insert(key.as_ref().to_owned(), state);
        Ok(key)
    }

    async fn update_ttl(&self, _: &SessionKey, _: &Duration) -> Result<(), anyhow::Error> {
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        self.0.lock().unwrap().remove(key.as_ref());
        Ok(())
    }
}

/// An application that mounts actix-session as it always did.
fn serve(shelf: &Shelf, routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) -> Server {
    let (shelf, key) = (shelf.clone(), Key::generate());
    Server::actix(move || {
        let theirs = SessionMiddleware::builder(shelf.clone(), key.clone())
            .cookie_content_security(CookieContentSecurity::Signed)
            .build();
        App::new()
            .wrap(Manager::new(ActixSession::new()).middleware())
            .wrap(theirs)
            .configure(routes.clone())
    })
}

#[test]
fn an_observer_is_told_what_was_handed_to_actix_session() {
    let (told, shelf, key) = (Told::default(), Shelf::default(), Key::generate());
    let builder = Manager::builder(ActixSession::new()).observe(told.clone());
    let manager = builder.build().unwrap();
    let server = Server::actix(move || {
        let theirs = SessionMiddleware::builder(shelf.clone(), key.clone()).cookie_secure(false);
        App::new()
            .wrap(manager.middleware())
            .wrap(theirs.build())
            .configure(routes)
    });
    let visitor = server.visitor();
    for (path, expected) in [
        ("/run/get.key", ""),
        ("/run/add.key.value,status.500", ""),
        ("/run/add.key.value", "created"),
        ("/run/add.key.other", ""),
        ("/run/renew", "renewed"),
        (
            "/run/destroy,add.key.new",
            "destroyed 1 by handler, created",
        ),
        ("/run/destroy,status.500", "destroyed 1 by handler"),
    ] {
        visitor.get(path);
        assert_eq!(told.life(), expected, "{path}");
    }
}

/// `/run/…` does what a script says through this crate; `/theirs/…` the same through actix-session.
fn routes(config: &mut ServiceConfig) {
    async fn run(session: Session, path: web::Path<String>) -> HttpResponse {
        let page = script::run(&session, &path).unwrap();
        let status = actix_web::http::StatusCode::from_u16(page.status).unwrap();
        HttpResponse::build(status).body(page.body)
    }
    async fn theirs(session: actix_session::Session, path: web::Path<String>) -> String {
        let answers = path.split(',').map(|step| {
            let words: Vec<_> = step.split('.').collect();
            match words[..] {
                ["get", key] => session.entries().get(key).cloned().unwrap_or("none".into()),
                ["add", key, value] => done(session.insert(key, value)),
                ["update", key] => done(session.update(key, |count: i64| count + 1)),
                ["len"] => session.entries().len().to_string(),
                ["purge"] => {
                    session.purge();
                    "done".into()
                }
                _ => panic!("no step is called {step}"),
            }
        });
        answers.collect::<Vec<_>>().join(",")
    }
    fn done<E: std::fmt::Debug>(result: Result<(), E>) -> String {
        result.unwrap();
        "done".into()
    }
    config
        .route("/run/{script}", web::get().to(run))
        .route("/theirs/{script}", web::get().to(theirs));
}

#[test]
fn later_requests_read_what_either_crate_stored() {
    let server = serve(&Shelf::default(), routes);
    let visitor = server.visitor();
    visitor.body("/theirs/add.user.ada");
    assert_eq!(
        visitor.body("/run/get.user,add.city.Paris,count.n,flash.hello"),
        "ada,null,1,null"
    );
    assert_eq!(visitor.body("/theirs/get.city,get.n"), "\"Paris\",1");
    assert_eq!(
        visitor.body("/run/keys,flashes,pop.city"),
        "city+n+user,hello,Paris"
    );
    assert_eq!(visitor.body("/theirs/get.city,len"), "none,2");
}

#[test]
fn within_a_request_each_crate_sees_the_others_writes_at_once() {
    let server = serve(&Shelf::default(), |config| {
        let handler = async |req: HttpRequest, ours: Session, theirs: actix_session::Session| {
            theirs.insert("a", "theirs").unwrap();
            assert_eq!(ours.get("a").as_deref(), Some("theirs"));
            ours.add("a", "ours")?;
            assert_eq!(theirs.get::<String>("a").unwrap().as_deref(), Some("ours"));
            theirs.insert("a", vec![1, 2]).unwrap();
            assert_eq!(ours.load::<Vec<i32>>("a")?, Some(vec![1, 2]));
            let next = ours.update("n", |n: Option<i32>| n.unwrap_or(0) + 1)?;
            assert_eq!(theirs.get::<i32>("n").unwrap(), Some(next));
            theirs.remove("n");
            assert!(!req.session()?.contains_key("n"));
            ours.pop("a");
            assert!(!theirs.contains_key("a"));
            theirs.insert("b", 1).unwrap();
            ours.clear();
            assert!(theirs.entries().is_empty());
            ours.flash(Message::success("still here"))?;
            assert_eq!(ours.flashes().len(), 1);
            assert!(theirs.entries().is_empty());
            Ok::<_, Error>("agreed")
        };
        config.route("/", web::get().to(handler));
    });
    assert_eq!(server.raw("/", &[]).body, "agreed");
}

#[test]
fn an_update_through_actix_session_is_saved() {
    let server = serve(&Shelf::default(), routes);
    let visitor = server.visitor();
    visitor.body("/run/add.n.1,count.m");
    visitor.body("/theirs/update.m");
    assert_eq!(visitor.body("/theirs/get.m"), "2");
}

#[test]
fn a_write_after_destroy_begins_a_new_actix_session() {
    let shelf = Shelf::default();
    let server = serve(&shelf, routes);
    let old = server.raw("/run/add.user.ada", &[]).cookie();
    let out = server.with_cookie("/run/destroy,flash.bye", &old);
    let new = out.cookie();
    assert_ne!(new, old);
    assert_eq!(
        server.with_cookie("/run/get.user,flashes", &new).body,
        "none,bye"
    );
    assert_eq!(
        server.with_cookie("/run/len", &old).body,
        "0",
        "the old key is dead"
    );
    assert!(
        server
            .with_cookie("/run/destroy", &new)
            .cookie()
            .ends_with('=')
    );
    assert_eq!(shelf.len(), 0);
}

#[test]
fn a_renewal_keeps_the_data_under_a_new_key() {
    let server = serve(&Shelf::default(), routes);
    let old = server.raw("/run/add.cart.full", &[]).cookie();
    let new = server.with_cookie("/run/renew,add.user.ada", &old).cookie();
    assert_ne!(new, old);
    assert_eq!(
        server.with_cookie("/run/get.cart,get.user", &new).body,
        "full,ada"
    );
    assert_eq!(server.with_cookie("/run/len", &old).body, "0");
}

#[test]
fn a_server_error_undoes_writes_and_keeps_a_log_out() {
    let server = serve(&Shelf::default(), routes);
    let cookie = server.raw("/run/add.user.ada,add.city.Rome", &[]).cookie();
    for undone in ["add.user.eve,add.new.1,pop.city", "clear,add.new.1"] {
        let failed = server.with_cookie(&format!("/run/{undone},status.500"), &cookie);
        assert_eq!(failed.status, 500);
        let read = server.with_cookie("/run/get.user,get.city,get.new", &cookie);
        assert_eq!(read.body, "ada,Rome,none", "{undone}");
    }
    server.with_cookie("/run/destroy,add.new.1,status.500", &cookie);
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

#[test]
fn writes_from_another_thread_are_saved() {
    let server = serve(&Shelf::default(), |config| {
        routes(config);
        let handler = async |ours: Session, theirs: actix_session::Session| {
            theirs.insert("a", 1).unwrap();
            assert_eq!(ours.get("a").as_deref(), Some("1"));
            let there = ours.clone();
            let thread = std::thread::spawn(move || {
                assert_eq!(there.get("a").as_deref(), Some("1"));
                there.add("b", 2).unwrap();
                assert_eq!(there.get("b").as_deref(), Some("2"));
            });
            thread.join().unwrap();
            "done"
        };
        config.route("/", web::get().to(handler));
    });
    let cookie = server.raw("/", &[]).cookie();
    assert_eq!(server.with_cookie("/run/get.a,get.b", &cookie).body, "1,2");
}

#[test]
fn after_its_request_a_session_is_read_only() {
    let (send, kept) = mpsc::channel();
    let server = serve(&Shelf::default(), move |config| {
        let send = send.clone();
        let handler = move |session: Session| {
            session.add("key", "value").unwrap();
            send.send(session).unwrap();
            async { "sent" }
        };
        config.route("/", web::get().to(handler));
    });
    server.raw("/", &[]);
    let session = kept.recv().unwrap();
    assert_eq!(session.get("key").as_deref(), Some("value"));
    assert!(matches!(session.add("key", "late"), Err(Error::HeadSent)));
}

#[test]
fn writes_that_actix_session_loses_are_logged() {
    let log = Log::of_process();
    let server = serve(&Shelf::default(), |config| {
        let handler = async |ours: Session, theirs: actix_session::Session| {
            theirs.purge();
            ours.flash("You are logged out").map(|()| "done")
        };
        config.route("/", web::get().to(handler));
    });
    server.raw("/", &[]);
    assert_eq!(
        log.lines("after the application purged the actix-session")
            .len(),
        1
    );

    let nobody_saves = Manager::new(ActixSession::new());
    let server =
        Server::actix(move || App::new().wrap(nobody_saves.middleware()).configure(routes));
    server.raw("/run/get.key", &[]);
    assert_eq!(log.lines("no middleware saved them").len(), 0);
    server.raw("/run/add.key.value", &[]);
    assert_eq!(log.lines("no middleware saved them").len(), 1);
}

#[test]
fn actix_session_and_another_manager_share_a_request() {
    let beside = Manager::builder(SignedCookie::new(crate::common::key())).cookie_name("beside");
    let beside = beside.build().unwrap();
    let server = serve(&Shelf::default(), move |config| {
        let manager = beside.clone();
        let handler = move |req: HttpRequest| {
            let manager = manager.clone();
            async move {
                manager.add(&req, "who", "beside")?;
                let theirs = manager.get(&req, "who")?;
                Ok::<_, Error>(theirs.unwrap_or_default())
            }
        };
        let scope = web::scope("").wrap(beside.middleware());
        config.service(scope.route("/", web::get().to(handler)));
    });
    let answer = server.raw("/", &[]);
    assert_eq!(answer.body, "beside");
    assert!(answer.cookie().starts_with("beside="));
}

#[test]
fn sessions_kept_by_actix_session_cannot_migrate() {
    let theirs = || Manager::new(ActixSession::new());
    let ours = || Manager::new(SignedCookie::new(crate::common::key()));
    let to = Manager::builder(ActixSession::new())
        .migrate_from(ours())
        .build();
    let from = Manager::builder(SignedCookie::new(crate::common::key()))
        .migrate_from(theirs())
        .build();
    for refused in [to, from] {
        let backend = "actix-session";
        assert_eq!(refused.unwrap_err(), ConfigError::CannotMigrate { backend });
    }
}

/// A cookie of actix-session holds the whole session: the same backend serves it.
#[test]
fn the_cookie_store_of_actix_session_works_too() {
    let key = Key::generate();
    let server = Server::actix(move || {
        App::new()
            .wrap(Manager::new(ActixSession::new()).middleware())
            .wrap(SessionMiddleware::new(
                CookieSessionStore::default(),
                key.clone(),
            ))
            .configure(routes)
    });
    let cookie = server.raw("/run/add.user.ada,flash.hello", &[]).cookie();
    assert_eq!(
        server.with_cookie("/theirs/get.user", &cookie).body,
        "\"ada\""
    );
    assert_eq!(
        server.with_cookie("/run/get.user,flashes", &cookie).body,
        "ada,hello"
    );
}
