//! Tokens that others have published: RFC 7515 A.1 (which is RFC 7519 §3.1), A.2 and A.3, and RFC 8037 A.4.

use super::*;

pub(super) const HS256: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
    .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
    .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const RS256: &str = "eyJhbGciOiJSUzI1NiJ9\
    .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
    .cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t\
    1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDw\
    usC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
pub(super) const ES256: &str = "eyJhbGciOiJFUzI1NiJ9\
    .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
    .DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
/// Its payload is not an object, but the text `Example of Ed25519 signing`.
pub(super) const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc\
    .hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

const OCT: &str =
    r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
const RSA: &str = r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// The same public keys in PEM.
pub(super) const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";
pub(super) const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";
pub(super) const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

/// The tokens with claims name only their issuer.
const WHOSE: (&str, &str) = ("JWT_UID_CLAIM", "iss");
/// One second before they expire.
const THEN: u64 = 1_300_819_379;
/// The denial of the other token. Its payload is read only after its signature was found to be good.
const SIGNED_BUT_NO_CLAIMS: Denial = Denial::Malformed("its claims are not a JSON object");

pub(super) fn keys() -> String {
    format!("{{\"keys\":[{}]}}", keys_of_the_rfcs().join(","))
}

pub(super) fn keys_of_the_rfcs() -> [&'static str; 4] {
    [OCT, RSA, P256, ED25519]
}

fn judged(key: (&str, &str), token: &str) -> Result<String, Denial> {
    let settings = JwtSettings::new(&[key, WHOSE, ("JWT_LEEWAY", "0")]).unwrap();
    assert_eq!(settings.keys.check(), Ok(()));
    crate::identity(&settings, token, THEN).map(|identity| identity.uid)
}

#[test]
fn each_is_good_with_its_key() {
    for (jwk, token) in [(OCT, HS256), (RSA, RS256), (P256, ES256)] {
        assert_eq!(judged(("JWT_KEYS", jwk), token).as_deref(), Ok("joe"), "{jwk}");
        assert_eq!(judged(("JWT_KEYS", &keys()), token).as_deref(), Ok("joe"), "{jwk}");
    }
    for (pem, token) in [(RSA_PEM, RS256), (P256_PEM, ES256)] {
        assert_eq!(judged(("JWT_PUBLIC_KEY", pem), token).as_deref(), Ok("joe"), "{pem}");
        let windows = pem.replace('\n', "\r\n");
        assert_eq!(judged(("JWT_PUBLIC_KEY", &windows), token).as_deref(), Ok("joe"), "{pem}");
    }
    for key in [("JWT_KEYS", ED25519), ("JWT_KEYS", &keys()), ("JWT_PUBLIC_KEY", ED25519_PEM)] {
        assert_eq!(judged(key, EDDSA).as_ref(), Err(&SIGNED_BUT_NO_CLAIMS), "{key:?}");
    }
}

#[test]
fn none_is_good_with_the_key_of_another() {
    let no_key = Denial::NotTrusted("no key of its name and algorithm is known");
    let all = [(OCT, HS256), (RSA, RS256), (P256, ES256), (ED25519, EDDSA)];
    for (jwk, own) in all {
        for (_, token) in all.iter().filter(|(_, token)| *token != own) {
            assert_eq!(judged(("JWT_KEYS", jwk), token).as_ref(), Err(&no_key), "{jwk} {token}");
        }
    }
}

#[test]
fn none_is_good_after_it_has_expired() {
    for token in [HS256, RS256, ES256] {
        let settings = JwtSettings::new(&[("JWT_KEYS", &keys()), WHOSE]).unwrap();
        let expires_at = crate::identity(&settings, token, THEN).map(|identity| identity.expires_at);
        assert_eq!(expires_at, Ok(Some(1_300_819_440)));
        assert!(crate::identity(&settings, token, 1_300_819_439).is_ok());
        assert_eq!(crate::identity(&settings, token, 1_300_819_440).unwrap_err(), Denial::Expired);
    }
}

/// Every bit counts: a token that differs anywhere is not the one that was signed.
#[test]
fn none_is_good_with_a_bit_of_it_changed() {
    for token in [HS256, RS256, ES256, EDDSA] {
        let parts: Vec<&str> = token.split('.').collect();
        // The first, a middle and the last byte of the signature; then a byte of the payload.
        let mut signature = BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        for index in [0, signature.len() / 2, signature.len() - 1] {
            signature[index] ^= 1;
            let changed = format!("{}.{}.{}", parts[0], parts[1], base64url(&signature));
            assert!(matches!(judged(("JWT_KEYS", &keys()), &changed), Err(Denial::NotTrusted(_))), "{changed}");
            signature[index] ^= 1;
        }
        let mut payload = BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        payload[9] ^= 1;
        let changed = format!("{}.{}.{}", parts[0], base64url(payload), parts[2]);
        assert!(matches!(judged(("JWT_KEYS", &keys()), &changed), Err(Denial::NotTrusted(_))), "{changed}");
    }
}
