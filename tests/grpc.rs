//! Sessions without cookies in gRPC: tonic's server and client, over HTTP/2 on loopback.

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::web::{Buf, BufMut};
use common::{
    all_backends, script,
    server_side::{Flaky, How},
};
use session_manager::{Builder, Carrier, HasSession, Manager, MemoryStore, ServerSide, Session};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::Grpc as Client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::Grpc,
    transport::{Channel, Server},
};

/// Messages of text, so that no compiler of protocol buffers is needed.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let text = String::from_utf8(bytes.to_vec());
        text.map(Some)
            .map_err(|_| Status::invalid_argument("no text"))
    }
}

/// A service whose one method runs a script on the session, as the code that tonic generates does.
#[derive(Clone)]
struct Scripts;

const METHOD: &str = "/test.Scripts/Run";

impl tonic::server::NamedService for Scripts {
    const NAME: &'static str = "test.Scripts";
}

impl tower_service::Service<http::Request<Body>> for Scripts {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(Text).unary(Run, request).await) })
    }
}

struct Run;

impl tower_service::Service<Request<String>> for Run {
    type Response = Response<String>;
    type Error = Status;
    type Future = Ready<Result<Response<String>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        ready(run(&request))
    }
}

fn run(request: &Request<String>) -> Result<Response<String>, Status> {
    let internal = |error: session_manager::Error| Status::internal(error.to_string());
    let session: Session = request.extensions().session().map_err(internal)?;
    let page = script::run(&session, request.get_ref()).map_err(internal)?;
    match page.status {
        200 => Ok(Response::new(page.body)),
        _ => Err(Status::internal("as the test asked")),
    }
}

/// A connection to a server with this manager.
struct Connection {
    client: Client<Channel>,
    carrier: Carrier,
}

impl Connection {
    async fn to(manager: &Manager) -> Self {
        common::watch::begin();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        drop(listener);
        let server = Server::builder()
            .layer(manager.middleware())
            .add_service(Scripts)
            .serve(address);
        tokio::spawn(async { server.await.unwrap() });
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        Self {
            client: Client::new(channel),
            carrier: manager.settings().carrier(),
        }
    }

    /// Calls the method with this token. Returns the answer, and the token in its metadata.
    async fn call(
        &mut self,
        script: &str,
        token: &str,
    ) -> Result<(String, Option<String>), Status> {
        let mut request = Request::new(script.to_owned());
        let (name, value) = match self.carrier {
            Carrier::Header(name) => (name, token.to_owned()),
            _ => ("authorization", format!("Bearer {token}")),
        };
        if !token.is_empty() {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        self.client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let response = self.client.unary(request, path, Text).await?;
        let given = match self.carrier {
            Carrier::Header(name) => name,
            _ => Carrier::TOKEN,
        };
        let token = response.metadata().get(given);
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        Ok((response.into_inner(), token))
    }

    async fn ask(&mut self, script: &str, token: &str) -> String {
        self.call(script, token).await.unwrap().0
    }

    async fn token(&mut self, script: &str, token: &str) -> String {
        self.call(script, token).await.unwrap().1.expect("a token")
    }
}

const CARRIERS: [Carrier; 2] = [Carrier::Header("x-session"), Carrier::Bearer];

fn memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_logs_in_takes_the_token_from_the_metadata_and_logs_out() {
    for carrier in CARRIERS {
        let manager = memory().carrier(carrier).build().unwrap();
        let mut server = Connection::to(&manager).await;
        assert_eq!(
            server.call("get.user", "").await.unwrap(),
            ("none".into(), None)
        );
        let before = server.token("add.cart.book", "").await;
        let token = server.token("renew,add.user.ada", &before).await;
        assert_ne!(token, before);
        let read = server.call("get.user,get.cart", &token).await.unwrap();
        assert_eq!(
            read,
            ("ada,book".into(), None),
            "a token that stays is not sent again"
        );
        assert_eq!(server.ask("get.user,get.cart", &before).await, "none,none");
        assert_eq!(
            server.token("destroy", &token).await,
            "",
            "the client forgets it"
        );
        assert_eq!(server.ask("get.user", &token).await, "none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_holds_the_session_is_new_after_each_write() {
    for (name, builder) in all_backends() {
        for carrier in CARRIERS {
            let manager = builder().carrier(carrier).build().unwrap();
            let mut server = Connection::to(&manager).await;
            let mut token = server.token("count.n", "").await;
            for count in ["2", "3"] {
                let (answer, given) = server.call("count.n", &token).await.unwrap();
                assert_eq!(answer, count, "{name}");
                token = given.unwrap_or(token);
            }
            assert_eq!(server.ask("get.n", &token).await, "3", "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_and_one_in_another_header_open_nothing() {
    for (name, builder) in all_backends() {
        let manager = builder()
            .carrier(Carrier::Header("x-session"))
            .build()
            .unwrap();
        let mut server = Connection::to(&manager).await;
        let token = server.token("add.user.ada", "").await;
        for bad in [
            "x",
            "é".repeat(9).escape_default().to_string().as_str(),
            &token[1..],
        ] {
            assert_eq!(server.ask("get.user", bad).await, "none", "{name}");
        }
        let mut request = Request::new("get.user".to_owned());
        let cookie = format!("_session={token}");
        request
            .metadata_mut()
            .insert("cookie", cookie.parse().unwrap());
        server.client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let read = server.client.unary(request, path, Text).await.unwrap();
        assert_eq!(read.into_inner(), "none", "{name}: a cookie");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_returns_an_error_status_is_saved() {
    let manager = memory().carrier(Carrier::Bearer).build().unwrap();
    let mut server = Connection::to(&manager).await;
    let token = server.token("add.user.ada", "").await;
    let failed = server.call("add.tried.yes,status.500", &token).await;
    assert_eq!(failed.unwrap_err().code(), Code::Internal);
    assert_eq!(server.ask("get.tried", &token).await, "yes");
    let failed = server.call("destroy,status.500", &token).await;
    assert_eq!(failed.unwrap_err().code(), Code::Internal);
    assert_eq!(server.ask("get.user", &token).await, "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_the_status_unavailable() {
    let store = Flaky::default();
    let manager = Manager::builder(ServerSide::new(store.clone())).carrier(Carrier::Bearer);
    let mut server = Connection::to(&manager.build().unwrap()).await;
    let token = server.token("add.user.ada", "").await;
    store.set(Some(How::Refuses));
    let failed = server.call("get.user", &token).await;
    assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
    store.set(None);
    assert_eq!(server.ask("get.user", &token).await, "ada");
}
