//! The origins of web pages that may connect.

use std::net::{Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::error::Wrong;
use super::kinds::{Kind, List, Text, host_and_port};

/// The origins of pages that may connect (the `Origin` header, RFC 6455 §10.2). Requests without an `Origin` header do
/// not come from a browser and are let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `["*"]`: all origins.
    Any,
    /// These origins.
    Only(Vec<AllowedOrigin>),
}

/// Origins of pages that may connect, all in lower case: upper and lower case are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `"same-host"`: the host of the request's `Host` header, with any scheme and port.
    SameHost,
    /// This origin: scheme, host and port.
    Exactly(String),
    /// `"https://*.example.com"`: all hosts below this domain.
    Below {
        /// The scheme, such as `https`.
        scheme: String,
        /// The domain, and the port if it is not the scheme's default, such as `example.com`.
        domain: String,
    },
}

const SAME_HOST: &str = "same-host";

/// The list of origins that may connect.
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
        "[\"*\"] alone, or a list of origins like \"https://example.com\", \"https://*.example.com\" and \"same-host\""
            .to_owned()
    }
}

/// An origin as browsers write it (RFC 6454 §6.2). Other forms are refused, since they would never match.
const ORIGIN: Text<AllowedOrigin> = Text {
    parse: |text| {
        let text = text.to_ascii_lowercase();
        if text == SAME_HOST {
            return Some(AllowedOrigin::SameHost);
        }
        if let Some((scheme, domain)) = text.split_once("://*.") {
            let host = host_of_page(&format!("{scheme}://{domain}"))?.to_owned();
            let is_name = !host.starts_with('[') && host.parse::<Ipv4Addr>().is_err();
            let below = AllowedOrigin::Below { scheme: scheme.to_owned(), domain: domain.to_owned() };
            return is_name.then_some(below);
        }
        (text == "null" || host_of_page(&text).is_some()).then_some(AllowedOrigin::Exactly(text))
    },
    show: |origin| match origin {
        AllowedOrigin::SameHost => SAME_HOST.to_owned(),
        AllowedOrigin::Exactly(origin) => origin.clone(),
        AllowedOrigin::Below { scheme, domain } => format!("{scheme}://*.{domain}"),
    },
    allowed: "an origin as browsers send it: the page's scheme (not ws), its host, and its port unless it is the \
              scheme's default, like \"https://example.com\" or \"http://localhost:8080\"; or all hosts below a \
              domain, like \"https://*.example.com\"; or \"same-host\"; \"*\" must stand alone",
};

/// Returns the host of a page's origin in lower case. `None` if browsers never send this text.
fn host_of_page(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let (host, port) = host_and_port(authority);
    // A browser sends the scheme of the page, and no page is served by WebSocket.
    let is_page = is_scheme(scheme) && !matches!(scheme, "ws" | "wss");
    let is_port = match port {
        None => true,
        Some(port) => {
            let number = port.parse::<u16>().ok().filter(|number| number.to_string() == port)?;
            !matches!((scheme, number), ("http", 80) | ("https", 443))
        }
    };
    (is_page && is_port && is_host(host)).then_some(host)
}

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
            ("same-host", Some("same-host")),
            ("https://*.Example.com", Some("https://*.example.com")),
            ("http://*.localhost:8080", Some("http://*.localhost:8080")),
            ("https://*.example.com:443", None),
            ("https://*.*.example.com", None),
            ("https://www.*.example.com", None),
            ("https://*example.com", None),
            ("https://*.", None),
            ("https://*", None),
            ("*://*.example.com", None),
            ("*.example.com", None),
            ("wss://*.example.com", None),
            ("https://*.192.0.2.1", None),
            ("https://*.[::1]", None),
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
            let parsed = (ORIGIN.parse)(text);
            assert_eq!(parsed.as_ref().map(ORIGIN.show).as_deref(), origin, "{text}");
        }
    }
}
