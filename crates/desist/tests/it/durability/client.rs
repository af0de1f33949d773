//! A client that keeps its connection and tells apart how a request can end.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Server;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 201: the number of its entry.
    Acknowledged(u64),
    /// 503 `not_durable`.
    NotDurable,
    /// Any other answer.
    Other(u16),
    /// The connection ended before the first byte of an answer.
    Unanswered,
    /// The connection ended inside an answer.
    Cut,
    /// Nobody listens.
    Refused,
}

pub struct Client {
    address: String,
    head: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(server: &Server) -> Self {
        let address = server.private.strip_prefix("http://").expect("plain http").to_owned();
        let head = format!(
            "host: {address}\r\nauthorization: Bearer {}\r\nx-api-key: {}\r\ncontent-type: application/json\r\n",
            server.token, server.api_key
        );
        Self { address, head, stream: None }
    }

    /// Opts one person out, without trying again.
    pub fn opt_out(&mut self, email: &str) -> Outcome {
        let body = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": email }] }).to_string();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(&self.address) {
                Ok(stream) => {
                    stream.set_nodelay(true).expect("an open socket");
                    // A server that hangs fails the test.
                    stream.set_read_timeout(Some(Duration::from_mins(1))).expect("an open socket");
                    BufReader::new(stream)
                }
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => return Outcome::Refused,
                Err(error) => panic!("{}: {error}", self.address),
            },
        };
        let request = format!("POST /v1/requests HTTP/1.1\r\n{}content-length: {}\r\n\r\n{body}", self.head, body.len());
        // What cannot be written may have an answer all the same.
        let _ = stream.get_mut().write_all(request.as_bytes());
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("no answer for a minute"),
            Ok(_) | Err(_) if line.is_empty() => return Outcome::Unanswered,
            Ok(_) => {}
            Err(_) => return Outcome::Cut,
        }
        let Some(status) = line.split(' ').nth(1).and_then(|status| status.parse().ok()) else { return Outcome::Cut };
        let (mut length, mut close) = (0, false);
        loop {
            let mut line = String::new();
            if !stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                return Outcome::Cut;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name {
                "content-length" => length = value.parse().expect("a number"),
                "connection" => close = value == "close",
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return Outcome::Cut;
        }
        if !close {
            self.stream = Some(stream);
        }
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        match status {
            201 => Outcome::Acknowledged(body["seq"].as_u64().expect("a number")),
            503 if body["code"] == "not_durable" => Outcome::NotDurable,
            status => Outcome::Other(status),
        }
    }
}
