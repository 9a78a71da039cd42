//! The dashboard: who may do what, its sessions, its files, and the answers that go on.

mod access;
mod browser;
mod following;
mod page;
mod tracing;
mod trying;

use hotgate_tests::{Admin, Gateway, Response, Upgrade, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that is read line by line.
struct Stream {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Stream {
    /// Sends a request with a body, and reads nothing yet.
    async fn send(admin: &Admin, request: Upgrade, body: &str) -> Self {
        let mut stream = TcpStream::connect(admin.address).await.expect("the port is open");
        let request = request.and("Connection", "close").and("Content-Length", &body.len().to_string()).encode();
        stream.write_all(&[&request, body.as_bytes()].concat()).await.expect("it reads");
        Self { stream, received: Vec::new() }
    }

    async fn open(admin: &Admin, line: &str) -> Self {
        Self::send(admin, admin.request(line), "").await
    }

    /// Reads the status of the answer.
    async fn status(&mut self) -> u16 {
        while self.received.len() < 12 {
            let count = within("a status", self.stream.read_buf(&mut self.received)).await.expect("it is open");
            assert!(count > 0, "no answer");
        }
        String::from_utf8_lossy(&self.received[9..12]).parse().expect("a status")
    }

    /// The next line of JSON. `None` at the end of the answer.
    async fn next(&mut self) -> Option<Value> {
        // Around all reads: a stream without news writes empty lines.
        within("a line", self.read_line()).await
    }

    /// Heads of chunks are no JSON objects.
    async fn read_line(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let value: Value = serde_json::from_slice(&line).unwrap_or_default();
                if value.is_object() {
                    return Some(value);
                }
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Waits for a line.
    async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next().await.expect("the answer goes on");
            if wanted(&line) {
                return line;
            }
        }
    }
}

/// Trades a code or a token for a session.
async fn trade(admin: &Admin, body: &Value) -> Response {
    admin.send(admin.request("POST /session").without("Authorization"), body.to_string().as_bytes()).await
}

/// Opens a session with a new code.
async fn session(admin: &Admin, query: &str) -> Admin {
    let code = admin.json(&format!("POST /codes{query}")).await["code"].clone();
    let opened = trade(admin, &json!({ "code": code })).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    Admin { token: opened.json()["token"].as_str().expect("a token").to_owned(), ..admin.clone() }
}

async fn read_token(gateway: &Gateway, admin: &Admin) -> Admin {
    let token = std::fs::read_to_string(gateway.state_folder().join("admin-read-token")).expect("it is there");
    Admin { token: token.trim().to_owned(), ..admin.clone() }
}
