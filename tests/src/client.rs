//! A WebSocket client that can break the protocol, and shows every frame that it receives.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::{Frame, Opcode, Response, Stream, Upgrade, within};

/// An event at a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A frame.
    Frame(Frame),
    /// The server has closed its side.
    End,
    /// The server has cut the connection.
    Reset,
}

/// A client's connection. Dropping it ends the TCP connection without a close frame.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    received: BytesMut,
    /// The server's answer to the upgrade request.
    pub response: Response,
}

impl Client {
    /// Connects and upgrades to WebSocket.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(address: SocketAddr, upgrade: &Upgrade) -> Self {
        Self::try_connect(address, upgrade).await.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }

    /// Connects and sends an upgrade request.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn try_connect(address: SocketAddr, upgrade: &Upgrade) -> Result<Self, Response> {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the port is open");
        Self::open(stream, &upgrade.encode()).await
    }

    /// Connects from the address `source`. If `narrow`, the receive buffer is as small as possible.
    ///
    /// # Errors
    /// The server's refusal.
    pub(crate) async fn connect_from(source: SocketAddr, address: SocketAddr, narrow: bool) -> Result<Self, Response> {
        let socket = TcpSocket::new_v4().expect("a socket");
        if narrow {
            socket.set_recv_buffer_size(4096).expect("a small buffer");
        }
        socket.bind(source).expect("an address of the loopback");
        let stream = within("connecting", socket.connect(address)).await.expect("the port is open");
        Self::open(stream, &Upgrade::default().encode()).await
    }

    /// Sends these bytes and reads the response. The bytes may be more than an upgrade request.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn open(stream: impl Into<Stream>, first: &[u8]) -> Result<Self, Response> {
        let mut stream = stream.into();
        if let Some(socket) = stream.socket() {
            socket.set_nodelay(true).expect("no delay");
        }
        // A server may refuse before it has read the whole request.
        _ = within("sending the upgrade request", stream.write_all(first)).await;
        _ = within("sending the upgrade request", stream.flush()).await;
        let mut received = BytesMut::new();
        let mut response = loop {
            if let Some(response) = Response::take(&mut received) {
                break response;
            }
            let count = within("a response", stream.read_buf(&mut received)).await.unwrap_or(0);
            assert!(count > 0, "no response but {:?}", String::from_utf8_lossy(&received));
        };
        if response.status == 101 {
            response.check_switch();
            return Ok(Self { stream, received, response });
        }
        while within("the end of a refusal", stream.read_buf(&mut received)).await.unwrap_or(0) > 0 {}
        response.body = String::from_utf8_lossy(&received).into_owned();
        Err(response)
    }

    /// Sends a text message.
    pub async fn send(&mut self, text: impl AsRef<str>) {
        self.frame(Frame::text(text.as_ref())).await;
    }

    /// Sends a frame.
    pub async fn frame(&mut self, frame: Frame) {
        self.bytes(&frame.encode()).await;
    }

    /// Sends bytes as they are.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        within("the server reading", self.stream.write_all(bytes)).await.expect("the connection is open");
        within("the server reading", self.stream.flush()).await.expect("the connection is open");
    }

    /// Sends bytes to a server that may have closed already.
    pub async fn try_bytes(&mut self, bytes: &[u8]) {
        _ = within("the server reading or ending", self.stream.write_all(bytes)).await;
    }

    /// The next event.
    pub async fn next(&mut self) -> Received {
        within("a frame", self.next_slowly()).await
    }

    /// The next event. The caller limits the time.
    pub async fn next_slowly(&mut self) -> Received {
        loop {
            if let Some(frame) = Frame::take(&mut self.received) {
                return Received::Frame(frame);
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) if self.received.is_empty() => return Received::End,
                Ok(0) => panic!("the connection ended inside a frame: {:?}", self.received),
                Ok(_) => {}
                Err(_) => return Received::Reset,
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// When the connection ends.
    pub async fn next_frame(&mut self) -> Frame {
        match self.next().await {
            Received::Frame(frame) => frame,
            end => panic!("a frame, not {end:?}"),
        }
    }

    /// The next text message.
    ///
    /// # Panics
    /// When another event comes.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Received::Frame(frame) if frame.opcode == Opcode::TEXT && frame.fin && frame.reserved == 0 => {
                String::from_utf8(frame.payload.into()).expect("text is UTF-8")
            }
            other => panic!("a text message, not {other:?}"),
        }
    }

    /// Expects this text message next.
    pub async fn expect(&mut self, text: impl AsRef<str>) {
        let (text, seen) = (text.as_ref(), self.text().await);
        assert!(seen == text, "expected {:?}, not {:?}", brief(text), brief(&seen));
    }

    /// Expects this frame next.
    pub async fn expect_frame(&mut self, opcode: Opcode, payload: impl AsRef<[u8]>) {
        let frame = Frame { masked: false, ..Frame::new(opcode, payload.as_ref()) };
        assert_eq!(self.next().await, Received::Frame(frame));
    }

    /// Checks that nothing else is on the way to this client: sends a ping and expects the pong next.
    pub async fn expect_nothing(&mut self) {
        self.frame(Frame::ping("anything?")).await;
        self.expect_frame(Opcode::PONG, "anything?").await;
    }

    /// Expects that the server closes: a close frame, which this client answers, then the end of the connection.
    /// Returns the code and the reason of the close frame.
    pub async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Received::Frame(frame) if frame.opcode == Opcode::CLOSE => {
                self.try_bytes(&Frame { masked: true, ..frame.clone() }.encode()).await;
                self.ended().await;
                frame.close_reason()
            }
            other => panic!("a close frame, not {other:?}"),
        }
    }

    /// Expects [`Client::closed`] with this code; returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        let (seen, reason) = self.closed().await;
        assert_eq!(seen, code, "closed because {reason:?}");
        reason
    }

    /// Expects the end of the connection next.
    pub async fn ended(&mut self) {
        let last = self.next().await;
        assert!(matches!(last, Received::End | Received::Reset), "an end, not {last:?}");
    }

    /// Closes properly: sends a close frame with 1000, expects the server's close frame and the end of the connection.
    pub async fn close(mut self) {
        self.frame(Frame::close(1000, "")).await;
        self.expect_frame(Opcode::CLOSE, 1000_u16.to_be_bytes()).await;
        self.ended().await;
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        self.stream.socket().expect("TCP").set_zero_linger().expect("a reset on close");
    }
}

/// The beginning of a text, for error messages.
fn brief(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Starts a server of another library, which sends back every message.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn speaks_websocket_with_somebody_elses_server() {
        let mut client = Client::connect(echo().await, &Upgrade::default()).await;
        for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let text = "x".repeat(length);
            client.send(&text).await;
            client.expect(&text).await;
        }
        client.frame(Frame::binary([0, 255])).await;
        client.expect_frame(Opcode::BINARY, [0, 255]).await;
        client.frame(Frame::text("in ").unfinished()).await;
        client.frame(Frame::ping("still there?")).await;
        client.frame(Frame::continuation("parts")).await;
        client.expect_frame(Opcode::PONG, "still there?").await;
        client.expect("in parts").await;
        client.close().await;
    }
}
