use bytestring::ByteString;
use crate::message::ConnectionId;
pub struct Registry;
impl Registry {
    pub fn connections(&self, _uid: &str) -> u32 { 0 }
    pub fn members(&self, _group: &str, _limit: usize) -> Vec<ByteString> { Vec::new() }
    pub fn is_member(&self, _connection: ConnectionId, _group: &str) -> bool { false }
}
