//! Requests about the plugins of one gateway.

use std::fmt::Display;
use std::fs::File;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::AsSendBody;
use ureq::http::Method;

use super::client::Client;
use super::failure::Failure;
use super::show::Plugin;
use crate::config::{LARGEST_COMPONENT, open_file, read_file};

/// Returns the plugins in an answer, which is a list of plugins or one plugin.
pub(super) fn plugins(mut answer: Value) -> Result<Vec<Plugin>, Failure> {
    let list = match answer.get_mut("plugins") {
        Some(list) => list.take(),
        None => Value::Array(vec![answer]),
    };
    serde_json::from_value(list)
        .map_err(|error| Failure::Failed(format!("cannot understand the answer of the gateway: {error}")))
}

/// Reads a component, to send the same bytes several times.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let unread = |problem: &dyn Display| Failure::Failed(format!("cannot read {}: {problem}", file.display()));
    let component = read_file(file, LARGEST_COMPONENT).map_err(|error| unread(&error))?;
    component.ok_or_else(|| unread(&format_args!("it is larger than any component may be ({LARGEST_COMPONENT} bytes)")))
}

/// Opens a component.
pub(super) fn open(file: &Path) -> Result<File, Failure> {
    open_file(file).map_err(|error| Failure::Failed(format!("cannot read {}: {error}", file.display())))
}

impl Client {
    /// Lists the plugins of the gateway, or of another one of its cluster.
    pub(super) fn list(&self, node: Option<u16>) -> Result<Value, Failure> {
        let query = node.map(|node| format!("?node={node}")).unwrap_or_default();
        self.ask(Method::GET, &format!("/plugins{query}"), ())
    }

    /// Makes the gateway do something with a slot.
    pub(super) fn act(&self, slot: &str, action: &str, generation: Option<u64>) -> Result<Value, Failure> {
        let query = generation.map(|number| format!("?generation={number}")).unwrap_or_default();
        self.ask(Method::POST, &format!("/plugins/{}/{action}{query}", encoded(slot)), ())
    }

    /// Sends a component; a file while it is read. The gateway refuses one that is too large before it is sent.
    pub(super) fn deploy(&self, component: impl AsSendBody, slot: Option<&str>) -> Result<Value, Failure> {
        let slot = slot.map_or_else(|| self.only_slot(), |slot| Ok(slot.to_owned()))?;
        self.ask(Method::PUT, &format!("/plugins/{}", encoded(&slot)), component)
    }

    /// Returns the slot that has a file, if there is only one.
    fn only_slot(&self) -> Result<String, Failure> {
        let plugins = plugins(self.list(None)?)?;
        let mut of_files = plugins.iter().filter(|plugin| !plugin.source.starts_with("builtin:"));
        match (of_files.next(), of_files.next()) {
            (Some(only), None) => Ok(only.slot.clone()),
            (Some(_), Some(_)) => {
                let slots: Vec<_> = plugins.iter().map(|plugin| plugin.slot.as_str()).collect();
                Err(Failure::Failed(format!("--slot must name one of these: {}", slots.join(", "))))
            }
            (None, _) => {
                let problem = "no slot has a file that could be replaced: all plugins are built in. Start the gateway \
                               with files, like --authenticator auth.wasm";
                Err(Failure::Failed(problem.to_owned()))
            }
        }
    }
}

/// Encodes a name as one segment of a path (RFC 3986 §2.3).
fn encoded(segment: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encoded("authenticator+router"), "authenticator%2Brouter");
        assert_eq!(encoded("../a b?ä"), "..%2Fa%20b%3F%C3%A4");
    }
}
