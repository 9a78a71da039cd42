//! An internal system that pushes through the text port.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::within;

/// A connection to the text port.
#[derive(Debug)]
pub struct Sender {
    answers: Answers,
    writer: OwnedWriteHalf,
}

/// The answers of the text port.
#[derive(Debug)]
pub struct Answers {
    reader: OwnedReadHalf,
    received: BytesMut,
}

impl Sender {
    /// Connects to the text port.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the port is open");
        stream.set_nodelay(true).expect("no delay");
        let (reader, writer) = stream.into_split();
        Self { answers: Answers { reader, received: BytesMut::new() }, writer }
    }

    /// Sends a line with a line end.
    pub async fn send(&mut self, line: impl AsRef<str>) {
        self.bytes(format!("{}\n", line.as_ref())).await;
    }

    /// Sends bytes as they are.
    pub async fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        within("the server reading", self.writer.write_all(bytes.as_ref())).await.expect("the connection is open");
    }

    /// Sends bytes to a server that may have closed already.
    pub async fn try_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        _ = within("the server reading or ending", self.writer.write_all(bytes.as_ref())).await;
    }

    /// Sends a line and returns its answer.
    pub async fn ask(&mut self, line: impl AsRef<str>) -> String {
        self.send(line).await;
        self.answer().await.expect("an answer")
    }

    /// See [`Answers::next`].
    pub async fn answer(&mut self) -> Option<String> {
        self.answers.next().await
    }

    /// See [`Answers::expect`].
    pub async fn expect(&mut self, line: &str) {
        self.answers.expect(line).await;
    }

    /// Expects the end of the connection next.
    pub async fn ended(&mut self) {
        assert_eq!(self.answer().await, None);
    }

    /// Ends the sending side of the connection, as `nc -N` does.
    pub async fn finish(&mut self) {
        self.writer.shutdown().await.expect("the connection is open");
    }

    /// Splits the connection, for a test that reads and writes at the same time.
    pub fn split(self) -> (OwnedWriteHalf, Answers) {
        (self.writer, self.answers)
    }
}

impl Answers {
    /// The next line, without its line end. `None` at the end of the connection.
    ///
    /// # Panics
    /// When the connection ends inside a line.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line = self.received.split_to(end + 1);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if within("an answer", self.reader.read_buf(&mut self.received)).await.unwrap_or(0) == 0 {
                assert!(self.received.is_empty(), "the connection ended inside {:?}", self.received);
                return None;
            }
        }
    }

    /// Expects this line next.
    pub async fn expect(&mut self, line: &str) {
        assert_eq!(self.next().await.as_deref(), Some(line));
    }
}
