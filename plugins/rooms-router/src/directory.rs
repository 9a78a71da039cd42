use crate::hotgate::gateway::directory;

/// The functions of the host's directory that this router uses. Tests replace them.
pub(crate) trait Directory {
    fn is_member(&self, connection: u64, room: &str) -> bool;
    fn members(&self, room: &str, limit: u32) -> Vec<String>;
}

/// The directory of the host.
pub(crate) struct Host;

impl Directory for Host {
    fn is_member(&self, connection: u64, room: &str) -> bool {
        directory::is_member(connection, room)
    }

    fn members(&self, room: &str, limit: u32) -> Vec<String> {
        directory::members(room, limit)
    }
}
