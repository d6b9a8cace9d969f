//! What the tests share: a server of either framework, and a client that shows its cookies.

/// Compiles the code of the page, which the crate itself cannot: it does not depend on these crates.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/using-other-crates.md")]
struct UsingOtherCrates;

use std::{net::SocketAddr, sync::mpsc};

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub cookie: Option<String>,
    pub body: String,
}

/// Sends a request with this `Cookie` header.
pub fn get(server: SocketAddr, path: &str, cookie: &str) -> Answer {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0);
    let agent: ureq::Agent = config.build().into();
    let request = agent.get(format!("http://{server}{path}"));
    let mut response = request.header("cookie", cookie).call().unwrap();
    let set = response.headers().get("set-cookie");
    let set = set.map(|set| set.to_str().unwrap().split(';').next().unwrap().to_owned());
    Answer {
        status: response.status().as_u16(),
        cookie: set,
        body: response.body_mut().read_to_string().unwrap(),
    }
}

/// Serves in threads that end with the process.
pub fn serve_axum(router: axum::Router) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                .await
                .unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    told.recv().unwrap()
}

/// Runs `server`, which sends its address, in a thread that ends with the process.
pub fn serve_actix<F: Future<Output = ()>>(
    server: impl FnOnce(mpsc::Sender<SocketAddr>) -> F + Send + 'static,
) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || actix_web::rt::System::new().block_on(server(tell)));
    told.recv().unwrap()
}
