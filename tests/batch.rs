//! Several changes in one step, and values that are encoded already.

mod common;

use common::{App, Server, Web, all_backends, block_on, on_every_framework};
use session_manager::{Error, Lifetime, Session, backend::Changes, store::Value};

/// Does what `act` does to a new session of each backend, in a request that must succeed.
fn in_a_request(web: Web, act: fn(&Session) -> Result<(), Error>) {
    for (name, builder) in all_backends() {
        let app = App::new().get("/do/{what}", move |session: Session, _| async move {
            act(&session).map(|()| "done".to_owned())
        });
        let server = Server::start(web, app.wrap(builder().build().unwrap().middleware()));
        assert_eq!(server.visitor().body("/do/it"), "done", "{name}");
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

on_every_framework!(
    all_changes_are_applied_or_none,
    only_the_size_after_all_changes_counts,
    what_begins_with_the_session_comes_first,
    an_encoded_value_is_checked,
    a_user_needs_a_backend_with_an_index,
);

fn all_changes_are_applied_or_none(web: Web) {
    in_a_request(web, |session| {
        session.add("a", 1)?;
        session.add("b", 1)?;
        let mut changes = Changes::default();
        changes.remove("a");
        changes.set("b", text("2"));
        changes.set("new", text(&"x".repeat(2_000_000)));
        let before = session.entries();
        assert!(matches!(
            session.apply(changes),
            Err(Error::TooLarge { .. })
        ));
        assert_eq!(session.entries(), before);

        let mut changes = Changes::default();
        changes.set("b", text("2"));
        changes.set("\u{1}own", text("2"));
        assert!(matches!(session.apply(changes), Err(Error::ReservedKey)));
        let mut changes = Changes::default();
        changes.destroy();
        changes.set("b", Value::Json("{".into()));
        assert!(matches!(
            session.apply(changes),
            Err(Error::Unserializable { .. })
        ));
        assert_eq!(session.entries(), before);

        let mut changes = Changes::default();
        changes.remove("a");
        changes.set("b", text("2"));
        session.apply(changes)?;
        assert_eq!(session.entries(), [("b".to_owned(), text("2"))]);
        Ok(())
    });
}

fn only_the_size_after_all_changes_counts(web: Web) {
    in_a_request(web, |session| {
        let large = || "x".repeat(1_800);
        session.add("old", large())?;
        let mut changes = Changes::default();
        changes.set("new", text(&large()));
        changes.remove("old");
        session.apply(changes)?;
        assert_eq!(session.keys(), ["new"]);
        Ok(())
    });
}

fn what_begins_with_the_session_comes_first(web: Web) {
    in_a_request(web, |session| {
        session.add("a", 1)?;
        session.set_lifetime(Lifetime::Browser)?;
        let mut changes = Changes::default();
        changes.clear();
        changes.set("b", text("1"));
        session.apply(changes)?;
        assert_eq!(
            (session.keys(), session.lifetime()),
            (vec!["b".into()], Some(Lifetime::Browser))
        );
        let mut changes = Changes::default();
        changes.destroy();
        changes.set("c", text("1"));
        session.apply(changes)?;
        assert_eq!(
            (session.keys(), session.lifetime()),
            (vec!["c".into()], None)
        );
        Ok(())
    });
}

fn an_encoded_value_is_checked(web: Web) {
    in_a_request(web, |session| {
        session.add_value("list", Value::Json("[1,2]".into()))?;
        session.add_value("text", text("[1,"))?;
        assert_eq!(session.load::<Vec<u8>>("list")?, Some(vec![1, 2]));
        let deep = "[".repeat(128) + &"]".repeat(128);
        for bad in ["", "[1,", "1 2", &deep] {
            let added = session.add_value("list", Value::Json(bad.into()));
            assert!(matches!(added, Err(Error::Unserializable { .. })), "{bad}");
        }
        let reserved = session.add_value("\u{2}own", text("x"));
        assert!(matches!(reserved, Err(Error::ReservedKey)));
        assert_eq!(session.get("list").as_deref(), Some("[1,2]"));
        Ok(())
    });
}

fn a_user_needs_a_backend_with_an_index(web: Web) {
    for (name, builder) in all_backends() {
        let manager = builder().build().unwrap();
        let app = App::new().get("/do/{what}", async |session: Session, _| {
            let mut changes = Changes::default();
            changes.set_user("ada");
            changes.set("a", text("1"));
            let applied = session.apply(changes);
            let has_value = session.contains_key("a");
            Ok(format!(
                "{} {has_value}",
                matches!(applied, Err(Error::NoUserIndex { .. }))
            ))
        });
        let server = Server::start(web, app.wrap(manager.middleware()));
        let said = server.visitor().body("/do/it");
        let listed = block_on(async move { manager.user_sessions("ada").await });
        match listed {
            Ok(listed) => assert_eq!((said.as_str(), listed.len()), ("false true", 1), "{name}"),
            Err(_) => assert_eq!(said, "true false", "{name}"),
        }
    }
}
