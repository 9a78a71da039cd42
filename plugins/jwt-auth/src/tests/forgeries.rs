//! Attacks by people who have no key.

use super::vectors::{ES256, P256_PEM, RS256, RSA_PEM, keys};
use super::*;

#[test]
fn an_unsigned_token_is_denied() {
    let not_accepted = "4002 the token is not trusted: its algorithm is not among those accepted";
    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "RS1", "PS256", "RS512", "ES384", "HMAC"]
    {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        let unsigned = format!("{}.{}.", base64url(&header), base64url(CLAIMS));
        assert_eq!(denied(&with(&[]), &unsigned), not_accepted, "{alg}");
        assert_eq!(denied(&with(&[]), &signed(&header, CLAIMS, SECRET)), not_accepted, "{alg}");
    }
    let empty = format!("{}.{}.", base64url(r#"{"alg":"HS256"}"#), base64url(CLAIMS));
    assert_eq!(denied(&with(&[]), &empty), WRONG_SIGNATURE);
}

#[test]
fn a_public_key_is_no_secret() {
    for pem in [RSA_PEM, P256_PEM] {
        let settings = JwtSettings::new(&[("JWT_PUBLIC_KEY", pem)]).unwrap();
        for secret in [pem.to_owned(), pem.trim().to_owned(), pem.replace('\n', ""), String::new()] {
            assert_eq!(denied(&settings, &signed(r#"{"alg":"HS256"}"#, CLAIMS, &secret)), NO_KEY);
        }
    }
    // Not even if there is a secret, too.
    let both = with(&[("JWT_PUBLIC_KEY", RSA_PEM)]);
    assert_eq!(denied(&both, &signed(r#"{"alg":"HS256"}"#, CLAIMS, RSA_PEM)), WRONG_SIGNATURE);
}

#[test]
fn a_header_chooses_no_algorithm_that_its_key_is_not_for() {
    let set = format!(r#"{{"keys":[{{"kty":"oct","alg":"HS256","k":"{}"}}]}}"#, base64url([7; 64]));
    let settings = JwtSettings::new(&[("JWT_KEYS", &set)]).unwrap();
    let secret = str::from_utf8(&[7; 64]).unwrap();
    assert!(identity(&settings, &signed(r#"{"alg":"HS256"}"#, CLAIMS, secret)).is_ok());
    assert_eq!(denied(&settings, &signed_512(CLAIMS, secret)), NO_KEY);
    assert_eq!(denied(&settings, &signed(r#"{"alg":"RS256"}"#, CLAIMS, secret)), NO_KEY);
}

#[test]
fn a_secret_is_only_for_hashes_no_longer_than_itself() {
    let secret = "s".repeat(64);
    let of = |length: usize| JwtSettings::new(&[("JWT_SECRET", &secret[..length])]).unwrap();
    assert!(identity(&of(48), &signed_384(CLAIMS, &secret[..48])).is_ok());
    assert!(identity(&of(64), &signed_512(CLAIMS, &secret)).is_ok());
    assert_eq!(denied(&of(47), &signed_384(CLAIMS, &secret[..47])), NO_KEY);
    assert_eq!(denied(&of(63), &signed_512(CLAIMS, &secret[..63])), NO_KEY);
}

#[test]
fn another_key_does_not_do() {
    assert_eq!(denied(&with(&[]), &signed(r#"{"alg":"HS256"}"#, CLAIMS, "another secret")), WRONG_SIGNATURE);
    assert_eq!(denied(&with(&[]), &signed(r#"{"alg":"HS256"}"#, CLAIMS, "")), WRONG_SIGNATURE);
}

/// RFC 7515 A.2 and A.3 with signatures that broken checks have accepted.
#[test]
fn signatures_of_special_values_are_wrong() {
    let settings = JwtSettings::new(&[("JWT_KEYS", &keys())]).unwrap();
    let order = p256_order();
    let one = [[0; 31].as_slice(), &[1]].concat();
    let zero = [0; 32].as_slice();
    let (es256, own) = ES256.rsplit_once('.').unwrap();
    let own = BASE64_URL_SAFE_NO_PAD.decode(own).unwrap();
    for signature in [
        &[][..],
        &[0; 64],
        &[zero, &one].concat(),
        &[&one[..], zero].concat(),
        &[&order[..], &order].concat(),
        &[&order[..], &one].concat(),
        &[255; 64],
        &[0; 63],
        &own[..63],
        &[&own[..], &[0]].concat(),
        &[&[0], &own[..]].concat(),
        // As DER, the form of ECDSA signatures elsewhere.
        &[&[0x30, 0x44, 2, 32], &own[..32], &[2, 32], &own[32..]].concat(),
    ] {
        assert_eq!(denied(&settings, &format!("{es256}.{}", base64url(signature))), WRONG_SIGNATURE, "{signature:?}");
    }
    let (rs256, own) = RS256.rsplit_once('.').unwrap();
    let own = BASE64_URL_SAFE_NO_PAD.decode(own).unwrap();
    for signature in [
        &[][..],
        &[0],
        &[1],
        &[0; 256],
        &[255; 256],
        &[0; 4096],
        &own[..255],
        &own[1..],
        &[&own[..], &[0]].concat(),
        &[&[0], &own[..]].concat(),
    ] {
        assert_eq!(denied(&settings, &format!("{rs256}.{}", base64url(signature))), WRONG_SIGNATURE, "{signature:?}");
    }
    let ed25519 = format!("{}.{}", base64url(r#"{"alg":"Ed25519"}"#), base64url(CLAIMS));
    for signature in [&[][..], &[0; 64], &[&one[..], zero].concat(), &[255; 64], &[0; 65]] {
        assert_eq!(denied(&settings, &format!("{ed25519}.{}", base64url(signature))), WRONG_SIGNATURE, "{signature:?}");
    }
}

/// The number of points of P-256 (FIPS 186-4, D.1.2.3): a signature's numbers are below it.
fn p256_order() -> [u8; 32] {
    let digits = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    std::array::from_fn(|index| u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap())
}

#[test]
fn a_token_is_checked_with_the_key_it_names() {
    let key = |kid: &str, byte: u8| format!(r#"{{"kty":"oct","kid":"{kid}","k":"{}"}}"#, base64url([byte; 32]));
    let set = format!(r#"{{"keys":[{},{}]}}"#, key("old", 1), key("new", 2));
    let settings = JwtSettings::new(&[("JWT_KEYS", &set)]).unwrap();
    let token = |kid: &str, byte: u8| signed(&format!(r#"{{"alg":"HS256"{kid}}}"#), CLAIMS, [byte; 32]);
    for (kid, byte) in [(r#","kid":"old""#, 1), (r#","kid":"new""#, 2), (r#","kid":"n\u0065w""#, 2)] {
        assert!(identity(&settings, &token(kid, byte)).is_ok(), "{kid}");
    }
    assert_eq!(denied(&settings, &token(r#","kid":"new""#, 1)), WRONG_SIGNATURE);
    assert_eq!(denied(&settings, &token("", 2)), NOT_SAID_WHICH);
    for kid in ["other", "", "NEW", "../../dev/null", "new' OR '1'='1"] {
        assert_eq!(denied(&settings, &token(&format!(r#","kid":"{kid}""#), 2)), NO_KEY, "{kid}");
    }
    for kid in ["null", "1", "[\"new\"]", "{}"] {
        let reason = denied(&settings, &token(&format!(r#","kid":{kid}"#), 2));
        assert_eq!(reason, "4001 the token cannot be read: the name of its key is not a string", "{kid}");
    }
    // A key without a name is tried with every token: the signature decides.
    assert!(identity(&with(&[]), &signed(r#"{"alg":"HS256","kid":"x"}"#, CLAIMS, SECRET)).is_ok());
}

#[test]
fn a_token_that_names_no_key_is_checked_with_the_only_one_and_those_without_a_name() {
    let key = |name: &str, byte: u8| format!(r#"{{"kty":"oct"{name},"k":"{}"}}"#, base64url([byte; 32]));
    let of =
        |keys: &[String]| JwtSettings::new(&[("JWT_KEYS", &format!(r#"{{"keys":[{}]}}"#, keys.join(",")))]).unwrap();
    let token = |byte: u8| signed(r#"{"alg":"HS256"}"#, CLAIMS, [byte; 32]);
    let (named, other, nameless) = (key(r#","kid":"a""#, 1), key(r#","kid":"b""#, 2), key("", 3));
    let others = [key(r#","kid":"c","alg":"HS512""#, 4), r#"{"kty":"oct","kid":"d","k":"AA"}"#.to_owned()];
    assert!(identity(&of(&[&others[..], std::slice::from_ref(&named)].concat()), &token(1)).is_ok());
    assert_eq!(denied(&of(&[named.clone(), other]), &token(1)), NOT_SAID_WHICH);
    let both = of(&[named.clone(), nameless]);
    assert!(identity(&both, &token(3)).is_ok());
    assert_eq!(denied(&both, &token(1)), WRONG_SIGNATURE);
    let set = format!(r#"{{"keys":[{named}]}}"#);
    assert_eq!(denied(&with(&[("JWT_KEYS", &set)]), &token(1)), WRONG_SIGNATURE);
    assert!(identity(&with(&[("JWT_KEYS", &set)]), &genuine(CLAIMS)).is_ok());
}

#[test]
fn a_key_in_the_token_is_no_key() {
    let header = format!(
        r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{}"}},"jku":"https://example.com/keys","x5u":"https://example.com/"}}"#,
        base64url("mine mine mine mine mine mine mine mine")
    );
    let token = signed(&header, CLAIMS, "mine mine mine mine mine mine mine mine");
    assert_eq!(denied(&with(&[]), &token), WRONG_SIGNATURE);
}

#[test]
fn extensions_are_refused() {
    for header in [r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","crit":[]}"#] {
        let reason = denied(&with(&[]), &signed(header, CLAIMS, SECRET));
        assert_eq!(reason, "4002 the token is not trusted: it demands extensions");
    }
}

#[test]
fn what_is_not_three_parts_of_base64url_is_no_token() {
    let settings = with(&[]);
    let token = genuine(CLAIMS);
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{token}") };
    for broken in [
        "",
        ".",
        header,
        &format!("{header}.{claims}"),
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}.{signature}"),
        &format!("{header}.{claims}.{signature}.{signature}.{signature}"),
    ] {
        assert_eq!(denied(&settings, broken), NOT_THREE_PARTS, "{broken}");
    }
    for broken in [
        &format!("{header}=.{claims}.{signature}"),
        &format!("{header}.{claims}.{signature}="),
        &format!("{header}.{claims}.{signature} "),
        &format!(" {header}.{claims}.{signature}"),
        &format!("{header}.{claims}.{}", signature.replace(['-', '_'], "+")),
        &format!("{header}.{claims}.{signature}A"),
        &format!("{header}.{claims}.é"),
        &format!("{header}.{claims}.\0"),
    ] {
        // If the part is valid base64url by chance, it is a wrong signature.
        let reason = denied(&settings, broken);
        assert!([NOT_BASE64, WRONG_SIGNATURE].contains(&reason.as_str()), "{broken} {reason}");
    }
    // Two bits of the last character of 32 bytes are unused: they must be zero.
    let last = signature.chars().last().unwrap();
    let twin = char::from(u8::try_from(last).unwrap() + 1);
    assert_eq!(denied(&settings, &format!("{header}.{claims}.{}{twin}", &signature[..42])), NOT_BASE64);
    assert_eq!(denied(&settings, &format!("{header}.{claims}.{}", &signature[..40])), WRONG_SIGNATURE);
    for (header, expected) in [
        ("", "its header is not a JSON object"),
        ("[]", "its header is not a JSON object"),
        ("null", "its header is not a JSON object"),
        (r#"{"alg":"HS256","alg":"HS256"}"#, "its header is not a JSON object"),
        (r#"{"alg":"none","alg":"HS256"}"#, "its header is not a JSON object"),
        (r#"{"alg":"HS256"} x"#, "its header is not a JSON object"),
        ("{}", "its header names no algorithm"),
        (r#"{"alg":null}"#, "its header names no algorithm"),
        (r#"{"alg":["HS256"]}"#, "its header names no algorithm"),
        (r#"{"alg":"\ud800"}"#, "its header names no algorithm"),
    ] {
        let reason = denied(&settings, &signed(header, CLAIMS, SECRET));
        assert_eq!(reason, format!("4001 the token cannot be read: {expected}"), "{header}");
    }
}

#[test]
fn a_token_of_any_size_costs_little() {
    let settings = with(&[]);
    let too_long = "4001 the token cannot be read: it is over 16 KiB long";
    let padded = |bytes: usize| genuine(format!(r#"{{"sub":"u1","exp":2000,"x":"{}"}}"#, "x".repeat(bytes)));
    let room = (16 * 1024 - padded(0).len()) / 4 * 3;
    assert!(identity(&settings, &padded(room - 3)).is_ok());
    assert_eq!(denied(&settings, &padded(room + 3)), too_long);
    assert_eq!(denied(&settings, &".".repeat(1 << 20)), too_long);
    // 4,000 levels in a genuine token, and 4,000 levels in a header that anybody can write.
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    assert!(identity(&settings, &genuine(format!(r#"{{"sub":"u1","exp":2000,"x":{deep}}}"#))).is_ok());
    assert_eq!(denied(&settings, &signed(&format!(r#"{{"alg":"HS256","x":{deep}}}"#), CLAIMS, "x")), WRONG_SIGNATURE);
    assert!(denied(&settings, &signed(&"[".repeat(9000), CLAIMS, "x")).starts_with("4001 "));
}
