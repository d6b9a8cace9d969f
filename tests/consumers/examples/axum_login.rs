//! A page for users who are logged in, with axum-login and axum-messages, as in axum-login's own example
//! `sqlite`: `cargo run -p consumers --example axum_login`, then open http://127.0.0.1:3000/.
//!
//! The session layer is the only part that knows of session-manager.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    Form, Router,
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use axum_login::{AuthManager, AuthUser, AuthnBackend, UserId, login_required};
use axum_messages::{Messages, MessagesManagerLayer};
use serde::Deserialize;
use session_manager::{manager, web::TowerSessions014};
use tower::layer::layer_fn;

#[derive(Clone)]
struct User {
    id: i64,
    name: &'static str,
    /// An application stores a hash of it.
    password: &'static str,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).finish()
    }
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    /// A new password ends the sessions of the old one.
    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

#[derive(Clone, Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

/// The users, by id.
#[derive(Clone, Debug)]
struct Users(Arc<HashMap<i64, User>>);

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, given: Credentials) -> Result<Option<User>, Infallible> {
        let mut users = self.0.values();
        let user = users.find(|it| it.name == given.username && it.password == given.password);
        Ok(user.cloned())
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(self.0.get(id).cloned())
    }
}

type AuthSession = axum_login::AuthSession<Users>;

async fn home(auth: AuthSession, messages: Messages) -> Html<String> {
    let name = auth.user.map(|user| user.name).unwrap_or_default();
    let messages: Vec<_> = messages.into_iter().map(|it| it.message).collect();
    let messages = messages.join(", ");
    Html(format!(
        "{messages}<p>Hello {name}. <a href='/logout'>Log out</a>"
    ))
}

async fn login_page(messages: Messages) -> Html<String> {
    let messages: Vec<_> = messages.into_iter().map(|it| it.message).collect();
    Html(format!(
        "{}<form method='post'><input name='username' value='ferris'><input name='password' \
         type='password' value='hunter42'><input type='submit' value='Log in'></form>",
        messages.join(", ")
    ))
}

async fn log_in(
    mut auth: AuthSession,
    messages: Messages,
    Form(credentials): Form<Credentials>,
) -> Response {
    match auth.authenticate(credentials).await {
        Ok(Some(user)) if auth.login(&user).await.is_ok() => {
            messages.success("You are logged in");
            Redirect::to("/").into_response()
        }
        _ => {
            messages.error("Wrong name or password");
            Redirect::to("/login").into_response()
        }
    }
}

async fn log_out(mut auth: AuthSession) -> Redirect {
    // The error is logged; the page shows whether the user is still logged in.
    let _ = auth.logout().await;
    Redirect::to("/login")
}

#[tokio::main]
pub async fn main() {
    let ferris = User {
        id: 1,
        name: "ferris",
        password: "hunter42",
    };
    let users = Users(Arc::new(HashMap::from([(ferris.id, ferris)])));

    // With tower-sessions alone: AuthManagerLayerBuilder::new(users, session_layer).build()
    let auth_layer = (
        manager::middleware(),
        TowerSessions014::new(),
        layer_fn(move |service| AuthManager::new(service, users.clone(), "axum-login.data")),
    );

    let app = Router::new()
        .route("/", get(home))
        .route_layer(login_required!(Users, login_url = "/login"))
        .route("/login", get(login_page).post(log_in))
        .route("/logout", get(log_out))
        .layer(MessagesManagerLayer)
        .layer(auth_layer);

    let address = ("127.0.0.1", consumers::port(3000));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    axum::serve(listener, app).await.unwrap();
}
