use std::borrow::Cow;

use plugin_settings::Settings;

use crate::denial::Denial;
use crate::exports::hotgate::gateway::authenticator::Handshake;
use crate::hotgate::gateway::types::Message;
use crate::object::string;

/// The only header that a web page can set: `new WebSocket(url, ["bearer", token])`. It is a list (RFC 6455 §11.3.4).
const SUBPROTOCOLS: &str = "sec-websocket-protocol";

/// The places that are searched for a token.
#[derive(Debug)]
pub(crate) struct Places {
    /// `JWT_FIELD`: a field of a JSON packet.
    field: String,
    /// `JWT_HEADER`, `JWT_QUERY`, `JWT_COOKIE`: parts of the handshake, each only if it is set.
    header: Option<String>,
    query: Option<String>,
    cookie: Option<String>,
}

impl Places {
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let name = |setting| match settings.text(setting)? {
            Some(name) if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) => {
                Err(format!("{setting} must be a name of letters, digits, -, _, . and ~"))
            }
            name => Ok(name.map(str::to_owned)),
        };
        Ok(Self {
            field: settings.text("JWT_FIELD")?.unwrap_or("token").to_owned(),
            header: name("JWT_HEADER")?,
            query: name("JWT_QUERY")?,
            cookie: name("JWT_COOKIE")?,
        })
    }

    /// Returns the token in a handshake, if there is one. Header and query, which a client fills on purpose, count
    /// before the cookie, which a browser sends by itself.
    pub(crate) fn in_handshake<'a>(&self, handshake: &'a Handshake) -> Result<Option<&'a str>, Denial> {
        let fields = |name: &str| {
            let name = name.to_ascii_lowercase();
            handshake.headers.iter().filter(move |header| header.name == name).map(|header| header.value.trim())
        };
        let places = [
            self.header.as_ref().map(|name| match name.eq_ignore_ascii_case(SUBPROTOCOLS) {
                true => only(offered(fields(name))),
                false => only(fields(name).filter_map(|value| credentials(name, value))),
            }),
            self.query.as_ref().map(|name| only(pairs(handshake.query.as_deref().unwrap_or_default(), '&', name))),
            self.cookie.as_ref().map(|name| only(fields("cookie").flat_map(|cookies| pairs(cookies, ';', name)))),
        ];
        for place in places.into_iter().flatten() {
            if let Some(token) = place? {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    /// Returns the token that a packet is or holds; `None` if the packet is about something else. Binary packets are
    /// read as text.
    pub(crate) fn in_packet<'a>(&self, packet: &'a Message) -> Result<Option<Cow<'a, str>>, Denial> {
        let packet = match packet {
            Message::Text(text) => text,
            Message::Binary(bytes) => match str::from_utf8(bytes) {
                Ok(text) => text,
                Err(_) => return Ok(None),
            },
        };
        if let Ok([field]) = origin_packet::fields(packet, [self.field.as_str()]) {
            let token = |value| string(value).ok_or(Denial::Malformed("it is not a string"));
            return field.map(token).transpose();
        }
        let packet = packet.trim();
        Ok(is_like_token(packet).then_some(Cow::Borrowed(packet)))
    }
}

/// Returns whether a packet looks like a token: three parts of base64url, none of them empty, with dots between them. A
/// number or a name with a dot is for another authenticator.
fn is_like_token(packet: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    packet.split('.').count() == 3 && packet.split('.').all(is_part)
}

/// Returns the token in a header: after `Bearer` (RFC 6750 §2.1), or alone, as proxies that log users in put it into
/// headers of their own. Other credentials in `Authorization` are for another authenticator.
fn credentials<'a>(header: &str, value: &'a str) -> Option<&'a str> {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
        _ if header.eq_ignore_ascii_case("authorization") => None,
        _ => Some(value),
    }
}

/// Returns the tokens among the subprotocols that a client offers: the item after `bearer`, or an item that looks like
/// a token.
fn offered<'a>(values: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut after_bearer = false;
    values.flat_map(|value| value.split(',')).map(str::trim).filter(move |element| {
        let is_token = std::mem::take(&mut after_bearer) || is_like_token(element);
        after_bearer = !is_token && element.eq_ignore_ascii_case("bearer");
        is_token
    })
}

/// Returns the values of a name in a list of `name=value`.
fn pairs<'a>(list: &'a str, separator: char, name: &str) -> impl Iterator<Item = &'a str> {
    list.split(separator).filter_map(move |pair| {
        let value = pair.trim().strip_prefix(name)?.strip_prefix('=')?;
        Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    })
}

/// Returns the only token in a place. Two different tokens are refused: whoever added one could act as the owner of the
/// other.
fn only<'a>(mut tokens: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, Denial> {
    let Some(first) = tokens.find(|token| !token.is_empty()) else { return Ok(None) };
    if tokens.all(|token| token == first) {
        Ok(Some(first))
    } else {
        Err(Denial::Malformed("two are given in one place"))
    }
}
