use super::authenticator::Guest;
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The MACs of `u1` for [`CHALLENGE`], made with the secret and with the uid's own key. All MACs in this file were made
/// with Python's hmac module.
const SHARED: &str = "e42603bd4f393d4df0fabad3d08905cd924ac35b74c28f6b3a7f3514b2a34b0b";
const PER_UID: &str = "be02ac7088bb0c28bdfedaa504a17ea713623c3c24bce28b94317391c37a7485";
/// The bytes 0 to 31.
const CHALLENGE: [u8; 32] = {
    let mut challenge = [0; 32];
    let mut byte = 0;
    while byte < 32 {
        challenge[byte as usize] = byte;
        byte += 1;
    }
    challenge
};

fn with(settings: &[(&str, &str)]) -> HmacSettings {
    HmacSettings::new(&[&[("HMAC_SECRET", SECRET)], settings].concat()).unwrap()
}

fn per_uid() -> HmacSettings {
    with(&[("HMAC_KEYS", "per-uid")])
}

fn answer(uid: &str, mac: &str) -> String {
    format!(r#"{{"uid":{uid},"mac":"{mac}"}}"#)
}

/// Returns the verdict on a text packet, in brief: a uid, a code, or `None` for a pass.
fn verdict(settings: &HmacSettings, packet: &str, state: &[u8]) -> Option<Result<String, u16>> {
    match authenticate(settings, &Message::Text(packet.into()), state) {
        Verdict::Accept(identity) => Some(Ok(identity.uid)),
        Verdict::Deny(reason) => {
            assert!(reason.reason.len() <= 123 && !reason.reason.contains(SECRET), "{reason:?}");
            Some(Err(reason.code))
        }
        Verdict::Pass => None,
        Verdict::Challenge(prompt) => panic!("{prompt:?}"),
    }
}

#[test]
fn the_right_answer_is_accepted() {
    let seven = "2fa31d42866096355887d7e414421da8e9cf5e52dfb6117a4670585862196ed7";
    let accented = "9d438a88edc95e454be4664a9094574c4c3dfcce6fe55406aad7d2c1cdc52a82";
    for (uid, mac, expected) in
        [(r#""u1""#, SHARED, "u1"), ("7", seven, "7"), (r#""7""#, seven, "7"), (r#""\u00e9😀""#, accented, "é😀")]
    {
        for mac in [mac, &mac.to_uppercase()] {
            assert_eq!(verdict(&with(&[]), &answer(uid, mac), &CHALLENGE), Some(Ok(expected.into())), "{uid}");
        }
    }
    assert_eq!(verdict(&per_uid(), &answer(r#""u1""#, PER_UID), &CHALLENGE), Some(Ok("u1".into())));
    let binary = Message::Binary(answer(r#""u1""#, SHARED).into_bytes());
    assert!(matches!(authenticate(&with(&[]), &binary, &CHALLENGE), Verdict::Accept(_)));
}

#[test]
fn any_other_answer_is_wrong() {
    let mut other = CHALLENGE;
    other[31] ^= 1;
    assert_eq!(verdict(&with(&[]), &answer(r#""u1""#, SHARED), &other), Some(Err(WRONG)));
    assert_eq!(verdict(&with(&[]), &answer(r#""u2""#, SHARED), &CHALLENGE), Some(Err(WRONG)));
    assert_eq!(verdict(&with(&[]), &answer(r#""U1""#, SHARED), &CHALLENGE), Some(Err(WRONG)));
    assert_eq!(verdict(&with(&[]), &answer(r#""u1""#, PER_UID), &CHALLENGE), Some(Err(WRONG)));
    assert_eq!(verdict(&per_uid(), &answer(r#""u1""#, SHARED), &CHALLENGE), Some(Err(WRONG)));
    for position in [0, 31, 63] {
        let digit = if SHARED.as_bytes()[position] == b'0' { "1" } else { "0" };
        let mac = format!("{}{digit}{}", &SHARED[..position], &SHARED[position + 1..]);
        assert_eq!(verdict(&with(&[]), &answer(r#""u1""#, &mac), &CHALLENGE), Some(Err(WRONG)), "{mac}");
    }
    assert_eq!(verdict(&with(&[]), &answer(r#""u1""#, &"0".repeat(64)), &CHALLENGE), Some(Err(WRONG)));
}

/// A MAC covers its purpose: the key of a uid is a MAC, too, but no answer.
#[test]
fn the_key_of_a_uid_is_no_answer() {
    let key = "973831f5e0093f484d833502cddb45e2fdc9ceda41eef14fe8b244899286d78d";
    for settings in [with(&[]), per_uid()] {
        assert_eq!(verdict(&settings, &answer(r#""u1""#, key), &CHALLENGE), Some(Err(WRONG)));
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_denied_in_words() {
    let no_digits = "`mac` is not a string of 64 hexadecimal digits";
    for (packet, expected) in [
        (format!(r#"{{"mac":"{SHARED}"}}"#), "`uid` is missing"),
        (answer(r#""""#, SHARED), "`uid` is empty"),
        (answer("null", SHARED), "`uid` is null, not a string or an integer"),
        (answer(&format!(r#""{}""#, "u".repeat(257)), SHARED), "`uid` is longer than 256 bytes"),
        (answer(r#""u1""#, ""), no_digits),
        (answer(r#""u1""#, &SHARED[1..]), no_digits),
        (answer(r#""u1""#, &format!("{SHARED}0")), no_digits),
        (answer(r#""u1""#, &SHARED.replace('e', "g")), no_digits),
        (answer(r#""u1""#, &"é".repeat(32)), no_digits),
        (answer(r#""u1""#, &"+1".repeat(32)), no_digits),
        (r#"{"uid":"u1","mac":null}"#.into(), no_digits),
        (r#"{"uid":"u1","mac":5}"#.into(), no_digits),
        (r#"{"uid":"u1","mac":[]}"#.into(), no_digits),
    ] {
        let verdict = authenticate(&with(&[]), &Message::Text(packet.clone()), &CHALLENGE);
        let Verdict::Deny(CloseReason { code: UNREADABLE, reason }) = verdict else { panic!("{packet} {verdict:?}") };
        assert_eq!(reason, expected, "{packet}");
    }
}

#[test]
fn a_packet_about_something_else_is_passed_on() {
    for packet in ["", "hi", "[]", "{", "{}", r#"{"uid":"u1"}"#, r#"{"token":"a.b.c"}"#, &"[".repeat(1 << 20)] {
        assert_eq!(verdict(&with(&[]), packet, &CHALLENGE), None);
    }
    assert!(matches!(authenticate(&with(&[]), &Message::Binary(vec![0xff]), &CHALLENGE), Verdict::Pass));
}

#[test]
fn without_a_challenge_nothing_is_proved() {
    for state in [&[][..], &[0], &CHALLENGE[..31], &[0; 33]] {
        assert_eq!(verdict(&with(&[]), &answer(r#""u1""#, SHARED), state), None, "{state:?}");
    }
}

#[test]
fn each_connection_has_a_challenge_of_its_own() {
    let greet = || {
        let handshake = Handshake {
            connection: 1,
            remote_address: "192.0.2.1:50000".into(),
            path: "/".into(),
            query: None,
            headers: Vec::new(),
        };
        let verdict = HmacAuth::greet(handshake);
        let Verdict::Challenge(Prompt { message: Some(Payload::Text(message)), state }) = verdict else {
            panic!("{verdict:?}");
        };
        (message, state)
    };
    let (message, state) = greet();
    let digits = message.strip_prefix(r#"{"challenge":""#).and_then(|rest| rest.strip_suffix(r#""}"#));
    assert_eq!(digits.and_then(mac::unhex).map(|challenge| challenge.to_vec()), Some(state.clone()));
    assert_ne!(greet().1, state);
}

#[test]
fn a_client_is_told_that_it_is_in() {
    let reply =
        |settings: &HmacSettings| match authenticate(settings, &Message::Text(answer(r#""u1""#, SHARED)), &CHALLENGE) {
            Verdict::Accept(Identity { reply: Some(Payload::Text(reply)), attributes, expires_at: None, .. }) => {
                assert!(attributes.is_empty());
                Some(reply)
            }
            Verdict::Accept(Identity { reply: None, .. }) => None,
            verdict => panic!("{verdict:?}"),
        };
    assert_eq!(reply(&with(&[])).as_deref(), Some("Link_successful"));
    assert_eq!(reply(&with(&[("HMAC_REPLY", "welcome")])).as_deref(), Some("welcome"));
    assert_eq!(reply(&with(&[("HMAC_REPLY", "")])), None);
}

#[test]
fn settings_are_checked_in_words() {
    for (settings, expected) in [
        (&[][..], "HMAC_SECRET is missing: set it to a random text"),
        (&[("HMAC_SECRET", "")], "HMAC_SECRET is empty: leave it out, or give it a value"),
        (&[("HMAC_SECRET", &SECRET[1..])], "HMAC_SECRET is too short: it must have at least 32 bytes"),
        (&[("HMAC_SECRET", SECRET), ("HMAC_KEYS", "each")], "HMAC_KEYS must be \"shared\" or \"per-uid\""),
        (
            &[("SECRET", SECRET)],
            "SECRET is not a setting of this plugin; its settings are HMAC_SECRET, HMAC_KEYS, HMAC_REPLY",
        ),
    ] {
        assert_eq!(HmacSettings::new(settings).err().as_deref(), Some(expected));
    }
}
