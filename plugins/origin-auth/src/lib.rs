//! The authenticator of the origin protocol: it greets the client, and takes the `id` in the first packet as the uid.
//!
//! This proves nothing. Use it where everyone who can reach the port may be any uid, or start from it: put your own
//! rule where [`authenticate`](authenticator::Guest::authenticate) accepts.

use exports::hotgate::gateway::authenticator::{self, Handshake, Identity, Prompt, Verdict};
use exports::hotgate::gateway::lifecycle;
use hotgate::gateway::types::{CloseReason, Message, Payload};
use origin_packet::Unusable;

wit_bindgen::generate!({ path: "../../wit", world: "authentication" });

/// Sent as soon as a connection opens.
const GREETING: &str = "HeartBeat";
/// Sent once the client is registered.
const WELCOME: &str = "Link_successful";
/// The close code for a first packet without a usable uid: "bad request", in the range of codes for plugins.
const BAD_REQUEST: u16 = 4400;

/// The plugin. It has no settings and keeps no state.
pub struct OriginAuth;

// Only the linker of the wasm target accepts the names by which a component is linked.
#[cfg(target_family = "wasm")]
export!(OriginAuth);

impl lifecycle::Guest for OriginAuth {
    fn check() -> Result<(), String> {
        Ok(())
    }
}

impl authenticator::Guest for OriginAuth {
    fn greet(_: Handshake) -> Verdict {
        Verdict::Challenge(Prompt { message: Some(Payload::Text(GREETING.into())), state: Vec::new() })
    }

    fn authenticate(_: Handshake, packet: Message, _: Vec<u8>) -> Verdict {
        match uid(&packet) {
            Ok(uid) => Verdict::Accept(Identity {
                uid,
                reply: Some(Payload::Text(WELCOME.into())),
                attributes: Vec::new(),
                expires_at: None,
            }),
            Err(unusable) => Verdict::Deny(CloseReason { code: BAD_REQUEST, reason: unusable.to_string() }),
        }
    }
}

/// Returns the `id` in a packet. Binary packets are read as text.
fn uid(packet: &Message) -> Result<String, Unusable> {
    let packet = match packet {
        Message::Text(text) => text,
        Message::Binary(bytes) => origin_packet::text(bytes)?,
    };
    let [id] = origin_packet::fields(packet, ["id"])?;
    origin_packet::uid("id", id)
}

#[cfg(test)]
mod tests {
    use super::authenticator::Guest;
    use super::*;

    fn handshake() -> Handshake {
        Handshake {
            connection: 1,
            remote_address: "192.0.2.1:50000".into(),
            path: "/".into(),
            query: None,
            headers: Vec::new(),
        }
    }

    fn authenticate(packet: Message) -> Verdict {
        OriginAuth::authenticate(handshake(), packet, Vec::new())
    }

    #[test]
    fn a_new_connection_is_greeted() {
        let verdict = OriginAuth::greet(handshake());
        let Verdict::Challenge(Prompt { message: Some(Payload::Text(greeting)), state }) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!((greeting.as_str(), state.len()), ("HeartBeat", 0));
    }

    #[test]
    fn an_id_is_accepted_from_text_and_binary() {
        for packet in [Message::Text(r#"{"id":7,"x":1}"#.into()), Message::Binary(br#"{"id":"7"}"#.to_vec())] {
            let verdict = authenticate(packet);
            let Verdict::Accept(Identity { uid, reply: Some(Payload::Text(reply)), attributes, expires_at }) = verdict
            else {
                panic!("{verdict:?}");
            };
            assert_eq!((uid.as_str(), reply.as_str()), ("7", "Link_successful"));
            assert!(attributes.is_empty() && expires_at.is_none());
        }
    }

    #[test]
    fn anything_else_is_denied_in_words() {
        for (packet, expected) in [
            (Message::Text("[]".into()), "not a JSON object"),
            (Message::Text("{}".into()), "`id` is missing"),
            (Message::Text("".into()), "not JSON: EOF while parsing a value at line 1 column 0"),
            (Message::Binary(vec![0xff]), "not UTF-8"),
        ] {
            let verdict = authenticate(packet);
            let Verdict::Deny(CloseReason { code: 4400, reason }) = verdict else { panic!("{verdict:?}") };
            assert_eq!(reason, expected);
        }
    }
}
