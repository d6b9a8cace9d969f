//! What library crates share one session with: namespaces and typed keys.

use std::{cell::Cell, rc::Rc, sync::OnceLock};

use crate::common::key;
use actix_web::{
    App, HttpRequest, Route,
    http::StatusCode,
    test::{self, TestRequest},
    web,
};
use session_manager::{
    Error, HasSession, Manager, Middleware, Namespace, Session, SignedCookie, TypedKey, manager,
    testing,
};

const VISITS: TypedKey<u32> = TypedKey::new("counter.visits");
const NAMES: TypedKey<Vec<String>> = TypedKey::new("profile.names");

fn named(name: &str) -> Manager {
    Manager::builder(SignedCookie::new(key()))
        .cookie_name(name)
        .build()
        .unwrap()
}

#[test]
fn two_namespaces_never_see_each_others_keys() {
    let session = testing::session();
    let (admin, other) = (session.namespace("admin"), session.namespace("admin2"));
    admin.add("filter", "open").unwrap();
    assert!(other.is_empty());
    assert!(!other.contains_key("filter"));
    assert_eq!(other.get("filter"), None);
    assert_eq!(other.pop("filter"), None);
    assert_eq!(other.load::<String>("filter").unwrap(), None);
    assert_eq!(other.pop_load::<String>("filter").unwrap(), None);
    other.add("filter", "closed").unwrap();
    other.add("page", 2).unwrap();
    assert_eq!(admin.get("filter").as_deref(), Some("open"));
    assert_eq!((admin.keys(), admin.len()), (vec!["filter".to_owned()], 1));
    assert_eq!(other.keys(), ["filter", "page"]);
    assert_eq!(
        session.keys(),
        ["admin.filter", "admin2.filter", "admin2.page"]
    );
}

#[test]
fn a_namespace_acts_on_the_session_under_the_full_key() {
    let session = testing::session();
    let admin = session.namespace("admin");
    admin.add("page", 3).unwrap();
    assert_eq!(session.get("admin.page").as_deref(), Some("3"));
    assert_eq!(admin.load::<u8>("page").unwrap(), Some(3));
    let next = admin.update("page", |page: Option<u8>| page.unwrap_or(0) + 1);
    assert_eq!(next.unwrap(), 4);
    assert!(admin.contains_key("page") && !admin.is_empty());
    assert_eq!(admin.pop_load::<u8>("page").unwrap(), Some(4));
    assert!(session.is_empty() && admin.is_empty());
    session.add("admin.page", "first").unwrap();
    assert_eq!(admin.pop("page").as_deref(), Some("first"));
    assert_eq!((session.len(), admin.len()), (0, 0));
}

#[test]
fn clearing_a_namespace_leaves_everything_else() {
    let session = testing::session();
    session.flash("hello").unwrap();
    for key in [
        "admin",
        "admin.a",
        "admin.users.b",
        "administrator",
        "shop.a",
    ] {
        session.add(key, 1).unwrap();
    }
    session.namespace("admin").clear();
    assert_eq!(session.keys(), ["admin", "administrator", "shop.a"]);
    assert_eq!(session.flashes().len(), 1);
}

#[test]
fn nested_namespaces_join_their_names() {
    let session = testing::session();
    let nested = session.namespace("admin").namespace("users");
    nested.add("page", 3).unwrap();
    assert_eq!(session.keys(), ["admin.users.page"]);
    assert_eq!(session.namespace("admin.users").keys(), ["page"]);
    assert_eq!(session.namespace("admin").keys(), ["users.page"]);
    assert!(session.namespace("users").is_empty());
}

#[test]
fn namespace_names_may_hold_any_key_text() {
    let session = testing::session();
    for (name, key, full) in [
        ("", "", "."),
        ("", "key", ".key"),
        ("中文 .", "🦀", "中文 ..🦀"),
    ] {
        let namespace = session.namespace(name);
        namespace.add(key, "value").unwrap();
        assert_eq!(session.pop(full).as_deref(), Some("value"));
    }
    for name in ["\u{1}admin", "\u{2}note", "ad\0min"] {
        let namespace = session.namespace(name);
        assert!(matches!(namespace.add("key", 1), Err(Error::ReservedKey)));
        let update = namespace.update("key", |_: Option<u8>| 1);
        assert!(matches!(update, Err(Error::ReservedKey)));
    }
    // In the middle of the whole key they are characters like others.
    session.namespace("admin").add("\u{1}", 1).unwrap();
    assert_eq!(session.keys(), ["admin.\u{1}"]);
}

#[test]
fn an_error_in_a_namespace_names_the_full_key() {
    let admin = testing::session().namespace("admin");
    admin.add("page", "first").unwrap();
    for error in [
        admin.load::<u8>("page").unwrap_err(),
        admin.pop_load::<u8>("page").unwrap_err(),
        admin.update("page", |_: Option<u8>| 1).unwrap_err(),
        admin
            .add("page", std::collections::BTreeMap::from([((1, 2), 3)]))
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("`admin.page`"), "{error}");
    }
    assert_eq!(admin.get("page").as_deref(), Some("first"));
}

