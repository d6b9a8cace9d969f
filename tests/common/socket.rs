//! The client's end of a WebSocket.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tungstenite::{Message, WebSocket, client::IntoClientRequest};

pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    pub fn to(server: SocketAddr, path: &str, cookie: &str) -> Self {
        let request = format!("ws://{server}{path}").into_client_request();
        let mut request = request.unwrap();
        if !cookie.is_empty() {
            super::watch::keep_cookies(cookie.as_bytes());
            let headers = request.headers_mut();
            headers.insert("cookie", cookie.parse().unwrap());
        }
        let stream = TcpStream::connect(server).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Self(socket)
    }

    /// Returns the next message.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        self.0.read().unwrap().into_text().unwrap().to_string()
    }

    /// Returns the messages until the server closes the connection.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => said.push(text.to_string()),
                Ok(Message::Close(_)) => return said,
                Ok(_) => {}
                Err(error) => panic!("the server did not close the connection: {error}"),
            }
        }
    }

    /// Sends a message, and returns the reply.
    #[track_caller]
    pub fn ask(&mut self, text: &str) -> String {
        self.0.send(Message::text(text)).unwrap();
        self.0.read().unwrap().into_text().unwrap().to_string()
    }
}
