use crate::hotgate::gateway::directory;

/// Who is connected, as far as it is asked here. Tests have one of their own.
pub(crate) trait Directory {
    fn is_member(&self, connection: u64, room: &str) -> bool;
    fn members(&self, room: &str, limit: u32) -> Vec<String>;
}

/// The host's.
pub(crate) struct Host;

impl Directory for Host {
    fn is_member(&self, connection: u64, room: &str) -> bool {
        directory::is_member(connection, room)
    }

    fn members(&self, room: &str, limit: u32) -> Vec<String> {
        directory::members(room, limit)
    }
}
