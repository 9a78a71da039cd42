use serde_json::value::RawValue;

use crate::directory::Directory;
use crate::exports::hotgate::gateway::router::{
    Action, Cause, Command, Delivery, Ending, Membership, Recipient, Session,
};
use crate::hotgate::gateway::types::{Message, Payload};
use crate::permission::allowed;
use crate::request::{Packet, Request};
use crate::say::Say;
use crate::settings::RoomSettings;

/// Returns the actions for a packet.
pub(crate) fn route(
    settings: &RoomSettings,
    directory: &impl Directory,
    session: &Session,
    packet: &Message,
) -> Vec<Action> {
    let Packet { id, request } = Packet::read(packet);
    let visit = Visit { settings, directory, session, id };
    let actions = match request {
        Ok(Request::Join { room }) => visit.join(room),
        Ok(Request::Leave { room }) => Ok(visit.leave(room)),
        Ok(Request::Members { room }) => visit.members(&room),
        Ok(Request::Publish { room, data }) => visit.publish(room, data),
        Ok(Request::Send { to, data }) => visit.send(to, data),
        Ok(Request::Authenticate) => Ok(vec![Action::Authenticate]),
        Err(problem) => Err(visit.error("bad-packet", &problem)),
    };
    actions.unwrap_or_else(|error| vec![Action::Reply(error)])
}

/// Returns the commands after a session has ended: they tell its rooms. At a shutdown, nobody is told.
pub(crate) fn closed(settings: &RoomSettings, session: &Session, ending: &Ending) -> Vec<Command> {
    if !settings.presence || ending.cause == Cause::Shutdown {
        return Vec::new();
    }
    let told = |room: &String| {
        let message = presence("member-left", room, session);
        Command::Deliver(Delivery { to: Recipient::Group(room.clone()), message, otherwise: None })
    };
    ending.groups.iter().map(told).collect()
}

/// A packet of a session, and all that is needed to answer it.
struct Visit<'a, D> {
    settings: &'a RoomSettings,
    directory: &'a D,
    session: &'a Session,
    /// The `id` of the packet.
    id: Option<&'a RawValue>,
}

impl<D: Directory> Visit<'_, D> {
    fn join(&self, room: String) -> Result<Vec<Action>, Payload> {
        self.allow("rooms", &self.settings.join, &room, "to join this room")?;
        let answer = self.answer("joined", &room);
        if self.directory.is_member(self.session.connection, &room) {
            return Ok(vec![answer]);
        }
        let rooms = self.rooms();
        if rooms >= self.settings.max {
            return Err(self.error("too-many-rooms", "this connection is in as many rooms as it may be"));
        }
        let told = self.announce(&room, "member-joined");
        Ok([Action::Join(self.membership(room)), remember(rooms + 1)].into_iter().chain(told).chain([answer]).collect())
    }

    /// Leaves a room. This needs no permission.
    fn leave(&self, room: String) -> Vec<Action> {
        let answer = self.answer("left", &room);
        if !self.directory.is_member(self.session.connection, &room) {
            return vec![answer];
        }
        let told = self.announce(&room, "member-left");
        let left = [Action::Leave(self.membership(room)), remember(self.rooms().saturating_sub(1))];
        left.into_iter().chain(told).chain([answer]).collect()
    }

    fn members(&self, room: &str) -> Result<Vec<Action>, Payload> {
        self.allow("rooms", &self.settings.join, room, "to see who is in this room")?;
        // Ask for one more than the answer holds, to know whether there are more.
        let limit = self.settings.members;
        let mut members = self.directory.members(room, limit + 1);
        let more = members.len() > limit as usize;
        members.truncate(limit as usize);
        members.sort_unstable();
        let answer = Say { kind: "members", room: Some(room), members: Some(&members), more: Some(more), ..self.say() };
        Ok(vec![Action::Reply(answer.payload())])
    }

    fn publish(&self, room: String, data: &RawValue) -> Result<Vec<Action>, Payload> {
        self.allow("publish", &self.settings.publish, &room, "to publish in this room")?;
        let message = self.message(Some(&room), data);
        Ok(vec![Action::Deliver(Delivery { to: Recipient::GroupOthers(room), message, otherwise: None })])
    }

    fn send(&self, to: String, data: &RawValue) -> Result<Vec<Action>, Payload> {
        self.allow("send", &self.settings.send, &to, "to write to this uid")?;
        let message = self.message(None, data);
        let otherwise = Some(self.error("offline", "the message has reached nobody"));
        Ok(vec![Action::Deliver(Delivery { to: Recipient::Uid(to), message, otherwise })])
    }

    fn allow(&self, kind: &str, setting: &str, name: &str, what: &str) -> Result<(), Payload> {
        if allowed(&self.session.attributes, kind, setting, name) {
            Ok(())
        } else {
            Err(self.error("forbidden", &format!("there is no permission {what}")))
        }
    }

    /// Returns the membership of the session's own connection in a room.
    fn membership(&self, room: String) -> Membership {
        Membership { who: Recipient::Connection(self.session.connection), group: room }
    }

    /// Returns how many rooms this router has put the connection into. If the host refused a join, which it does not
    /// report, the count is one too high. The state of a router of another kind counts as 0.
    fn rooms(&self) -> u32 {
        str::from_utf8(&self.session.state).ok().and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Returns the message that tells the others in a room of this connection, if presence is on.
    fn announce(&self, room: &str, kind: &str) -> Option<Action> {
        self.settings.presence.then(|| {
            let message = presence(kind, room, self.session);
            Action::Deliver(Delivery { to: Recipient::GroupOthers(room.to_owned()), message, otherwise: None })
        })
    }

    fn message(&self, room: Option<&str>, data: &RawValue) -> Payload {
        let from = Some(self.session.uid.as_str());
        Say { kind: "message", room, from, data: Some(data), ..Say::default() }.payload()
    }

    fn answer(&self, kind: &str, room: &str) -> Action {
        Action::Reply(Say { kind, room: Some(room), ..self.say() }.payload())
    }

    fn error(&self, error: &str, detail: &str) -> Payload {
        Say { kind: "error", error: Some(error), detail: Some(detail), ..self.say() }.payload()
    }

    /// Returns the beginning of an answer to the packet: its `id`.
    fn say(&self) -> Say<'_> {
        Say { id: self.id, ..Say::default() }
    }
}

fn presence(kind: &str, room: &str, session: &Session) -> Payload {
    Say { kind, room: Some(room), uid: Some(&session.uid), ..Say::default() }.payload()
}

/// Remembers a count as digits, which a later version can read, too.
fn remember(rooms: u32) -> Action {
    Action::Remember(rooms.to_string().into_bytes())
}
