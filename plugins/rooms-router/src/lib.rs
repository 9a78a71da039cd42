//! A router for rooms. Clients send JSON packets to join and leave rooms, to publish in a room, to see who is in a
//! room, and to write to one uid. All of these except leaving need a permission. Without attributes and settings, a
//! client has no permission.
//!
//! # What clients send
//!
//! | packet | what happens | answer |
//! | --- | --- | --- |
//! | `{"type":"join","room":"lobby"}` | the connection is in the room until it leaves or closes | `{"type":"joined","room":"lobby"}` |
//! | `{"type":"leave","room":"lobby"}` | the connection leaves the room | `{"type":"left","room":"lobby"}` |
//! | `{"type":"members","room":"lobby"}` | the members are listed | `{"type":"members","room":"lobby","members":["u1","u2"],"more":false}`: uids, each once; `more` says whether there are others |
//! | `{"type":"publish","room":"lobby","data":…}` | every other connection in the room gets the message | none |
//! | `{"type":"send","to":"u2","data":…}` | that uid gets the message | none, or an error if the uid is offline |
//! | `{"type":"authenticate",…}` | the packet goes to the authenticators, to renew the session | the authenticator's reply |
//!
//! `data` is any JSON value, and is passed on as it is written. The router refuses `data` that is nested deeper than 64
//! levels, or that holds an escape for half of a surrogate pair (`\ud800`): recipients might be unable to read it.
//! Rooms and uids have 1 to 256 bytes; an integer counts as its digits. A packet may have an `id`, a string or a number
//! of up to 64 bytes: its answer then has the same `id`.
//!
//! # What clients get
//!
//! | message | when |
//! | --- | --- |
//! | the answers above | after the client's own packets |
//! | `{"type":"message","room":"lobby","from":"u1","data":…}` | somebody has published in a room |
//! | `{"type":"message","from":"u1","data":…}` | somebody has written to this uid |
//! | `{"type":"member-joined","room":"lobby","uid":"u1"}`, `{"type":"member-left",…}` | with `ROOMS_PRESENCE`: a connection of that uid joined the room, or left it or closed; not at a shutdown of the gateway |
//! | `{"type":"error","error":"forbidden","detail":"…"}` | a packet had no effect; `error` is for programs, `detail` is for people |
//!
//! | `error` | meaning |
//! | --- | --- |
//! | `bad-packet` | the packet is not understood |
//! | `forbidden` | the client has no permission for it |
//! | `too-many-rooms` | the connection is in as many rooms as it may be |
//! | `offline` | the uid has no connection that took the message |
//!
//! # What internal systems push
//!
//! A line `{"uid":"u1",…}` goes to that uid, and a line `{"room":"lobby",…}` to everybody in that room, unchanged. The
//! router does not read the rest of the line. Use a `type` that is not on this page, so that clients can tell such a
//! line from other messages.
//!
//! # What internal systems publish by the HTTP API
//!
//! With `api.rules = "router"`, the gateway asks this router about each message of the HTTP API. The message goes out
//! unchanged if `ROOMS_API_PUBLISH` allows its room, or `ROOMS_API_SEND` each of its uids. A message to a connection or
//! to everyone needs the pattern `*` in `ROOMS_API_SEND`. Otherwise the message is refused: without these settings,
//! every message is. They hold for all tokens; what one token may do is said in `[[api.token]]`. Lines (`/v1/line`) are
//! the lines above. With `api.rules = "direct"`, these two settings have no effect.
//!
//! # Permissions
//!
//! A permission is a list of patterns between commas. A pattern is a name, the beginning of names (`news-*`), or `*`
//! for all names. If the authenticator gave the session an attribute for the permission, the attribute counts: several
//! attributes of the same name add up, and an empty one allows nothing. Without such an attribute, the setting counts.
//! `jwt-auth` makes an empty attribute of a claim that is `null` or an empty list, and no attribute of a missing claim.
//!
//! **The values of `rooms`, `publish` and `send` are read as patterns.** A room named `*` or `a,*` would let its
//! members into all rooms. So an issuer must not put names there that users choose.
//!
//! | attribute | setting | allows |
//! | --- | --- | --- |
//! | `rooms` | `ROOMS_JOIN` | to join these rooms and see who is in them |
//! | `publish` | `ROOMS_PUBLISH` | to publish in these rooms, as a member or not |
//! | `send` | `ROOMS_SEND` | to write to these uids |
//!
//! The router checks a permission when a packet comes. If a session loses a permission when it is renewed, its
//! connection stays in its rooms.
//!
//! # Settings
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `ROOMS_JOIN`, `ROOMS_PUBLISH`, `ROOMS_SEND` | none | the permissions of sessions without such an attribute |
//! | `ROOMS_API_PUBLISH`, `ROOMS_API_SEND` | none | the rooms and the uids that the HTTP API may reach, as patterns; only with `api.rules = "router"` |
//! | `ROOMS_MEMBERS` | `100` | the largest number of uids in an answer to `members`, up to 1000 |
//! | `ROOMS_MAX` | `100` | how many rooms a connection may be in, up to 1024. This router counts them, because the host does not report the result of a `join`. A connection that is in 1024 groups, also groups of another router, joins no more |
//! | `ROOMS_PRESENCE` | `off` | `on`: each room is told who joins and leaves. Each join is then a message to everybody in the room |
//!
//! ```toml
//! [router]
//! file = "rooms_router.wasm"
//! settings = { ROOMS_JOIN = "lobby,news-*", ROOMS_PUBLISH = "lobby", ROOMS_PRESENCE = "on" }
//! ```

mod data;
mod directory;
mod permission;
mod publication;
mod request;
mod room;
mod say;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use exports::hotgate::gateway::lifecycle;
use exports::hotgate::gateway::publications::{self, Publisher, Ruling};
use exports::hotgate::gateway::router::{self, Action, Answer, Command, Delivery, Ending, Recipient, Sender, Session};
use hotgate::gateway::types::{Message, Payload};

use directory::Host;
use settings::RoomSettings;

wit_bindgen::generate!({ path: "../../wit", world: "routing-and-publishing" });

/// The plugin. The host keeps its data about each session.
pub struct RoomsRouter;

// Only the linker of the wasm target accepts the names by which a component is linked.
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
            (Some(_), Some(_)) => return Err("both `uid` and `room` are given: give one of them".into()),
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

impl publications::Guest for RoomsRouter {
    fn publish(_: Publisher, to: Vec<Recipient>, _: Message) -> Ruling {
        publication::publish(settings(), &to)
    }
}

/// Returns the settings, which are the same for every call. Settings that cannot be used allow nothing; `check` refuses
/// such settings before.
fn settings() -> &'static RoomSettings {
    static SETTINGS: OnceLock<RoomSettings> = OnceLock::new();
    SETTINGS.get_or_init(|| RoomSettings::from_environment().unwrap_or_default())
}
