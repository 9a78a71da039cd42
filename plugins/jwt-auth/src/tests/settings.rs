use super::vectors::{ED25519_PEM, P256_PEM, RSA_PEM, keys, keys_of_the_rfcs};
use super::*;

/// Returns why these settings are refused, when they are read or when they are checked.
#[track_caller]
fn refused(settings: &[(&str, &str)]) -> String {
    match JwtSettings::new(settings) {
        Err(refusal) => refusal,
        Ok(read) => read.keys.check().expect_err("they are accepted"),
    }
}

#[test]
fn a_key_is_needed() {
    assert!(refused(&[]).starts_with("there is no key: set JWT_KEYS, JWT_SECRET or JWT_PUBLIC_KEY"));
    for name in ["JWT_KEYS", "JWT_SECRET", "JWT_PUBLIC_KEY"] {
        assert_eq!(refused(&[(name, "")]), format!("{name} is empty: leave it out, or give it a value"));
    }
}

/// The refusal names the key and the reason.
#[test]
fn a_key_that_is_of_no_use_is_named() {
    let short = base64url([255; 31]);
    for (key, expected) in [
        (r#"{"kty":"RSA","use":"enc","n":"AQ","e":"AQ"}"#.to_owned(), "key 1 is not for signatures (use)"),
        (r#"{"kty":"RSA","alg":"RS512","kid":"a"}"#.into(), "key \"a\" is for another algorithm (alg) than HS256, "),
        (r#"{"kty":"EC","crv":"P-384"}"#.into(), "key 1 is of another kind (kty, crv) than RSA, "),
        (r#"{"kty":"OKP","crv":"X25519"}"#.into(), "key 1 is of another kind (kty, crv) than RSA, "),
        (r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"x"}"#.into(), "key 1 is of another kind (kty, crv) than RSA, "),
        (r#"{"kty":"oct","key_ops":["sign"]}"#.into(), "key 1 is not for checking signatures (key_ops)"),
    ] {
        let expected = format!("JWT_KEYS holds no key that can check tokens here: {expected}");
        for set in [key.clone(), format!(r#"{{"keys":[{key}]}}"#)] {
            let refused = refused(&[("JWT_KEYS", &set)]);
            assert!(refused.starts_with(&expected), "{set} {refused}");
        }
    }
    for (entries, expected) in [
        ("".to_owned(), "it is empty"),
        ("5".into(), "key 1 is no JSON Web Key"),
        (r#"{},{"kid":"x"}"#.into(), "key 1 is no JSON Web Key; key 2 is no JSON Web Key"),
        (
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{short}","y":"{short}","kid":"a"}}"#),
            "key \"a\" has an `x` that is not 32 bytes long",
        ),
        (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{short}"}}"#), "key 1 has an `x` that is not 32 bytes long"),
        (format!(r#"{{"kty":"oct","k":"{short}"}}"#), "key 1 has a secret of under 32 bytes"),
        (r#"{"kty":"RSA","n":"AQ","e":"AQAB"}"#.into(), "key 1 is an RSA key of under 2048 or over 4096 bits"),
    ] {
        let refused = refused(&[("JWT_KEYS", &format!(r#"{{"keys":[{entries}]}}"#))]);
        let expected = format!("JWT_KEYS holds no key that can check tokens here: {expected}");
        assert_eq!(refused, expected, "{entries}");
    }
}

/// Some programs write keys with every member that there is.
#[test]
fn a_member_that_says_nothing_is_absent() {
    for key in keys_of_the_rfcs() {
        let rest = r#","d":null,"priv":null,"use":null,"alg":null,"key_ops":[],"kid":null}"#;
        let key = key.replacen('}', rest, 1);
        for set in [key.clone(), format!(r#"{{"keys":[{key}]}}"#)] {
            let read = JwtSettings::new(&[("JWT_KEYS", &set)]).unwrap();
            assert_eq!(read.keys.check(), Ok(()), "{set}");
        }
    }
    let lone = keys_of_the_rfcs()[0].replacen('{', r#"{"keys":null,"#, 1);
    assert!(JwtSettings::new(&[("JWT_KEYS", &lone)]).is_ok());
}

#[test]
fn a_secret_is_long_enough() {
    let refused = refused(&[("JWT_SECRET", "your-256-bit-secret")]);
    assert_eq!(refused, "JWT_SECRET is too short: it must have at least 32 bytes");
    assert_eq!(with(&[]).keys.check(), Ok(()));
}

#[test]
fn a_public_key_is_one() {
    let broken = RSA_PEM.replace("MIIB", "MIIC");
    let ec384 = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE\n-----END PUBLIC KEY-----\n";
    let pkcs1 = RSA_PEM.replace("PUBLIC KEY", "RSA PUBLIC KEY");
    for pem in
        ["x", "-----BEGIN PUBLIC KEY-----", &broken, ec384, &pkcs1, &RSA_PEM[..200], &RSA_PEM.replace('\n', "\\n")]
    {
        let refused = refused(&[("JWT_PUBLIC_KEY", pem)]);
        assert!(refused.starts_with("JWT_PUBLIC_KEY must be an RSA, P-256 or Ed25519 key in PEM"), "{pem} {refused}");
    }
    let two = refused(&[("JWT_PUBLIC_KEY", &RSA_PEM.repeat(2))]);
    assert!(two.ends_with("the text between is not base64"), "{two}");
    let private = refused(&[("JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")]);
    assert!(private.starts_with("JWT_PUBLIC_KEY is a private key"));
    let certificate = refused(&[("JWT_PUBLIC_KEY", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")]);
    assert!(certificate.starts_with("JWT_PUBLIC_KEY is a certificate"));
}

#[test]
fn a_public_key_may_be_cut_into_any_lines() {
    for pem in [RSA_PEM, P256_PEM, ED25519_PEM] {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for (width, end) in [(64, "\n"), (64, "\r\n"), (70, "\n"), (76, "\n"), (500, "\n"), (500, " "), (3, "  \n\n")] {
            let lines: Vec<_> = base64.as_bytes().chunks(width).map(|line| str::from_utf8(line).unwrap()).collect();
            let lines = lines.join(end);
            let pem = format!("-----BEGIN PUBLIC KEY-----{end}{lines}{end}-----END PUBLIC KEY-----{end}");
            let settings = JwtSettings::new(&[("JWT_PUBLIC_KEY", &pem)]).unwrap();
            assert_eq!(settings.keys.check(), Ok(()), "{pem}");
        }
    }
}

#[test]
fn the_keys_of_a_set_are_what_they_say() {
    for set in ["", "x", "[]", "{}", r#"{"keys":{}}"#, r#"{"kid":"a"}"#, r#"{"kty":5}"#] {
        let refused = refused(&[("JWT_KEYS", set)]);
        assert!(refused.starts_with("JWT_KEYS "), "{set} {refused}");
    }
    let zero = base64url([0; 32]);
    let (short, long) = (base64url([255; 128]), base64url([255; 513]));
    for (key, expected) in [
        (r#"{"kty":"oct"}"#.into(), "JWT_KEYS: key 1 has no `k`"),
        (r#"{"kty":"oct","kid":"a","k":"AA"}"#.into(), "JWT_KEYS: key \"a\" has a secret of under 32 bytes"),
        (r#"{"kty":"oct","kid":"a","k":"A="}"#.into(), "JWT_KEYS: key \"a\" has an `k` that is not base64url"),
        (r#"{"kty":"RSA","n":"AQ"}"#.into(), "JWT_KEYS: key 1 has no `e`"),
        (r#"{"kty":"RSA","n":"","e":""}"#.into(), "JWT_KEYS: key 1 is no RSA key that can be used"),
        (r#"{"kty":"RSA","n":"AQ","e":"AQAB"}"#.into(), "JWT_KEYS: key 1 is no RSA key that can be used"),
        (format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#), "JWT_KEYS: key 1 is an RSA key of under 2048"),
        (format!(r#"{{"kty":"RSA","n":"{long}","e":"AQAB"}}"#), "JWT_KEYS: key 1 is an RSA key of under 2048 or"),
        (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into(), "JWT_KEYS: key 1 has an `x` that"),
        (format!(r#"{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"}}"#), "JWT_KEYS: key 1 is no point"),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.into(), "JWT_KEYS: key 1 has an `x` that is not 32"),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}"#.into(), "JWT_KEYS: key 1 holds a private key"),
    ] {
        let refused = refused(&[("JWT_KEYS", &key)]);
        assert!(refused.starts_with(expected), "{key} {refused}");
    }
    let no_point = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"}}]}}"#);
    assert_eq!(refused(&[("JWT_KEYS", &no_point)]), "JWT_KEYS: key 1 is no point of its curve");
    let one = format!(r#"{{"kty":"oct","k":"{zero}"}}"#);
    let nothing = refused(&[("JWT_KEYS", r#"{"keys":[{"kty":"new"}]}"#), ("JWT_SECRET", SECRET)]);
    assert!(nothing.starts_with("JWT_KEYS holds no key that can check tokens here: key 1 is of"), "{nothing}");
    let private = r#"{"kty":"RSA","use":"enc","kid":5,"d":"AA"}"#;
    let private = refused(&[("JWT_KEYS", &format!(r#"{{"keys":[{private}]}}"#)), ("JWT_SECRET", SECRET)]);
    assert_eq!(private, "JWT_KEYS holds a private key: give only its public part");
    let many = refused(&[("JWT_KEYS", &format!(r#"{{"keys":[{one}{}]}}"#, format!(",{one}").repeat(16)))]);
    assert_eq!(many, "JWT_KEYS may hold up to 16 keys that can check tokens");
}

#[test]
fn a_token_is_tried_with_few_keys() {
    let key = |name: &str| format!(r#"{{"kty":"oct"{name},"k":"{}"}}"#, base64url([7; 32]));
    let set = |keys: &[String]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let check = |settings: &[(&str, &str)]| JwtSettings::new(settings).unwrap().keys.check();
    let refusal = "JWT_KEYS: a token would have to be tried with more than 4 keys of its algorithm";
    let nameless = vec![key(""); 4];
    assert_eq!(check(&[("JWT_KEYS", &set(&nameless))]), Ok(()));
    assert!(refused(&[("JWT_KEYS", &set(&vec![key(""); 5]))]).starts_with(refusal));
    assert!(refused(&[("JWT_KEYS", &set(&nameless)), ("JWT_SECRET", SECRET)]).starts_with(refusal));
    assert!(refused(&[("JWT_KEYS", &set(&vec![key(r#","kid":"a""#); 5]))]).starts_with(refusal));
    // Keys of another algorithm, or with different names, are not tried with the same token.
    assert_eq!(check(&[("JWT_KEYS", &set(&nameless)), ("JWT_PUBLIC_KEY", RSA_PEM)]), Ok(()));
    let named: Vec<_> = (0..16).map(|kid| key(&format!(r#","kid":"{kid}""#))).collect();
    assert_eq!(check(&[("JWT_KEYS", &set(&named))]), Ok(()));
}

/// Issuers publish sets with keys that are of no use here, and with members that are not read.
#[test]
fn keys_of_no_use_are_passed_over() {
    let set = keys().replacen(
        '[',
        r#"[{"kty":"RSA","use":"enc","alg":"RSA-OAEP","n":"AQ","e":"AQ"},{"kty":"EC","crv":"P-521","x":"AA"},"#,
        1,
    );
    // And some that are of no use to anybody, or of no use here.
    let (short, long) = (base64url([255; 128]), base64url([255; 513]));
    let bad = format!(
        r#"[5,null,{{}},{{"kid":"a"}},{{"kty":5}},{{"kty":"new","kid":["x"]}},{{"kty":"RSA","n":"{short}","e":"AQAB"}},
        {{"kty":"RSA","n":"{long}","e":"AQAB"}},{{"kty":"RSA"}},{{"kty":"EC","crv":"P-256","x":"AA"}},"#
    );
    let set = set.replacen('[', &bad, 1);
    let set = set.replacen("\"kty\":\"RSA\",\"e\"", r#""kty":"RSA","use":"sig","x5c":["MII"],"x5t":"a","e""#, 1);
    let settings = JwtSettings::new(&[("JWT_KEYS", &set), ("JWT_UID_CLAIM", "iss")]).unwrap();
    assert_eq!(settings.keys.check(), Ok(()));
    assert!(crate::identity(&settings, vectors::RS256, 1_300_000_000).is_ok());
}

#[test]
fn other_settings_are_checked_in_words() {
    for (setting, expected) in [
        (
            ("JWT_AUDIANCE", "x"),
            "JWT_AUDIANCE is not a setting of this plugin; its settings are JWT_KEYS, JWT_PUBLIC_KEY, ",
        ),
        (("JWT_LEEWAY", "601"), "JWT_LEEWAY must be a whole number from 0 to 600"),
        (("JWT_EXPIRY", "never"), "JWT_EXPIRY must be \"required\" or \"optional\""),
        (("JWT_ISSUER", ""), "JWT_ISSUER is a list with an empty item"),
        (("JWT_AUDIENCE", "a,"), "JWT_AUDIENCE is a list with an empty item"),
        (("JWT_UID_CLAIM", ""), "JWT_UID_CLAIM is empty"),
        (("JWT_ATTRIBUTES", "a,=b"), "JWT_ATTRIBUTES must be a list of claims, or of attribute=claim"),
        (("JWT_ATTRIBUTES", "a="), "JWT_ATTRIBUTES must be a list of claims, or of attribute=claim"),
        (("JWT_FIELD", ""), "JWT_FIELD is empty"),
        (("JWT_HEADER", "x y"), "JWT_HEADER must be a name of letters, digits"),
        (("JWT_QUERY", "a&b"), "JWT_QUERY must be a name of letters, digits"),
        (("JWT_COOKIE", "a=b"), "JWT_COOKIE must be a name of letters, digits"),
    ] {
        let refused = refused(&[("JWT_SECRET", SECRET), setting]);
        assert!(refused.starts_with(expected), "{setting:?} {refused}");
    }
}
