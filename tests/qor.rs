//! What qor/session asks of every engine, over HTTP and inside one request.
#![cfg(all(feature = "actix", feature = "cookies"))]

mod common;

use actix_web::{
    HttpRequest,
    web::{self, Query, ServiceConfig},
};
use common::{Server, all_engines};
use serde::{Deserialize, Serialize};
use session_manager::{Error, manager};

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Flash {
    message: String,
}

async fn set(req: HttpRequest, pair: Query<Pair>) -> Result<String, Error> {
    let manager = manager::get();
    manager.add(&req, &pair.key, &pair.value)?;
    Ok(manager.get(&req, &pair.key)?.unwrap_or_default())
}

async fn get(req: HttpRequest, pair: Query<Pair>) -> Result<String, Error> {
    Ok(manager::get().get(&req, &pair.key)?.unwrap_or_default())
}

async fn pop(req: HttpRequest, pair: Query<Pair>) -> Result<String, Error> {
    Ok(manager::get().pop(&req, &pair.key)?.unwrap_or_default())
}

async fn set_flash(req: HttpRequest, flash: Query<Flash>) -> Result<&'static str, Error> {
    manager::get().flash(&req, flash.message.as_str())?;
    Ok("")
}

async fn get_flash(req: HttpRequest) -> Result<String, Error> {
    let texts: Vec<_> = manager::get()
        .flashes(&req)?
        .into_iter()
        .map(|flash| flash.text)
        .collect();
    Ok(texts.join(", "))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
    activated: bool,
}

/// The cases inside one request. They hold in one that already has a session too.
async fn inside(req: HttpRequest) -> Result<&'static str, Error> {
    let manager = manager::get();

    manager.add(&req, "key", "value")?;
    assert_eq!(manager.get(&req, "key")?.as_deref(), Some("value"));
    assert_eq!(manager.get(&req, "key")?.as_deref(), Some("value"));

    assert_eq!(manager.pop(&req, "key")?.as_deref(), Some("value"));
    assert_eq!(manager.pop(&req, "key")?, None);

    manager.flash(&req, "hello1")?;
    manager.flash(&req, "hello2")?;
    let texts: Vec<_> = manager
        .flashes(&req)?
        .into_iter()
        .map(|flash| flash.text)
        .collect();
    assert_eq!(texts, ["hello1", "hello2"]);
    assert_eq!(manager.flashes(&req)?, []);

    let user = User {
        name: "jinzhu".into(),
        age: 18,
        activated: true,
    };
    manager.add(&req, "current_user", &user)?;
    assert_eq!(manager.load(&req, "current_user")?, Some(user.clone()));
    assert_eq!(manager.load(&req, "current_user")?, Some(user.clone()));
    assert_eq!(manager.pop_load(&req, "current_user")?, Some(user));
    assert_eq!(manager.load::<User>(&req, "current_user")?, None);
    Ok("all true")
}

fn routes(config: &mut ServiceConfig) {
    config
        .route("/set", web::get().to(set))
        .route("/get", web::get().to(get))
        .route("/pop", web::get().to(pop))
        .route("/setflash", web::get().to(set_flash))
        .route("/getflash", web::get().to(get_flash))
        .route("/inside", web::get().to(inside));
}

/// Percent-encodes for a query: everything but letters and digits.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn the_http_cases_of_qor_hold_on_every_engine() {
    for (engine, builder) in all_engines() {
        let server = Server::start(builder().build().unwrap().middleware(), routes);
        for (key, value) in [
            ("key", "value"),
            ("中文测试", "中文测试"),
            ("<html> &tag, test", "<html> &tag, test"),
        ] {
            let (k, v) = (encode(key), encode(value));
            let visitor = server.visitor();
            assert_eq!(
                visitor.body(&format!("/set?key={k}&value={v}")),
                value,
                "{engine}"
            );
            assert_eq!(visitor.body(&format!("/get?key={k}")), value, "{engine}");
            assert_eq!(visitor.body(&format!("/pop?key={k}")), value, "{engine}");
            assert_eq!(visitor.body(&format!("/get?key={k}")), "", "{engine}");
            visitor.body("/setflash?message=message1");
            visitor.body("/setflash?message=message2");
            assert_eq!(visitor.body("/getflash"), "message1, message2", "{engine}");
            assert_eq!(visitor.body("/getflash"), "", "{engine}");
        }
    }
}

#[test]
fn the_cases_of_qor_inside_one_request_hold_on_every_engine() {
    for (engine, builder) in all_engines() {
        let server = Server::start(builder().build().unwrap().middleware(), routes);
        let visitor = server.visitor();
        assert_eq!(
            visitor.body("/inside"),
            "all true",
            "{engine}, without a session"
        );
        visitor.body("/set?key=other&value=1");
        assert_eq!(
            visitor.body("/inside"),
            "all true",
            "{engine}, within a session"
        );
        assert_eq!(visitor.body("/get?key=other"), "1", "{engine}");
    }
}
