use super::*;
use crate::exports::hotgate::gateway::authenticator::Handshake;
use crate::hotgate::gateway::types::{Attribute, Message, Payload};

fn handshake(query: Option<&str>, headers: &[(&str, &str)]) -> Handshake {
    Handshake {
        connection: 1,
        remote_address: "192.0.2.1:50000".into(),
        path: "/".into(),
        query: query.map(Into::into),
        headers: headers
            .iter()
            .map(|(name, value)| Attribute { name: (*name).into(), value: (*value).into() })
            .collect(),
    }
}

/// Returns the uid that a handshake is accepted with; `None` if it is passed on.
fn greeted(settings: &JwtSettings, handshake: &Handshake) -> Result<Option<String>, Denial> {
    crate::greet(settings, handshake, NOW).map(|identity| identity.map(|identity| identity.uid))
}

/// Returns the uid that a packet is accepted with; `None` if it is passed on.
fn sent(settings: &[(&str, &str)], packet: Message) -> Result<Option<String>, Denial> {
    crate::authenticate(&with(settings), &packet, NOW).map(|identity| identity.map(|identity| identity.uid))
}

fn text(packet: impl Into<String>) -> Message {
    Message::Text(packet.into())
}

#[test]
fn a_packet_is_a_token_or_holds_one() {
    let token = genuine(CLAIMS);
    for packet in [
        text(&token),
        text(format!(" {token}\r\n")),
        Message::Binary(token.clone().into_bytes()),
        text(format!(r#"{{"token":"{token}"}}"#)),
        text(format!("{{ \"type\": \"authenticate\", \"token\" : \"{}\" }}", token.replace('.', "\\u002e"))),
        Message::Binary(format!(r#"{{"token":"{token}"}}"#).into_bytes()),
    ] {
        assert_eq!(sent(&[], packet.clone()), Ok(Some("u1".into())), "{packet:?}");
    }
    let other = &[("JWT_FIELD", "access token")];
    assert_eq!(sent(other, text(format!(r#"{{"access token":"{token}"}}"#))), Ok(Some("u1".into())));
    assert_eq!(sent(other, text(format!(r#"{{"token":"{token}"}}"#))), Ok(None));
}

#[test]
fn a_packet_without_a_token_is_passed_on() {
    let quoted = format!("\"{}\"", genuine(CLAIMS));
    for packet in ["", "hi", "{}", "[]", r#"{"id":"u1"}"#, "{\"token\":", "5", "a b.c", "null", &quoted] {
        assert_eq!(sent(&[], text(packet)), Ok(None), "{packet}");
    }
    for packet in ["1.5", "hello.world", "a.b.c.d", "a.b.c.d.e", ".", "..", "a..c", ".b.c", "a.b.", "a.b.c=", "a.b.é"]
    {
        assert_eq!(sent(&[], text(packet)), Ok(None), "{packet}");
    }
    assert_eq!(sent(&[], Message::Binary(vec![0xff])), Ok(None));
    assert_eq!(sent(&[], Message::Binary(Vec::new())), Ok(None));
    assert_eq!(sent(&[], text("[".repeat(1 << 20))), Ok(None));
}

#[test]
fn a_packet_with_a_bad_token_is_denied() {
    for value in ["null", "5", "{}", "[]", r#""\ud800""#] {
        let denial = sent(&[], text(format!(r#"{{"token":{value}}}"#))).unwrap_err();
        assert_eq!(denial, Denial::Malformed("it is not a string"), "{value}");
    }
    for packet in ["a.b.c", "1.2.3", r#"{"token":""}"#, r#"{"token":"a"}"#, r#"{"token":"1.5"}"#] {
        assert!(matches!(sent(&[], text(packet)), Err(Denial::Malformed(_))), "{packet}");
    }
}

#[test]
fn a_client_is_told_that_it_is_in() {
    let reply = |settings: &[_]| match identity(&with(settings), &genuine(CLAIMS)).unwrap().reply {
        Some(Payload::Text(reply)) => Some(reply),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(reply(&[]).as_deref(), Some("Link_successful"));
    assert_eq!(reply(&[("JWT_REPLY", "{\"ok\":true}")]).as_deref(), Some("{\"ok\":true}"));
    assert_eq!(reply(&[("JWT_REPLY", "")]), None);
}

#[test]
fn a_handshake_is_looked_at_only_where_a_setting_says_so() {
    let token = genuine(CLAIMS);
    let bearer = format!("Bearer {token}");
    let cookie = format!("session={token}");
    let query = format!("token={token}");
    let everything = handshake(Some(&query), &[("authorization", &bearer), ("cookie", &cookie)]);
    assert_eq!(greeted(&with(&[]), &everything), Ok(None));
    for setting in [("JWT_HEADER", "Authorization"), ("JWT_QUERY", "token"), ("JWT_COOKIE", "session")] {
        assert_eq!(greeted(&with(&[setting]), &everything), Ok(Some("u1".into())), "{setting:?}");
        assert_eq!(greeted(&with(&[setting]), &handshake(None, &[])), Ok(None), "{setting:?}");
    }
}

#[test]
fn a_header_holds_a_token_after_its_scheme_or_alone() {
    let token = genuine(CLAIMS);
    let greeted = |name: &str, value: &str| {
        greeted(&with(&[("JWT_HEADER", name)]), &handshake(None, &[(&name.to_lowercase(), value)]))
    };
    for scheme in ["Bearer ", "bearer ", "BEARER   "] {
        assert_eq!(greeted("authorization", &format!("{scheme}{token}")), Ok(Some("u1".into())), "{scheme}");
        assert_eq!(greeted("X-Jwt", &format!("{scheme}{token}")), Ok(Some("u1".into())), "{scheme}");
    }
    assert_eq!(greeted("X-Jwt", &token), Ok(Some("u1".into())));
    for value in [token.as_str(), "Basic dTE6cA==", "Bearer", "Bearer ", ""] {
        assert_eq!(greeted("authorization", value), Ok(None), "{value}");
    }
    assert!(matches!(greeted("authorization", "Bearer x"), Err(Denial::Malformed(_))));
}

#[test]
fn a_page_offers_a_token_as_a_subprotocol() {
    let token = genuine(CLAIMS);
    let settings = with(&[("JWT_HEADER", "Sec-WebSocket-Protocol")]);
    let greeted = |values: &[&str]| {
        let headers: Vec<_> = values.iter().map(|value| ("sec-websocket-protocol", *value)).collect();
        greeted(&settings, &handshake(None, &headers))
    };
    for value in ["bearer, {}", "Bearer,{}", "chat.v1, bearer, {}", "bearer, {}, chat.v1", "{}", "chat.v1, {}"] {
        assert_eq!(greeted(&[&value.replace("{}", &token)]), Ok(Some("u1".into())), "{value}");
    }
    assert_eq!(greeted(&["bearer", &token]), Ok(Some("u1".into())));
    for value in ["", "chat.v1", "bearer", "bearer,", "chat, superchat"] {
        assert_eq!(greeted(&[value]), Ok(None), "{value}");
    }
    assert!(matches!(greeted(&["bearer, chat"]), Err(Denial::Malformed(_))));
    let two = format!("bearer, {token}, {}", genuine(r#"{"sub":"u2","exp":2000}"#));
    assert_eq!(greeted(&[&two]), Err(Denial::Malformed("two are given in one place")));
}

#[test]
fn a_cookie_or_parameter_is_found_among_others() {
    let token = genuine(CLAIMS);
    let settings = with(&[("JWT_COOKIE", "s"), ("JWT_QUERY", "t")]);
    for cookies in [
        format!("s={token}"),
        format!("a=b; s={token}; ss=x; xs=y"),
        format!("s=\"{token}\""),
        format!(";;s={token};s={token}"),
        format!("s=; s={token}"),
    ] {
        assert_eq!(greeted(&settings, &handshake(None, &[("cookie", &cookies)])), Ok(Some("u1".into())), "{cookies}");
    }
    for query in [format!("t={token}"), format!("a&tt=x&t={token}&x=t=y"), format!("&&t=&t={token}")] {
        assert_eq!(greeted(&settings, &handshake(Some(&query), &[])), Ok(Some("u1".into())), "{query}");
    }
    for (query, cookies) in [("", ""), ("T=x", "S=x"), ("t", "s"), ("t=", "s="), ("xt=a.b.c", "xs=a.b.c")] {
        assert_eq!(greeted(&settings, &handshake(Some(query), &[("cookie", cookies)])), Ok(None), "{query}");
    }
}

#[test]
fn two_tokens_in_one_place_are_none() {
    let two = Denial::Malformed("two are given in one place");
    let (mine, other) = (genuine(CLAIMS), genuine(r#"{"sub":"u2","exp":2000}"#));
    let settings = with(&[("JWT_COOKIE", "s"), ("JWT_QUERY", "t"), ("JWT_HEADER", "authorization")]);
    let cookies = format!("s={mine}; s={other}");
    assert_eq!(greeted(&settings, &handshake(None, &[("cookie", &cookies)])).unwrap_err(), two);
    let (first, second) = (format!("s={mine}"), format!("s={other}"));
    assert_eq!(greeted(&settings, &handshake(None, &[("cookie", &first), ("cookie", &second)])).unwrap_err(), two);
    let query = format!("t={mine}&t={other}");
    assert_eq!(greeted(&settings, &handshake(Some(&query), &[])).unwrap_err(), two);
    let (first, second) = (format!("Bearer {mine}"), format!("Bearer {other}"));
    let headers = [("authorization", first.as_str()), ("authorization", second.as_str())];
    assert_eq!(greeted(&settings, &handshake(None, &headers)).unwrap_err(), two);
    // With tokens in two places, the place counts that a browser does not fill by itself.
    let query = format!("t={other}");
    let both = handshake(Some(&query), &[("cookie", &format!("s={mine}"))]);
    assert_eq!(greeted(&settings, &both), Ok(Some("u2".into())));
}
