//! actix-identity, unmodified, on the request's own session.

use std::{net::SocketAddr, time::Duration};

use actix_identity::{Identity, IdentityMiddleware};
use actix_session::Session;
use actix_web::{App, HttpMessage, HttpRequest, HttpServer, web};
use consumers::{get, serve_actix};
use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie, web::ActixSessions};

async fn log_in(request: HttpRequest, id: web::Path<String>) -> &'static str {
    Identity::login(&request.extensions(), id.into_inner()).unwrap();
    "welcome"
}

async fn me(identity: Identity) -> String {
    identity.id().unwrap()
}

async fn log_out(identity: Identity) -> &'static str {
    identity.logout();
    "bye"
}

async fn visit(session: Session) -> actix_web::Result<String> {
    let visits: u32 = session.get("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(visits.to_string())
}

fn serve(manager: &Manager, deadline: Duration) -> SocketAddr {
    let manager = manager.clone();
    serve_actix(move |tell| async move {
        let server = HttpServer::new(move || {
            let bridge = ActixSessions::new()
                .user_key("actix_identity.user_id", |id| Some(id.as_str()?.to_owned()));
            let identity = IdentityMiddleware::builder().visit_deadline(Some(deadline));
            App::new()
                .route("/login/{id}", web::get().to(log_in))
                .route("/me", web::get().to(me))
                .route("/visit", web::get().to(visit))
                .route("/logout", web::get().to(log_out))
                .wrap(identity.build())
                .wrap(bridge)
                .wrap(manager.middleware())
        });
        let server = server
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        tell.send(server.addrs()[0]).unwrap();
        server.run().await.unwrap();
    })
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_user_logs_in_is_read_and_logs_out() {
    let memory = Manager::new(ServerSide::new(MemoryStore::default()));
    let signed = Manager::new(SignedCookie::new(Key::from_secret([7; 32]).unwrap()));
    for manager in [memory, signed] {
        let server = serve(&manager, HOUR);
        let refused = get(server, "/me", "");
        assert_eq!((refused.status, &refused.cookie), (401, &None));
        let before = get(server, "/visit", "").cookie.unwrap();
        let user = get(server, "/login/ada", &before).cookie.unwrap();
        assert_ne!(before, user);
        let read = get(server, "/me", &user);
        assert_eq!((read.status, read.body.as_str()), (200, "ada"));
        assert_eq!(
            get(server, "/visit", &user).body,
            "2",
            "the session went on"
        );
        assert_eq!(get(server, "/me", &before).status, 401);
        let gone = get(server, "/logout", &user);
        assert_eq!(
            gone.cookie.unwrap().split_once('=').unwrap().1,
            "",
            "removed"
        );
    }
}

#[test]
fn an_old_cookie_opens_nothing_and_the_users_sessions_are_listed() {
    let manager = Manager::new(ServerSide::new(MemoryStore::default()));
    let server = serve(&manager, HOUR);
    let count = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(manager.user_sessions("ada"))
            .unwrap()
            .len()
    };
    let user = get(server, "/login/ada", "").cookie.unwrap();
    assert_eq!(count(), 1);
    get(server, "/logout", &user);
    assert_eq!(count(), 0);
    assert_eq!(get(server, "/me", &user).status, 401);
}

#[test]
fn a_visit_after_the_deadline_logs_out() {
    let manager = Manager::new(ServerSide::new(MemoryStore::default()));
    let server = serve(&manager, Duration::from_secs(1));
    let user = get(server, "/login/ada", "").cookie.unwrap();
    assert_eq!(get(server, "/me", &user).status, 200);
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(get(server, "/me", &user).status, 401);
}
