//! What qor/session asks of every backend, of the cookie backends and memory, over HTTP and inside one
//! request.

use crate::common::{App, Request, Server, Web, all_backends, on_every_framework};
use serde::{Deserialize, Serialize};
use session_manager::{Builder, Error, manager};

async fn set(request: Request, pair: String) -> Result<String, Error> {
    let manager = manager::get();
    let (key, value) = pair.split_once('=').unwrap();
    manager.add(&request, key, value)?;
    Ok(manager.get(&request, key)?.unwrap_or_default())
}

async fn get(request: Request, key: String) -> Result<String, Error> {
    Ok(manager::get().get(&request, &key)?.unwrap_or_default())
}

async fn pop(request: Request, key: String) -> Result<String, Error> {
    Ok(manager::get().pop(&request, &key)?.unwrap_or_default())
}

async fn set_flash(request: Request, message: String) -> Result<&'static str, Error> {
    manager::get().flash(&request, message)?;
    Ok("")
}

async fn get_flash(request: Request, _: String) -> Result<String, Error> {
    let texts: Vec<_> = manager::get()
        .flashes(&request)?
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
async fn inside(request: Request, _: String) -> Result<&'static str, Error> {
    let manager = manager::get();

    manager.add(&request, "key", "value")?;
    assert_eq!(manager.get(&request, "key")?.as_deref(), Some("value"));
    assert_eq!(manager.get(&request, "key")?.as_deref(), Some("value"));

    assert_eq!(manager.pop(&request, "key")?.as_deref(), Some("value"));
    assert_eq!(manager.pop(&request, "key")?, None);

    manager.flash(&request, "hello1")?;
    manager.flash(&request, "hello2")?;
    let texts: Vec<_> = manager
        .flashes(&request)?
        .into_iter()
        .map(|flash| flash.text)
        .collect();
    assert_eq!(texts, ["hello1", "hello2"]);
    assert_eq!(manager.flashes(&request)?, []);

    let user = User {
        name: "jinzhu".into(),
        age: 18,
        activated: true,
    };
    manager.add(&request, "current_user", &user)?;
    assert_eq!(manager.load(&request, "current_user")?, Some(user.clone()));
    assert_eq!(manager.load(&request, "current_user")?, Some(user.clone()));
    assert_eq!(manager.pop_load(&request, "current_user")?, Some(user));
    assert_eq!(manager.load::<User>(&request, "current_user")?, None);
    Ok("all true")
}

fn serve(web: Web, builder: Builder) -> Server {
    let app = App::new()
        .get_request("/set/{pair}", set)
        .get_request("/get/{key}", get)
        .get_request("/pop/{key}", pop)
        .get_request("/setflash/{message}", set_flash)
        .get_request("/getflash", get_flash)
        .get_request("/inside", inside);
    Server::start(web, app.wrap(builder.build().unwrap().middleware()))
}

/// Percent-encodes for a path: everything but letters and digits.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn qors_http_test_cases_pass_on_every_backend(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        for (key, value) in [
            ("key", "value"),
            ("中文测试", "中文测试"),
            ("<html> &tag, test", "<html> &tag, test"),
        ] {
            let (k, v) = (encode(key), encode(value));
            let visitor = server.visitor();
            assert_eq!(visitor.body(&format!("/set/{k}={v}")), value, "{backend}");
            assert_eq!(visitor.body(&format!("/get/{k}")), value, "{backend}");
            assert_eq!(visitor.body(&format!("/pop/{k}")), value, "{backend}");
            assert_eq!(visitor.body(&format!("/get/{k}")), "", "{backend}");
            visitor.body("/setflash/message1");
            visitor.body("/setflash/message2");
            assert_eq!(visitor.body("/getflash"), "message1, message2", "{backend}");
            assert_eq!(visitor.body("/getflash"), "", "{backend}");
        }
    }
}

fn qors_single_request_test_cases_pass_on_every_backend(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let visitor = server.visitor();
        assert_eq!(
            visitor.body("/inside"),
            "all true",
            "{backend}, without a session"
        );
        visitor.body("/set/other=1");
        assert_eq!(
            visitor.body("/inside"),
            "all true",
            "{backend}, within a session"
        );
        assert_eq!(visitor.body("/get/other"), "1", "{backend}");
    }
}

on_every_framework!(
    qors_http_test_cases_pass_on_every_backend,
    qors_single_request_test_cases_pass_on_every_backend,
);
