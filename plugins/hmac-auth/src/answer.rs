use crate::hotgate::gateway::types::Message;
use crate::mac::{self, CHALLENGE_BYTES, MAC_BYTES, unhex};
use crate::settings::HmacSettings;

/// A client's answer to a challenge.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) uid: String,
    mac: [u8; MAC_BYTES],
}

impl Answer {
    /// Reads the answer in a packet: `None` if the packet has no `mac`, an error if it has one but cannot be read.
    /// Binary packets are read as text.
    pub(crate) fn read(packet: &Message) -> Option<Result<Self, String>> {
        let packet = match packet {
            Message::Text(text) => text,
            Message::Binary(bytes) => origin_packet::text(bytes).ok()?,
        };
        let [uid, mac] = origin_packet::fields(packet, ["uid", "mac"]).ok()?;
        let mac = mac?;
        let digits = mac.get().strip_prefix('"').and_then(|digits| digits.strip_suffix('"'));
        Some(match (origin_packet::uid("uid", uid), digits.and_then(unhex)) {
            (Err(unusable), _) => Err(unusable.to_string()),
            (_, None) => Err(format!("`mac` is not a string of {} hexadecimal digits", 2 * MAC_BYTES)),
            (Ok(uid), Some(mac)) => Ok(Self { uid, mac }),
        })
    }

    pub(crate) fn is_right(&self, settings: &HmacSettings, challenge: &[u8; CHALLENGE_BYTES]) -> bool {
        mac::is_right(settings, challenge, &self.uid, &self.mac)
    }
}
