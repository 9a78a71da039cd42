//! Who gets this? Everybody in the same room, or one uid: JSON packets to join and leave rooms, to publish in them, to see
//! who is there, and to write to somebody. Each but leaving needs a permission, and without attributes and settings there are none.
//!
//! # What clients send
//!
//! | packet | what happens | answer |
//! | --- | --- | --- |
//! | `{"type":"join","room":"lobby"}` | the connection is in the room until it leaves or closes | `{"type":"joined","room":"lobby"}` |
//! | `{"type":"leave","room":"lobby"}` | it is not any more | `{"type":"left","room":"lobby"}` |
//! | `{"type":"members","room":"lobby"}` | | `{"type":"members","room":"lobby","members":["u1","u2"],"more":false}`: uids, each once; `more` if there are others |
//! | `{"type":"publish","room":"lobby","data":…}` | every other connection in the room gets the message | none |
//! | `{"type":"send","to":"u2","data":…}` | that uid gets the message | none, but an error if it is offline |
//! | `{"type":"authenticate",…}` | the packet goes to the authenticators, to renew the session | theirs |
//!
//! `data` is any JSON value and is passed on as it is written. Nested deeper than 64, or with an escape in it that is
//! half of a surrogate pair (`\ud800`), it is refused, for those who get it might be unable to read it. Rooms and uids
//! have 1 to 256 bytes; an integer is taken for its digits. A packet may have an `id`, a string or a number of up to 64
//! bytes: the answer to it has the same.
//!
//! # What clients get
//!
//! | message | when |
//! | --- | --- |
//! | the answers above | |
//! | `{"type":"message","room":"lobby","from":"u1","data":…}` | somebody has published in a room |
//! | `{"type":"message","from":"u1","data":…}` | somebody has written to this uid |
//! | `{"type":"member-joined","room":"lobby","uid":"u1"}`, `{"type":"member-left",…}` | with `ROOMS_PRESENCE`: a connection of that uid came into the room, or left it or closed, but not at a shutdown of the gateway |
//! | `{"type":"error","error":"forbidden","detail":"…"}` | a packet had no effect; `error` is for programs, `detail` for people |
//!
//! | `error` | meaning |
//! | --- | --- |
//! | `bad-packet` | it is not understood |
//! | `forbidden` | there is no permission for it |
//! | `too-many-rooms` | the connection is in as many rooms as it may be |
//! | `offline` | the uid has no connection that took the message |
//!
//! # What internal systems push
//!
//! A line `{"uid":"u1",…}` goes to that uid, and `{"room":"lobby",…}` to everybody in that room, as it came: what is in
//! it is between sender and clients. A `type` that this page does not use keeps it apart from what clients send.
//!
//! # Permissions
//!
//! A permission is a list of patterns between commas: a name, the beginning of names (`news-*`), or all (`*`). What an
//! authenticator gave a session as an attribute counts (several of the same name add up, an empty one allows nothing);
//! without such an attribute, the setting does. `jwt-auth` makes an empty attribute of a claim that is `null` or an empty
//! list, and none of a claim that is missing.
//!
//! **What an issuer puts into `rooms`, `publish` or `send` is read as patterns.** A room called `*` or `a,*` would let its
//! members into all rooms: names that users choose must not end up there.
//!
//! | attribute | setting | allows |
//! | --- | --- | --- |
//! | `rooms` | `ROOMS_JOIN` | to join these rooms and see who is in them |
//! | `publish` | `ROOMS_PUBLISH` | to publish in these rooms, in them or not |
//! | `send` | `ROOMS_SEND` | to write to these uids |
//!
//! A permission is looked at when a packet comes. One that is gone after a session was renewed takes nobody out of a room.
//!
//! # Settings
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `ROOMS_JOIN`, `ROOMS_PUBLISH`, `ROOMS_SEND` | none | what sessions without such an attribute may do |
//! | `ROOMS_MEMBERS` | `100` | how many uids an answer to `members` has at most, up to 1000 |
//! | `ROOMS_MAX` | `100` | how many rooms a connection may be in, up to 1024. They are counted by this router: the host does not say what became of a `join`, and one that is in 1024 groups, those that another router put it into included, joins no more |
//! | `ROOMS_PRESENCE` | `off` | `on`: rooms are told who comes and goes. Each arrival is then a message to everybody there |
//!
//! ```toml
//! [router]
//! file = "rooms_router.wasm"
//! settings = { ROOMS_JOIN = "lobby,news-*", ROOMS_PUBLISH = "lobby", ROOMS_PRESENCE = "on" }
//! ```

mod data;
mod directory;
mod permission;
mod request;
mod room;
mod say;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use exports::hotgate::gateway::lifecycle;
use exports::hotgate::gateway::router::{self, Action, Answer, Command, Delivery, Ending, Recipient, Sender, Session};
use hotgate::gateway::types::{Message, Payload};

use directory::Host;
use settings::RoomSettings;

wit_bindgen::generate!({ path: "../../wit", world: "routing" });

/// The plugin. What it keeps of a session, the host keeps for it.
pub struct RoomsRouter;

// A component is linked by names that only its own target's linker takes.
#[cfg(target_family = "wasm")]
export!(RoomsRouter);

impl lifecycle::Guest for RoomsRouter {
    fn check() -> Result<(), String> {
        RoomSettings::from_environment().map(drop)
    }
}

impl router::Guest for RoomsRouter {
    fn opened(_: Session) -> Vec<Action> {
        Vec::new()
    }

    fn route(session: Session, packet: Message) -> Vec<Action> {
        room::route(settings(), &Host, &session, &packet)
    }

    fn closed(session: Session, ending: Ending) -> Vec<Command> {
        room::closed(settings(), &session, &ending)
    }

    fn push(_: Sender, line: String) -> Result<Answer, String> {
        let [uid, room] = origin_packet::fields(&line, ["uid", "room"]).map_err(|unusable| unusable.to_string())?;
        let to = match (uid, room) {
            (Some(_), Some(_)) => return Err("both `uid` and `room` are given: it is for one of them".into()),
            (None, None) => return Err("neither `uid` nor `room` is given".into()),
            (uid, None) => origin_packet::uid("uid", uid).map(Recipient::Uid),
            (None, room) => origin_packet::uid("room", room).map(Recipient::Group),
        };
        let to = to.map_err(|unusable| unusable.to_string())?;
        Ok(Answer {
            commands: vec![Command::Deliver(Delivery { to, message: Payload::Input, otherwise: None })],
            reply: None,
        })
    }
}

/// The settings, which are the same for every call and belong to no session. Ones that cannot be used allow nothing;
/// `check` refuses them before.
fn settings() -> &'static RoomSettings {
    static SETTINGS: OnceLock<RoomSettings> = OnceLock::new();
    SETTINGS.get_or_init(|| RoomSettings::from_environment().unwrap_or_default())
}
