//! A connection that is kept open, for tests that send many requests: it says when to send and when
//! to wait, so that one thread serves many.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::Answer;

pub struct Wire {
    stream: TcpStream,
    address: SocketAddr,
    read: Vec<u8>,
}

impl Wire {
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        Self {
            stream,
            address,
            read: Vec::new(),
        }
    }

    /// Sends a request with this `Cookie` header, and does not wait for the answer.
    pub fn send(&mut self, path: &str, cookie: &str) -> Result<()> {
        let host = self.address;
        let cookie = match cookie {
            "" => String::new(),
            cookie => format!("Cookie: {cookie}\r\n"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n");
        self.stream.write_all(request.as_bytes())
    }

    /// The next answer.
    pub fn receive(&mut self) -> Result<Answer> {
        let head = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
            self.more()?;
        };
        let text = str::from_utf8(&self.read[..head - 4]).map_err(Error::other)?;
        let mut answer = Answer::parse(text, String::new());
        let length = answer.header("content-length").map(str::parse::<usize>);
        let Some(Ok(length)) = length else {
            return Err(Error::other("an answer without its length"));
        };
        while self.read.len() < head + length {
            self.more()?;
        }
        let body = self.read[head..head + length].to_vec();
        answer.body = String::from_utf8(body).map_err(Error::other)?;
        self.read.drain(..head + length);
        Ok(answer)
    }

    /// Waits until the server closes the connection without an answer, as after a panic.
    #[track_caller]
    pub fn receive_none(&mut self) {
        let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        match self.receive() {
            Err(error) if closed.contains(&error.kind()) => {}
            other => panic!("the server closes the connection: {other:?}"),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, path: &str, cookie: &str) -> Result<Answer> {
        self.send(path, cookie)?;
        self.receive()
    }

    fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => {
                self.read.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
