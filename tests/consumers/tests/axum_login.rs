//! axum-login and axum-messages, unmodified, on the request's own session.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, thread};

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Redirect},
    routing::get,
};
use axum_login::{AuthManager, AuthSession, AuthUser, AuthnBackend, UserId, login_required};
use axum_messages::{Messages, MessagesManagerLayer};
use consumers::{get as ask, serve_axum};
use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie, web::TowerSessions014};
use tokio::sync::Barrier;
use tower::layer::layer_fn;
use tower_sessions::Session;

#[derive(Clone, Debug)]
struct User(i64);

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.0
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"of the password"
    }
}

#[derive(Clone, Debug)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = i64;
    type Error = Infallible;

    async fn authenticate(&self, id: i64) -> Result<Option<User>, Infallible> {
        Ok((id < 100).then_some(User(id)))
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(Some(User(*id)))
    }
}

type Auth = AuthSession<Users>;

async fn log_in(mut auth: Auth, messages: Messages, Path(id): Path<i64>) -> impl IntoResponse {
    let Some(user) = auth.authenticate(id).await.unwrap() else {
        messages.error("who are you?");
        return Redirect::to("/");
    };
    auth.login(&user).await.unwrap();
    messages.success(format!("hello {id}"));
    Redirect::to("/me")
}

async fn me(auth: Auth) -> String {
    auth.user.map_or("nobody".into(), |user| user.0.to_string())
}

async fn home(messages: Messages) -> String {
    let all = messages.into_iter().map(|message| message.to_string());
    all.collect::<Vec<_>>().join(",")
}

async fn log_out(mut auth: Auth) {
    auth.logout().await.unwrap();
}

async fn keys(session: Session) -> String {
    let mut found = 0;
    for n in 0..50 {
        found += usize::from(
            session
                .get::<u8>(&format!("key{n}"))
                .await
                .unwrap()
                .is_some(),
        );
    }
    found.to_string()
}

fn serve(manager: &Manager) -> SocketAddr {
    let barrier = Arc::new(Barrier::new(50));
    let bridge = TowerSessions014::new().user_key("axum-login.data", |data| {
        Some(data["user_id"].as_i64()?.to_string())
    });
    serve_axum(
        Router::new()
            .route("/me", get(me))
            .route_layer(login_required!(Users, login_url = "/login"))
            .route("/who", get(me))
            .route("/", get(home))
            .route("/login/{id}", get(log_in))
            .route("/logout", get(log_out))
            .route("/keys", get(keys))
            .route(
                "/together/{n}",
                get(move |session: Session, Path(n): Path<u8>| {
                    let barrier = Arc::clone(&barrier);
                    async move {
                        session.get_value("any").await.unwrap();
                        barrier.wait().await;
                        session.insert(&format!("key{n}"), n).await.unwrap();
                    }
                }),
            )
            .layer(MessagesManagerLayer)
            .layer(layer_fn(|service| {
                AuthManager::new(service, Users, "axum-login.data")
            }))
            .layer(bridge)
            .layer(manager.middleware()),
    )
}

fn in_memory() -> Manager {
    Manager::new(ServerSide::new(MemoryStore::default()))
}

#[test]
fn a_user_logs_in_reads_a_message_once_and_logs_out() {
    let signed = Manager::new(SignedCookie::new(Key::from_secret([7; 32]).unwrap()));
    for manager in [in_memory(), signed] {
        let server = serve(&manager);
        let refused = ask(server, "/me", "");
        assert_eq!((refused.status, &refused.cookie), (307, &None));
        let before = ask(server, "/login/100", "").cookie.unwrap();
        let message = ask(server, "/", &before);
        assert_eq!(message.body, "who are you?");
        let login = ask(server, "/login/7", &before);
        let user = login.cookie.unwrap();
        assert_ne!(before, user);
        assert_eq!(ask(server, "/me", &user).body, "7");
        let message = ask(server, "/", &user);
        assert_eq!(message.body, "hello 7");
        let user = message.cookie.unwrap_or(user);
        assert_eq!(ask(server, "/", &user).body, "", "once");
        assert_eq!(
            ask(server, "/who", &before).body,
            "nobody",
            "the cookie before the login"
        );
        let logout = ask(server, "/logout", &user);
        assert_eq!(logout.status, 200);
        assert_eq!(
            logout.cookie.unwrap().split_once('=').unwrap().1,
            "",
            "removed"
        );
    }
}

#[test]
fn an_old_cookie_opens_nothing_and_the_users_sessions_are_listed() {
    let manager = in_memory();
    let server = serve(&manager);
    let count = |user: &str| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(manager.user_sessions(user)).unwrap().len()
    };
    let one = ask(server, "/login/7", "").cookie.unwrap();
    let other = ask(server, "/login/7", "").cookie.unwrap();
    assert_eq!((count("7"), count("8")), (2, 0));
    ask(server, "/logout", &one);
    assert_eq!(ask(server, "/who", &one).body, "nobody");
    assert_eq!(ask(server, "/who", &other).body, "7");
    assert_eq!(count("7"), 1);
}

#[test]
fn fifty_overlapping_inserts_are_all_kept_and_a_log_out_wins_against_them() {
    let server = serve(&in_memory());
    let user = ask(server, "/login/7", "").cookie.unwrap();
    thread::scope(|scope| {
        for n in 0..50 {
            let user = &user;
            scope.spawn(move || {
                assert_eq!(ask(server, &format!("/together/{n}"), user).status, 200)
            });
        }
    });
    assert_eq!(ask(server, "/keys", &user).body, "50");
    thread::scope(|scope| {
        let user = &user;
        for n in 0..49 {
            scope.spawn(move || {
                assert_eq!(ask(server, &format!("/together/{n}"), user).cookie, None)
            });
        }
        thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(ask(server, "/logout", user).status, 200);
        assert_eq!(
            ask(server, "/together/49", "").status,
            200,
            "lets the others go on"
        );
    });
    assert_eq!(ask(server, "/keys", &user).body, "0");
    assert_eq!(ask(server, "/who", &user).body, "nobody");
}
