//! The kinds of values that are defined elsewhere: header names, subprotocols, networks, log filters.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::kinds::Text;

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
    parse: |text| is_log_level(text).then(|| text.to_owned()),
    show: String::clone,
    allowed: "off, error, warn, info, debug, trace, or directives like \"info,hotgate=debug\"",
};

/// Returns `true` for a log level, or directives.
pub fn is_log_level(text: &str) -> bool {
    let known = |part: &str| {
        let part = part.trim();
        part.contains('=') || (!part.is_empty() && part.parse::<LevelFilter>().is_ok())
    };
    text.split(',').all(known) && text.parse::<Targets>().is_ok()
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
