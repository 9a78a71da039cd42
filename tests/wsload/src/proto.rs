//! The set-up dialogue of a WebSocket client, for each adapter.

use crate::cli::{Adapter, Common};
use crate::net::{ConnId, Net};
use crate::ws;

/// The result of one step of the set-up dialogue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    Ready,
    Failed(String),
}

pub(crate) struct Proto {
    pub(crate) adapter: Adapter,
    path: String,
    auth: String,
    auth_ok: String,
    greeting: String,
    pub(crate) ack: String,
}

impl Proto {
    pub(crate) fn new(c: &Common, path: &str) -> Proto {
        Proto {
            adapter: c.adapter,
            path: path.to_string(),
            auth: c.auth_template.clone(),
            auth_ok: c.auth_ok.clone(),
            greeting: c.greeting.clone(),
            ack: c.ack_text.clone(),
        }
    }

    pub(crate) fn path(&self, uid: &str) -> String {
        self.path.replace("{uid}", uid)
    }

    #[inline]
    pub(crate) fn is_greeting(&self, data: &[u8]) -> bool {
        self.adapter == Adapter::Origin && data == self.greeting.as_bytes()
    }

    /// Sends the first packet, if there is one, after the handshake.
    pub(crate) fn on_open(&self, net: &mut Net, c: ConnId, uid: &str) -> Step {
        match self.adapter {
            Adapter::Origin => {
                let packet = self.auth.replace("{uid}", uid);
                net.put(c, ws::TEXT, &[packet.as_bytes()]);
                Step::Wait
            }
            Adapter::Echo => Step::Ready,
        }
    }

    /// Handles a message that arrives before the connection is ready.
    pub(crate) fn on_setup_message(&self, data: &[u8]) -> Step {
        match self.adapter {
            Adapter::Origin => {
                if data == self.auth_ok.as_bytes() {
                    Step::Ready
                } else if self.is_greeting(data) {
                    Step::Wait
                } else {
                    Step::Failed(format!("unexpected answer to the first packet: {}", sample(data)))
                }
            }
            Adapter::Echo => Step::Ready,
        }
    }
}

/// The first bytes of an unexpected message, as printable text.
pub(crate) fn sample(data: &[u8]) -> String {
    String::from_utf8_lossy(&data[..data.len().min(80)]).escape_debug().to_string()
}
