use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::FromSec1Point;
use rsa::BoxedUint;

use crate::algorithm::{Algorithm, Key};

/// The smallest RSA modulus, in bits (RFC 7518 §3.3).
const MIN_RSA_BITS: u32 = 2048;
/// The largest: each doubling makes a check four times as slow, and a login has 200 ms.
const MAX_RSA_BITS: u32 = 4096;

/// A JSON Web Key (RFC 7517), as it is written: what it means is looked at when a token needs it, since each login has
/// an instance of its own and would pay for all keys.
#[derive(Debug, serde::Deserialize)]
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
}

impl Jwk {
    /// Whether it is a key that tokens can be checked with here. Others are passed over, as RFC 7517 §5 has it: sets
    /// that are published hold keys for encryption and for newer algorithms, too.
    pub(crate) fn is_of_use(&self) -> bool {
        let kind = (self.kty.as_str(), self.crv.as_deref());
        matches!(kind, ("oct" | "RSA", _) | ("EC", Some("P-256")) | ("OKP", Some("Ed25519")))
            && self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
            && self.alg.as_deref().is_none_or(|name| Algorithm::named(name).is_some())
    }

    /// Whether everything is there, and of the right size. That it is a key, too, takes arithmetic to see.
    pub(crate) fn is_complete(&self) -> bool {
        let length = |value: &Option<String>| bytes("", value.as_ref()).map_or(0, |bytes| bytes.len());
        match self.kty.as_str() {
            "oct" => length(&self.k) >= crate::keys::MIN_SECRET,
            "RSA" => {
                let n = bytes("n", self.n.as_ref()).map(|n| BoxedUint::from_be_slice_vartime(&n).bit_width_vartime());
                n.is_ok_and(|bits| (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits)) && length(&self.e) > 0
            }
            "EC" => length(&self.x) == 32 && length(&self.y) == 32,
            _ => length(&self.x) == 32,
        }
    }

    /// Whether it is a key for that algorithm, and leaves it open. For one that is of use; the key itself is not made.
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

    /// Whether a signature is as long as this key's are. Whoever sends another length is not worth making an RSA key
    /// for, which takes arithmetic; the other algorithms have one length, and look at it first.
    pub(crate) fn makes_as_long(&self, signature: &[u8]) -> bool {
        let modulus = |n: Vec<u8>| n.iter().skip_while(|byte| **byte == 0).count();
        self.kty != "RSA" || bytes("n", self.n.as_ref()).is_ok_and(|n| modulus(n) == signature.len())
    }

    /// The key itself, for one that is of use.
    pub(crate) fn key(&self) -> Result<Key, String> {
        if self.d.is_some() {
            return Err("holds a private key; nothing but its public part belongs here".into());
        }
        match self.kty.as_str() {
            "oct" => {
                let secret = bytes("k", self.k.as_ref())?;
                if secret.len() < crate::keys::MIN_SECRET {
                    return Err(format!("has a secret of under {} bytes", crate::keys::MIN_SECRET));
                }
                Ok(Key::Secret(secret))
            }
            "RSA" => rsa(&bytes("n", self.n.as_ref())?, &bytes("e", self.e.as_ref())?),
            "EC" => {
                let (x, y) = (bytes("x", self.x.as_ref())?, bytes("y", self.y.as_ref())?);
                let (Ok(x), Ok(y)) = (<[u8; 32]>::try_from(x), <[u8; 32]>::try_from(y)) else {
                    return Err("has an `x` or `y` that is not 32 bytes long".into());
                };
                let point = p256::Sec1Point::from_affine_coordinates(&x.into(), &y.into(), false);
                Option::<p256::PublicKey>::from(p256::PublicKey::from_sec1_point(&point))
                    .map(|key| Key::P256(Box::new(key.into())))
                    .ok_or_else(|| "is no point of its curve".into())
            }
            _ => {
                let x = <[u8; 32]>::try_from(bytes("x", self.x.as_ref())?)
                    .map_err(|_| "has an `x` that is not 32 bytes long")?;
                ed25519_dalek::VerifyingKey::from_bytes(&x)
                    .map(|key| Key::Ed25519(Box::new(key)))
                    .map_err(|_| "is no point of its curve".into())
            }
        }
    }
}

/// An RSA key of a size that is safe and quick enough.
pub(crate) fn rsa_key(key: rsa::PublicKey) -> Result<Key, String> {
    use rsa::traits::PublicKeyParts;
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&key.n().bit_width_vartime()) {
        return Err(format!("is an RSA key of under {MIN_RSA_BITS} or over {MAX_RSA_BITS} bits"));
    }
    Ok(Key::Rsa(Box::new(rsa::pkcs1v15::VerifyingKey::new(key))))
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
