//! Compares the origin of a page that connects with the allowed origins.

use crate::config::{self, AllowedOrigin, AllowedOrigins};

/// Returns `true` if a page of this origin may connect. `host` is the request's `Host` header.
pub(super) fn is_allowed(origin: &[u8], host: &str, allowed: &AllowedOrigins) -> bool {
    let AllowedOrigins::Only(allowed) = allowed else { return true };
    let Ok(origin) = str::from_utf8(origin.trim_ascii()) else { return false };
    let origin = origin.to_ascii_lowercase();
    allowed.iter().any(|allowed| match allowed {
        AllowedOrigin::SameHost => is_same_host(&origin, host),
        AllowedOrigin::Exactly(allowed) => *allowed == origin,
        AllowedOrigin::Below { scheme, domain } => is_below(&origin, scheme, domain),
    })
}

fn is_same_host(origin: &str, host: &str) -> bool {
    let page = origin.split_once("://").and_then(|(_, authority)| host_of(authority));
    page.is_some_and(|page| host_of(host) == Some(page))
}

/// Returns the host of `HOST` or `HOST:PORT` in a normal form.
fn host_of(authority: &str) -> Option<String> {
    let (host, port) = config::host_and_port(authority);
    let is_bare_address = host.contains(':') && !host.starts_with('[');
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    config::host(host).filter(|_| is_port && !is_bare_address)
}

fn is_below(origin: &str, scheme: &str, domain: &str) -> bool {
    let authority = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let below = authority.and_then(|authority| authority.strip_suffix(domain)?.strip_suffix('.'));
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    below.is_some_and(|below| below.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Origins that browsers do not send, and that look like one of `gateway.test`.
    const HOSTILE: [&str; 16] = [
        "null",
        "",
        "gateway.test",
        "https://",
        "://",
        "https://gateway.test.evil.test",
        "https://evil-gateway.test",
        "https://gateway.test@evil.test",
        "https://evil.test/gateway.test",
        "https://evil.test#.gateway.test",
        "https://evil.test\\.gateway.test",
        "https://evil.test:443:gateway.test",
        "https://gateway.test/",
        "https://gateway.test:1x",
        "https://gateway.test https://evil.test",
        "https://\u{ff47}ateway.test",
    ];

    fn is_allowed_by(allowed: AllowedOrigin, origin: &str, host: &str) -> bool {
        is_allowed(origin.as_bytes(), host, &AllowedOrigins::Only(vec![allowed]))
    }

    #[test]
    fn the_same_host_may_have_any_scheme_and_port() {
        for (origin, host, same) in [
            ("https://gateway.test", "gateway.test", true),
            ("http://GATEWAY.test:8080", "gateway.TEST:1234", true),
            ("https://gateway.test.", "gateway.test", true),
            ("capacitor://localhost", "localhost:1234", true),
            ("http://127.0.0.1:3000", "127.0.0.1:1234", true),
            ("http://[::1]:3000", "[::1]:1234", true),
            ("http://[::1]", "[0:0::1]", true),
            ("http://[2001:db8::1]", "[2001:db8::1]:443", true),
            ("http://[::1]", "[::2]", false),
            ("http://::1", "[::1]", false),
            ("http://[::1]", "::1", false),
            ("https://www.gateway.test", "gateway.test", false),
            ("https://gateway.test", "www.gateway.test", false),
            ("https://gateway.test", "", false),
            ("https://", "", false),
            ("https://gateway.test", "gateway.test, evil.test", false),
            ("null", "null", false),
        ] {
            assert_eq!(is_allowed_by(AllowedOrigin::SameHost, origin, host), same, "{origin:?} for {host:?}");
        }
        for origin in HOSTILE {
            assert!(!is_allowed_by(AllowedOrigin::SameHost, origin, "gateway.test"), "{origin:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_name_or_several_but_not_for_none() {
        let below = |domain: &str| AllowedOrigin::Below { scheme: "https".to_owned(), domain: domain.to_owned() };
        for (origin, domain, is_below) in [
            ("https://www.gateway.test", "gateway.test", true),
            ("https://a.b.GATEWAY.test", "gateway.test", true),
            ("https://www.gateway.test:8443", "gateway.test:8443", true),
            ("https://gateway.test", "gateway.test", false),
            ("https://.gateway.test", "gateway.test", false),
            ("https://a..gateway.test", "gateway.test", false),
            ("http://www.gateway.test", "gateway.test", false),
            ("https://www.gateway.test:8443", "gateway.test", false),
            ("https://www.gateway.test", "gateway.test:8443", false),
            ("https://www.gateway.test.", "gateway.test", false),
            ("https://user@www.gateway.test", "gateway.test", false),
            ("https://evil.test/www.gateway.test", "gateway.test", false),
            ("https://evil.test:1.gateway.test", "gateway.test", false),
        ] {
            assert_eq!(is_allowed_by(below(domain), origin, "x"), is_below, "{origin:?} below {domain:?}");
        }
        for origin in HOSTILE {
            assert!(!is_allowed_by(below("gateway.test"), origin, "gateway.test"), "{origin:?}");
        }
    }

    #[test]
    fn an_origin_that_is_not_text_matches_nothing_but_any() {
        let exactly = AllowedOrigins::Only(vec![AllowedOrigin::Exactly("https://a.b".to_owned())]);
        assert!(is_allowed(b" HTTPS://a.b ", "x", &exactly) && !is_allowed(b"https://a.b\xff", "x", &exactly));
        assert!(is_allowed(b"\xff", "x", &AllowedOrigins::Any));
    }
}
