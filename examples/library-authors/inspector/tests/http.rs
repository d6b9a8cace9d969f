//! The page over HTTP, in both frameworks, with sessions in cookies and in memory.

use std::{net::TcpListener, sync::mpsc, thread};

use actix_web::{App, HttpServer, web};
use axum::{Router, routing::get};
use inspector::{Inspector, PATH};
use session_manager::{
    Builder, Error, Key, Manager, MemoryStore, ServerSide, Session, SignedCookie,
};

const SECRET: &str = "the value <b>of</b> a key";

/// Stores what a page must not show or must escape, and logs in where that is possible.
fn fill(session: &Session, note: &str) -> Result<&'static str, Error> {
    session.renew();
    session.add("<i>key", SECRET)?;
    session.add("list", [1, 2, 3])?;
    match session.set_user("ada<script>") {
        Err(Error::NoUserIndex { .. }) => {}
        result => result?,
    }
    session.set_note(note)?;
    Ok("filled")
}

fn on_actix(manager: Manager, inspector: Inspector) -> u16 {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let server = HttpServer::new(move || {
                let filled =
                    async |note: web::Path<String>, session: Session| fill(&session, &note);
                App::new()
                    .wrap(manager.middleware())
                    .configure(inspector::actix::routes(&inspector))
                    .route("/fill/{note}", web::get().to(filled))
            });
            let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0].port()).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn on_axum(manager: Manager, inspector: Inspector) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let filled =
                async |note: axum::extract::Path<String>, session: Session| fill(&session, &note);
            let app = Router::new()
                .route("/fill/{note}", get(filled))
                .merge(inspector::axum::routes(&inspector))
                .layer(manager.middleware());
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    port
}

fn in_cookies() -> Builder {
    Manager::builder(SignedCookie::new(Key::generate()))
}

fn in_memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::new()))
}

/// Runs a test in both frameworks.
fn everywhere(builder: fn() -> Builder, inspector: fn() -> Inspector, test: fn(&Visitor)) {
    for serve in [on_actix, on_axum] {
        let inspector = inspector();
        let manager = builder().observe(inspector.observer()).build().unwrap();
        test(&Visitor::to(serve(manager, inspector)));
    }
}

fn inspector() -> Inspector {
    Inspector::new().expect("this is a debug build")
}

struct Visitor {
    agent: ureq::Agent,
    port: u16,
}

impl Visitor {
    fn to(port: u16) -> Self {
        let config = ureq::Agent::config_builder().max_idle_connections(0);
        let config = config.http_status_as_error(false).max_redirects(0);
        let agent = config.build().into();
        Self { agent, port }
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let response = self.agent.get(self.at(path)).call().unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().read_to_string().unwrap())
    }

    fn page(&self) -> String {
        let (status, page) = self.get(PATH);
        assert_eq!(status, 200, "{page}");
        page
    }

    /// Presses the button of the session with this handle, and returns the status.
    fn end(&self, handle: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.agent.post(self.at("/inspector/end"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send_form([("handle", handle)]).unwrap();
        response.status().as_u16()
    }
}

/// Returns the handles of the buttons on a page.
fn handles(page: &str) -> Vec<String> {
    let buttons = page.split("name=\"handle\" value=\"").skip(1);
    let handles = buttons.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    handles.collect()
}

#[test]
fn the_page_shows_keys_sizes_and_facts_escaped_and_no_value() {
    for builder in [in_cookies, in_memory] {
        everywhere(builder, inspector, |visitor| {
            assert!(visitor.page().contains("not stored yet"));
            visitor.get("/fill/here");
            let page = visitor.page();
            for part in [
                "<code>&lt;i&gt;key</code><td>text<td class=\"n\">31",
                "<code>list</code><td>JSON<td class=\"n\">11",
                "<th>Cookie<td>_session",
                "SameSite=Lax",
                "bytes, room for",
                "<th>Created<td>0 s ago",
                "<th>Expires<td>in 23 h",
                "<td>created<td>",
            ] {
                assert!(page.contains(part), "{part}: {page}");
            }
            for hidden in ["the value", "<i>", "<script>"] {
                assert!(!page.contains(hidden), "{hidden}: {page}");
            }
        });
    }
}

#[test]
fn values_are_shown_escaped_where_the_application_asks() {
    let shown = || inspector().show_values();
    everywhere(in_cookies, shown, |visitor| {
        visitor.get("/fill/here");
        let page = visitor.page();
        assert!(page.contains("the value &lt;b&gt;of&lt;/b&gt; a key"));
        assert!(!page.contains("<b>"), "{page}");
    });
}

#[test]
fn the_history_is_of_this_session_alone() {
    everywhere(in_memory, inspector, |visitor| {
        let other = Visitor::to(visitor.port);
        visitor.get("/fill/here");
        other.get("/fill/there");
        let count = |page: &str, event: &str| page.matches(&format!("<td>{event}")).count();
        let page = visitor.page();
        assert_eq!(count(&page, "created"), 1, "{page}");
        assert_eq!(count(&page, "user set"), 1, "{page}");
        assert_eq!(count(&page, "store call create: done"), 1, "{page}");
        visitor.get("/fill/here");
        assert_eq!(count(&visitor.page(), "renewed"), 1);
        assert_eq!(count(&other.page(), "renewed"), 0);
    });
}

#[test]
fn a_button_ends_another_session_of_the_same_user() {
    everywhere(in_memory, inspector, |visitor| {
        let other = Visitor::to(visitor.port);
        visitor.get("/fill/here");
        other.get("/fill/th%3Cere");
        let page = visitor.page();
        let [handle] = &handles(&page)[..] else {
            panic!("{page}");
        };
        assert!(!page.contains("th<ere"), "{page}");
        let own = visitor.at("");
        assert_eq!(visitor.end(handle, &[("origin", &own)]), 303);
        assert!(handles(&visitor.page()).is_empty());
        assert!(other.page().contains("not stored yet"));
    });
}

#[test]
fn another_site_and_another_user_end_nothing() {
    everywhere(in_memory, inspector, |visitor| {
        let (other, stranger) = (Visitor::to(visitor.port), Visitor::to(visitor.port));
        visitor.get("/fill/here");
        other.get("/fill/there");
        let page = visitor.page();
        let handle = &handles(&page)[0];
        for headers in [
            &[][..],
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(visitor.end(handle, headers), 403, "{headers:?}");
        }
        let own = [("sec-fetch-site", "same-origin")];
        assert_eq!(stranger.end(handle, &own), 303);
        for bad in ["", "x", "<script>", &handle[1..]] {
            assert_eq!(visitor.end(bad, &own), 303);
        }
        assert_eq!(handles(&visitor.page()), std::slice::from_ref(handle));
    });
}

#[test]
fn a_backend_without_a_list_of_users_says_so() {
    everywhere(in_cookies, inspector, |visitor| {
        visitor.get("/fill/here");
        let page = visitor.page();
        assert!(page.contains("the visitor is not logged in"), "{page}");
        assert!(page.contains("of all such sessions"), "{page}");
    });
}
