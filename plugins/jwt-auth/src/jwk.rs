use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::FromSec1Point;
use rsa::BoxedUint;

use crate::algorithm::{Algorithm, Key, MIN_SECRET};

/// The smallest RSA modulus, in bits (RFC 7518 §3.3).
const MIN_RSA_BITS: u32 = 2048;
/// The largest RSA modulus, in bits: each doubling makes a check four times as slow, and a login has 200 ms.
const MAX_RSA_BITS: u32 = 4096;

/// A JSON Web Key (RFC 7517), as it is written. Its content is interpreted only when a token needs the key: each login
/// has its own instance, and would pay for all keys.
#[derive(serde::Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    pub(crate) kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
    /// Its position in its set, from 1.
    #[serde(skip)]
    pub(crate) number: usize,
}

impl Jwk {
    /// Returns its name in messages.
    pub(crate) fn name(&self) -> String {
        self.kid.as_ref().map_or_else(|| format!("key {}", self.number), |kid| format!("key \"{kid}\""))
    }

    /// Checks that the key can check tokens here; otherwise returns why not. Other keys are ignored, as RFC 7517 §5
    /// says: published sets also hold keys for encryption and for newer algorithms.
    pub(crate) fn check_use(&self) -> Result<(), &'static str> {
        let kind = (self.kty.as_str(), self.crv.as_deref());
        if !matches!(kind, ("oct" | "RSA", _) | ("EC", Some("P-256")) | ("OKP", Some("Ed25519"))) {
            return Err("is of another kind (kty, crv) than RSA, EC with P-256, OKP with Ed25519, and oct");
        }
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("is not for signatures (use)");
        }
        // An empty list counts as absent: some programs write every member that there is.
        let operations = self.key_ops.as_ref().filter(|operations| !operations.is_empty());
        if operations.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
            return Err("is not for checking signatures (key_ops)");
        }
        if self.alg.as_deref().is_some_and(|name| Algorithm::named(name).is_none()) {
            return Err("is for another algorithm (alg) than HS256, HS384, HS512, RS256, ES256 and EdDSA");
        }
        Ok(())
    }

    /// Checks that all parts are there and have the right size; otherwise returns what is wrong. Whether they make a
    /// valid key takes arithmetic to see, and is not checked. Only for a key that passed
    /// [`check_use`](Self::check_use).
    pub(crate) fn check_size(&self) -> Result<(), String> {
        match self.kty.as_str() {
            "oct" => self.secret().map(drop),
            "RSA" => {
                let n = BoxedUint::from_be_slice_vartime(&bytes("n", self.n.as_ref())?);
                check_rsa_bits(n.bit_width_vartime())?;
                if bytes("e", self.e.as_ref())?.is_empty() { Err("has an empty `e`".into()) } else { Ok(()) }
            }
            "EC" => coordinate("x", self.x.as_ref()).and(coordinate("y", self.y.as_ref())).map(drop),
            _ => coordinate("x", self.x.as_ref()).map(drop),
        }
    }

    /// Returns whether the key is for that algorithm. Does not make the key itself. Only for a key that passed
    /// [`check_use`](Self::check_use).
    pub(crate) fn suits(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => "oct",
            Algorithm::Rs256 => "RSA",
            Algorithm::Es256 => "EC",
            Algorithm::EdDsa => "OKP",
        };
        let long_enough = |min| self.k.as_ref().is_some_and(|secret| secret.len() * 3 / 4 >= min);
        self.kty == kind
            && self.alg.as_deref().is_none_or(|name| Algorithm::named(name) == Some(algorithm))
            && algorithm.min_secret().is_none_or(long_enough)
    }

    /// Returns whether a signature has the length of this key's signatures. For another length, it is not worth making
    /// an RSA key, which takes arithmetic. The other algorithms have one length, and check it first.
    pub(crate) fn makes_as_long(&self, signature: &[u8]) -> bool {
        let modulus = |n: Vec<u8>| n.iter().skip_while(|byte| **byte == 0).count();
        self.kty != "RSA" || bytes("n", self.n.as_ref()).is_ok_and(|n| modulus(n) == signature.len())
    }

    /// Makes the key itself. Only for a key that passed [`check_use`](Self::check_use).
    pub(crate) fn key(&self) -> Result<Key, String> {
        if self.d.is_some() {
            return Err("holds a private key: give only its public part".into());
        }
        match self.kty.as_str() {
            "oct" => self.secret().map(Key::Secret),
            "RSA" => rsa(&bytes("n", self.n.as_ref())?, &bytes("e", self.e.as_ref())?),
            "EC" => {
                let (x, y) = (coordinate("x", self.x.as_ref())?, coordinate("y", self.y.as_ref())?);
                let point = p256::Sec1Point::from_affine_coordinates(&x.into(), &y.into(), false);
                Option::<p256::PublicKey>::from(p256::PublicKey::from_sec1_point(&point))
                    .map(|key| Key::P256(Box::new(key.into())))
                    .ok_or_else(|| "is no point of its curve".into())
            }
            _ => ed25519_dalek::VerifyingKey::from_bytes(&coordinate("x", self.x.as_ref())?)
                .map(|key| Key::Ed25519(Box::new(key)))
                .map_err(|_| "is no point of its curve".into()),
        }
    }

    fn secret(&self) -> Result<Vec<u8>, String> {
        let secret = bytes("k", self.k.as_ref())?;
        if secret.len() < MIN_SECRET {
            return Err(format!("has a secret of under {MIN_SECRET} bytes"));
        }
        Ok(secret)
    }
}

/// Returns an RSA key, if its size is safe and fast enough.
pub(crate) fn rsa_key(key: rsa::PublicKey) -> Result<Key, String> {
    use rsa::traits::PublicKeyParts;
    check_rsa_bits(key.n().bit_width_vartime())?;
    Ok(Key::Rsa(Box::new(rsa::pkcs1v15::VerifyingKey::new(key))))
}

fn check_rsa_bits(bits: u32) -> Result<(), String> {
    if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Ok(());
    }
    Err(format!("is an RSA key of under {MIN_RSA_BITS} or over {MAX_RSA_BITS} bits"))
}

fn rsa(n: &[u8], e: &[u8]) -> Result<Key, String> {
    rsa::PublicKey::new(BoxedUint::from_be_slice_vartime(n), BoxedUint::from_be_slice_vartime(e))
        .map_err(|_| "is no RSA key that can be used".to_owned())
        .and_then(rsa_key)
}

fn bytes(name: &str, value: Option<&String>) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("has no `{name}`"))?;
    BASE64_URL_SAFE_NO_PAD.decode(value).map_err(|_| format!("has an `{name}` that is not base64url without padding"))
}

/// Reads a coordinate of a point (RFC 7518 §6.2.1.2, RFC 8037 §2).
fn coordinate(name: &str, value: Option<&String>) -> Result<[u8; 32], String> {
    bytes(name, value)?.try_into().map_err(|_| format!("has an `{name}` that is not 32 bytes long"))
}
