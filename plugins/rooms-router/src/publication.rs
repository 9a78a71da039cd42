use crate::exports::hotgate::gateway::publications::Ruling;
use crate::exports::hotgate::gateway::router::Recipient;
use crate::permission::{matches_all, matches_any};
use crate::settings::RoomSettings;

/// Decides about a message of the HTTP API: the settings must allow every recipient.
pub(crate) fn publish(settings: &RoomSettings, to: &[Recipient]) -> Ruling {
    to.iter().find_map(|to| refusal(settings, to)).map_or(Ruling::Pass, Ruling::Refuse)
}

/// Returns why the settings do not allow this recipient.
fn refusal(settings: &RoomSettings, to: &Recipient) -> Option<String> {
    let RoomSettings { api_publish, api_send, .. } = settings;
    match to {
        Recipient::Group(room) | Recipient::GroupOthers(room) => (!matches_any(api_publish, room))
            .then(|| format!("the setting ROOMS_API_PUBLISH does not allow the room {room:?}")),
        Recipient::Uid(uid) => {
            (!matches_any(api_send, uid)).then(|| format!("the setting ROOMS_API_SEND does not allow the uid {uid:?}"))
        }
        // A connection may belong to any uid, and everyone is every uid.
        Recipient::Connection(_) | Recipient::Everyone => (!matches_all(api_send))
            .then(|| "a connection or everyone needs the pattern * in the setting ROOMS_API_SEND".to_owned()),
    }
}
