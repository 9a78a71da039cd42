//! A router that sends every packet back to its sender, unchanged: text as text and binary as binary.
//!
//! Use it for conformance and load tests of the gateway (Autobahn's test suite needs exactly this), or as the smallest
//! example of a router. It has no settings, and refuses every line.

use exports::hotgate::gateway::lifecycle;
use exports::hotgate::gateway::router::{self, Action, Answer, Command, Ending, Sender, Session};
use hotgate::gateway::types::{Message, Payload};

wit_bindgen::generate!({ path: "../../wit", world: "routing" });

/// The plugin. It has no settings and keeps no state.
pub struct EchoRouter;

// Only the linker of the wasm target accepts the names by which a component is linked.
#[cfg(target_family = "wasm")]
export!(EchoRouter);

impl lifecycle::Guest for EchoRouter {
    fn check() -> Result<(), String> {
        Ok(())
    }
}

impl router::Guest for EchoRouter {
    fn opened(_: Session) -> Vec<Action> {
        Vec::new()
    }

    fn route(_: Session, _: Message) -> Vec<Action> {
        vec![Action::Reply(Payload::Input)]
    }

    fn closed(_: Session, _: Ending) -> Vec<Command> {
        Vec::new()
    }

    fn push(_: Sender, _: String) -> Result<Answer, String> {
        Err("this router takes no lines: it only sends packets back".into())
    }
}

#[cfg(test)]
mod tests {
    use super::router::{Cause, Guest};
    use super::*;

    fn session() -> Session {
        Session { connection: 1, uid: "u1".into(), attributes: Vec::new(), state: Vec::new() }
    }

    #[test]
    fn every_packet_comes_back_as_it_came() {
        for packet in [Message::Text("hi".into()), Message::Text(String::new()), Message::Binary(vec![0, 255])] {
            let actions = EchoRouter::route(session(), packet);
            assert!(matches!(actions[..], [Action::Reply(Payload::Input)]), "{actions:?}");
        }
    }

    #[test]
    fn nothing_else_has_an_effect() {
        let ending = Ending { cause: Cause::Client, code: Some(1000), groups: Vec::new(), remaining: 1 };
        assert!(EchoRouter::opened(session()).is_empty());
        assert!(EchoRouter::closed(session(), ending).is_empty());
        assert!(EchoRouter::push(Sender { connection: 2, remote_address: String::new() }, "hi".into()).is_err());
    }
}
