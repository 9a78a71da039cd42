//! The stream of bytes below a WebSocket.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A stream of bytes from and to one client.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// Returns `true` if the kernel has found out that the peer is gone.
    fn is_dead(&self) -> bool;

    /// Makes the kernel send small messages at once, even if earlier data is not acknowledged yet.
    fn send_at_once(&self);

    /// Makes dropping the stream reset the connection: the kernel discards data that is not sent yet.
    fn reset_on_drop(&self);
}

impl Stream for TcpStream {
    fn is_dead(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }

    fn send_at_once(&self) {
        let _ = self.set_nodelay(true);
    }

    fn reset_on_drop(&self) {
        let _ = self.set_zero_linger();
    }
}
