//! The server's address. Only loopback addresses are allowed, so that a load never reaches another machine.

use std::net::{SocketAddr, ToSocketAddrs as _};

/// Resolves host:port. Refuses an address that is not loopback.
pub(crate) fn loopback(what: &str, host_port: &str) -> Result<SocketAddr, String> {
    let addr = host_port
        .to_socket_addrs()
        .map_err(|e| format!("{what} '{host_port}': {e}"))?
        .next()
        .ok_or_else(|| format!("{what} '{host_port}': no address"))?;
    if !addr.ip().is_loopback() {
        return Err(format!("{what} '{host_port}': only loopback addresses are allowed"));
    }
    Ok(addr)
}

/// Splits ws://host:port/path into (host:port, path). Also returns `true` for wss://.
pub(crate) fn split_ws(url: &str) -> Result<(String, String, bool), String> {
    let secure = url.strip_prefix("wss://");
    let rest = secure.or_else(|| url.strip_prefix("ws://"));
    let rest = rest.ok_or_else(|| format!("--ws '{url}': must start with ws:// or wss://"))?;
    let port = if secure.is_some() { 443 } else { 80 };
    let (host, path) = match rest.find('/') {
        Some(i) => (&rest[..i], &rest[i..]),
        None => (rest, "/"),
    };
    let host =
        if host.rsplit(']').next().unwrap_or(host).contains(':') { host.to_string() } else { format!("{host}:{port}") };
    Ok((host, path.to_string(), secure.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(split_ws("ws://127.0.0.1:1234").unwrap(), ("127.0.0.1:1234".into(), "/".into(), false));
        assert_eq!(split_ws("ws://localhost/x?y").unwrap(), ("localhost:80".into(), "/x?y".into(), false));
        assert_eq!(split_ws("ws://[::1]:99/").unwrap(), ("[::1]:99".into(), "/".into(), false));
        assert_eq!(split_ws("ws://[::1]/").unwrap(), ("[::1]:80".into(), "/".into(), false));
        assert_eq!(split_ws("wss://localhost").unwrap(), ("localhost:443".into(), "/".into(), true));
        assert!(split_ws("http://127.0.0.1/").is_err());
    }

    #[test]
    fn only_loopback() {
        assert!(loopback("--ws", "127.0.0.9:1").is_ok());
        assert!(loopback("--ws", "[::1]:1").is_ok());
        assert!(loopback("--ws", "192.0.2.1:1").is_err());
        assert!(loopback("--ws", "nonsense").is_err());
    }
}
