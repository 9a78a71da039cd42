//! Where the server's HTTP push API is, and requests to it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::address::loopback;
use crate::cli::Common;

/// The API's address and token.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    host: String,
    token: String,
}

impl Api {
    /// Reads the token's file.
    pub(crate) fn new(c: &Common) -> Result<Api, String> {
        let address = loopback("--api", &c.api)?;
        let file = match &c.api_token_file {
            Some(file) => file.clone(),
            None => token_file(|name| env::var_os(name)).ok_or("--api-token-file is needed: there is no $HOME")?,
        };
        let text = fs::read_to_string(&file).map_err(|e| format!("--api-token-file {}: {e}", file.display()))?;
        let token = text.trim().to_string();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("--api-token-file {}: must contain one token", file.display()));
        }
        Ok(Api { address, host: c.api.clone(), token })
    }

    /// The head of a POST request. Without a length, the body is chunked.
    pub(crate) fn post(&self, target: &str, content_type: &str, length: Option<usize>) -> String {
        let Api { host, token, .. } = self;
        let framing = match length {
            Some(bytes) => format!("Content-Length: {bytes}"),
            None => "Transfer-Encoding: chunked".into(),
        };
        format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wsload\r\nAccept: */*\r\n\
             Authorization: Bearer {token}\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n"
        )
    }
}

/// The file in which Hotgate keeps the token that it has made.
fn token_file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("hotgate/api-token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_where_hotgate_keeps_it() {
        let found = |all: &[(&str, &str)]| {
            let value = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            token_file(value).map(|file| file.display().to_string())
        };
        assert_eq!(found(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]).as_deref(), Some("/x/hotgate/api-token"));
        assert_eq!(found(&[("HOME", "/h")]).as_deref(), Some("/h/.local/state/hotgate/api-token"));
        assert_eq!(found(&[("XDG_STATE_HOME", "x")]), None);
    }
}