#[test]
fn a_namespace_may_move_into_any_task_or_thread() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    let session = testing::session();
    let admin = session.namespace("admin");
    check::<Namespace>(&admin);
    std::thread::spawn(move || admin.add("key", 1).unwrap())
        .join()
        .unwrap();
    assert_eq!(session.keys(), ["admin.key"]);
}

#[test]
fn a_typed_key_of_another_type_is_an_error_and_keeps_the_value() {
    let session = testing::session();
    session.namespace("counter").add("visits", "many").unwrap();
    let failed = [
        VISITS.load(&session).unwrap_err(),
        VISITS.pop_load(&session).unwrap_err(),
        VISITS.update(&session, |_| 1).unwrap_err(),
    ];
    for error in failed {
        assert!(matches!(error, Error::WrongType { .. }), "{error}");
        assert!(error.to_string().contains("`counter.visits`"), "{error}");
        assert_eq!(session.get("counter.visits").as_deref(), Some("many"));
    }
    VISITS.add(&session, &1).unwrap();
    assert_eq!(VISITS.load(&session).unwrap(), Some(1));
}

#[test]
fn a_typed_key_reads_what_it_wrote() {
    let session = testing::session();
    assert_eq!(VISITS.load(&session).unwrap(), None);
    assert_eq!(VISITS.pop_load(&session).unwrap(), None);
    assert_eq!(VISITS.update(&session, |n| n.unwrap_or(0) + 1).unwrap(), 1);
    VISITS.add(&session, &7).unwrap();
    assert_eq!(VISITS.update(&session, |n| n.unwrap_or(0) + 1).unwrap(), 8);
    assert_eq!(session.keys(), ["counter.visits"]);
    assert_eq!(VISITS.pop_load(&session).unwrap(), Some(8));
    assert!(session.is_empty());
}

#[test]
fn a_typed_key_takes_what_its_type_borrows_as() {
    const NAME: TypedKey<String> = TypedKey::new("profile.name");
    let session = testing::session();
    NAME.add(&session, "Ada").unwrap();
    assert_eq!(NAME.load(&session).unwrap().as_deref(), Some("Ada"));
    let names = ["Ada", "Grace"].map(str::to_owned);
    NAMES.add(&session, &names[..]).unwrap();
    assert_eq!(NAMES.load(&session).unwrap().as_deref(), Some(&names[..]));
}

#[test]
fn a_typed_key_is_copy_send_and_sync_whatever_its_type() {
    fn check<T: Copy + Send + Sync + 'static>(_: T) {}
    /// Neither `Clone`, nor `Debug`, nor for another thread.
    struct Local(#[expect(dead_code)] Rc<Cell<u8>>);
    const LOCAL: TypedKey<Local> = TypedKey::new("local.key");
    check(LOCAL);
    assert_eq!(format!("{LOCAL:?}"), "TypedKey(\"local.key\")");
}

#[test]
fn without_middleware_a_typed_key_is_an_error() {
    let request = TestRequest::default().to_http_request();
    for error in [
        VISITS.add(&request, &1).unwrap_err(),
        VISITS.load(&request).unwrap_err(),
        VISITS.pop_load(&request).unwrap_err(),
        VISITS.update(&request, |_| 1).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotMounted));
    }
}

#[test]
fn a_request_its_session_and_a_namespace_reach_the_same_value() {
    async fn page(req: HttpRequest, session: Session) -> Result<String, Error> {
        let dynamic: &dyn HasSession = &req;
        VISITS.add(dynamic, &1)?;
        VISITS.update(&session, |visits| visits.unwrap_or(0) + 1)?;
        let counter = session.namespace("counter");
        counter.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
        Ok(VISITS.load(&req)?.unwrap().to_string())
    }
    let answer = answer(
        [manager::middleware(), manager::middleware()],
        web::get().to(page),
    );
    assert_eq!(answer, (vec!["scoped".to_owned()], "3".into()));
}

#[test]
fn a_typed_key_uses_the_process_wide_managers_session_first() {
    async fn page(req: HttpRequest) -> Result<&'static str, Error> {
        VISITS.add(&req, &1)?;
        Ok("")
    }
    // The other manager's session is nearer to the handler, and neither follows the process-wide
    // manager.
    let middleware = [named("other").middleware(), scoped().middleware()];
    let (set, _) = answer(middleware, web::get().to(page));
    assert_eq!(set, ["scoped"]);
}

fn scoped() -> Manager {
    static SCOPED: OnceLock<Manager> = OnceLock::new();
    SCOPED.get_or_init(|| named("scoped")).clone()
}

/// Which cookies an application sets, and its body, in the scope of the manager [`scoped`].
fn answer([inner, outer]: [Middleware; 2], route: Route) -> (Vec<String>, String) {
    let app = async {
        let app = App::new().wrap(inner).wrap(outer).route("/", route);
        let app = test::init_service(app).await;
        let response = test::call_service(&app, TestRequest::default().to_request()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let cookies = response.response().cookies();
        let set = cookies.map(|cookie| cookie.name().to_owned()).collect();
        let body = test::read_body(response).await;
        (set, String::from_utf8(body.to_vec()).unwrap())
    };
    actix_web::rt::System::new().block_on(manager::scope(scoped(), app))
}
