//! The kinds of values that are defined elsewhere: origins, header names, subprotocols, networks, log filters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::AllowedOrigins;
use super::error::Wrong;
use super::kinds::{Kind, List, Text};

/// A network, without host bits; a single address is a network with one address. IPv4 networks written as IPv6
/// (`::ffff:10.0.0.0/104`) are read as IPv4, like the addresses of peers. A network that cannot contain a peer's
/// address is refused.
pub(super) const NETWORK: Text<IpNet> = Text {
    parse: |text| {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().ok()?.trunc(),
        };
        Some(canonical(network)).filter(|network| !is_of_nobody(network))
    },
    show: IpNet::to_string,
    allowed: "an IP address or a network that peers can have, like \"10.0.0.0/8\"",
};

/// Returns `true` if no peer can have an address in the network: "this network", multicast, broadcast.
fn is_of_nobody(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => {
            let first = network.network();
            first.is_multicast() || first.is_broadcast() || (first.octets()[0] == 0 && network.prefix_len() >= 8)
        }
        IpNet::V6(network) => {
            let first = network.network();
            first.is_multicast() || (first.is_unspecified() && network.prefix_len() == 128)
        }
    }
}

/// Converts an IPv4 network that is written as IPv6.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(prefix)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, prefix).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// The name of a header (RFC 9110 §5.1), in lower case.
pub(super) const HEADER: Text<String> = Text {
    parse: |text| is_token(text).then(|| text.to_ascii_lowercase()),
    show: String::clone,
    allowed: "the name of a header, like \"user-agent\"",
};

/// A subprotocol (RFC 6455 §4.1). Upper and lower case differ.
pub(super) const SUBPROTOCOL: Text<String> = Text {
    parse: |text| is_token(text).then(|| text.to_owned()),
    show: String::clone,
    allowed: "a token of letters, digits and characters like \"-\" and \".\", such as \"chat.v1\"",
};

/// A log level, or directives. A single word that is no level is refused: `tracing` would take it as the only target to
/// log, so a misspelt level would silence the log.
pub(super) const LOG_LEVEL: Text<String> = Text {
    parse: |text| {
        let known = |part: &str| {
            let part = part.trim();
            part.contains('=') || (!part.is_empty() && part.parse::<LevelFilter>().is_ok())
        };
        let valid = text.split(',').all(known) && text.parse::<Targets>().is_ok();
        valid.then(|| text.to_owned())
    },
    show: String::clone,
    allowed: "off, error, warn, info, debug, trace, or directives like \"info,hotgate=debug\"",
};

/// The origins of pages that may connect.
pub(super) struct Origins;

impl Kind for Origins {
    type Value = AllowedOrigins;

    fn parse(&self, value: &DeValue<'_>) -> Result<AllowedOrigins, Wrong> {
        match value.as_array() {
            Some(list) if list.len() == 1 && list[0].get_ref().as_str() == Some("*") => Ok(AllowedOrigins::Any),
            Some(_) => List(ORIGIN).parse(value).map(AllowedOrigins::Only),
            None => Err(self.wrong(value)),
        }
    }

    fn show(&self, value: &AllowedOrigins) -> toml::Value {
        match value {
            AllowedOrigins::Any => vec!["*"].into(),
            AllowedOrigins::Only(origins) => List(ORIGIN).show(origins),
        }
    }

    fn allowed(&self) -> String {
        "[\"*\"] alone, or a list of origins like \"https://example.com\"".to_owned()
    }
}

/// An origin as browsers write it (RFC 6454 §6.2). Other forms are refused, since they would never match.
const ORIGIN: Text<String> = Text {
    parse: |text| {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(text);
        }
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        // A browser sends the scheme of the page, and no page is served by WebSocket.
        let is_page = is_scheme(scheme) && !matches!(scheme, "ws" | "wss");
        let is_port = match port {
            None => true,
            Some(port) => {
                let number = port.parse::<u16>().ok().filter(|number| number.to_string() == port)?;
                !matches!((scheme, number), ("http", 80) | ("https", 443))
            }
        };
        (is_page && is_port && is_host(host)).then_some(text)
    },
    show: String::clone,
    allowed: "an origin as browsers send it: the page's scheme (not ws), its host, and its port unless it is the \
              scheme's default, like \"https://example.com\" or \"http://localhost:8080\"; \"*\" must stand alone",
};

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Returns `true` for a host as browsers write it (<https://url.spec.whatwg.org/#host-serializing>): an address has one
/// form only, and a host that ends in a number must be an IPv4 address.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            let is_name = !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit());
            text.bytes().all(allowed) && (is_name || text.parse::<Ipv4Addr>().is_ok())
        }
    }
}

/// Returns `true` for a token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for (text, origin) in [
            ("https://Example.com", Some("https://example.com")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://[::1]", Some("http://[::1]")),
            ("chrome-extension://abcdef", Some("chrome-extension://abcdef")),
            ("null", Some("null")),
            ("*", None),
            ("", None),
            ("example.com", None),
            ("https://", None),
            ("https://example.com/", None),
            ("https://example.com:443", None),
            ("https://example.com:x", None),
            ("https://*.example.com", None),
            ("https://user@example.com", None),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("https://example.com.", Some("https://example.com.")),
            // Browsers never send these, so they would never match.
            ("ws://example.com", None),
            ("wss://example.com", None),
            ("https://example.com:08443", None),
            ("https://example.com:+8443", None),
            ("http://[0:0::1]", None),
            ("http://127.1", None),
            ("http://127.0.0.01", None),
            ("http://.", None),
        ] {
            assert_eq!((ORIGIN.parse)(text).as_deref(), origin, "{text}");
        }
    }

    #[test]
    fn a_single_address_is_a_network_of_one_and_host_bits_are_dropped() {
        for (text, network) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("::1", Some("::1/128")),
            ("::ffff:127.0.0.1", Some("127.0.0.1/32")),
            ("::ffff:127.0.0.0/104", Some("127.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            // No peer has such an address.
            ("0.0.0.0", None),
            ("::", None),
            ("::ffff:0.0.0.0", None),
            ("224.0.0.0/4", None),
            ("ff02::1", None),
            ("10.0.0.0/33", None),
            ("localhost", None),
        ] {
            let parsed = (NETWORK.parse)(text).map(|network| network.to_string());
            assert_eq!(parsed.as_deref(), network, "{text}");
        }
    }

    #[test]
    fn a_log_level_that_is_none_is_refused() {
        for text in ["info", "OFF", "info,hotgate=debug", "hotgate::plugin=trace"] {
            assert!((LOG_LEVEL.parse)(text).is_some(), "{text}");
        }
        for text in ["", "inof", "info,", "info,hotgate", "hotgate=inof", "warn,[x{a=1}]=debug"] {
            assert!((LOG_LEVEL.parse)(text).is_none(), "{text}");
        }
    }

    #[test]
    fn header_names_are_lower_case_and_subprotocols_keep_theirs() {
        assert_eq!((HEADER.parse)("X-Team").as_deref(), Some("x-team"));
        assert_eq!((SUBPROTOCOL.parse)("Chat.v1").as_deref(), Some("Chat.v1"));
        for text in ["", "a b", "a:b", "ä"] {
            assert!((HEADER.parse)(text).is_none() && (SUBPROTOCOL.parse)(text).is_none(), "{text}");
        }
    }
}
