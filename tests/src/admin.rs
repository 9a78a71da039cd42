//! A client of the admin listener that speaks HTTP/1.1 byte for byte, as operators' tools do.

use std::net::SocketAddr;

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Response, Upgrade, within};

/// The admin listener of a gateway.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The admin token.
    pub token: String,
}

impl Admin {
    /// A correct request, for a line like `GET /plugins`.
    pub fn request(&self, line: &str) -> Upgrade {
        Upgrade::bare(&format!("{line} HTTP/1.1"))
            .and("Host", &self.address.to_string())
            .and("Authorization", &format!("Bearer {}", self.token))
    }

    /// Sends a request, and reads the answer until the connection ends.
    pub async fn send(&self, request: Upgrade, body: &[u8]) -> Response {
        let request = request.and("Connection", "close").and("Content-Length", &body.len().to_string());
        self.bytes(&[&request.encode(), body].concat()).await.expect("an answer")
    }

    /// Sends bytes, and reads until the connection ends.
    pub async fn bytes(&self, bytes: &[u8]) -> Option<Response> {
        within("an answer of the admin listener", async {
            let mut stream = TcpStream::connect(self.address).await.expect("the port is open");
            // A refusal may arrive before all bytes are sent.
            _ = stream.write_all(bytes).await;
            let mut received = Vec::new();
            _ = stream.read_to_end(&mut received).await;
            let mut received = BytesMut::from(&received[..]);
            let mut response = Response::take(&mut received)?;
            assert_eq!(response.header("transfer-encoding"), None, "{response:?}");
            response.body = String::from_utf8(received.to_vec()).expect("text");
            Some(response)
        })
        .await
    }

    /// The answer to a request without a body, for a line like `GET /plugins`.
    pub async fn ask(&self, line: &str) -> Response {
        self.send(self.request(line), b"").await
    }

    /// The JSON body of a successful answer.
    ///
    /// # Panics
    /// When the status is not 200.
    pub async fn json(&self, line: &str) -> Value {
        let response = self.ask(line).await;
        assert_eq!(response.status, 200, "{line}: {response:?}");
        response.json()
    }

    /// The value of a sample of `/metrics`. `name` includes the labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.ask("GET /metrics").await.body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().expect("a number")
    }
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason why a request failed: `error` of the JSON body.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().expect("a reason").to_owned()
    }
}
