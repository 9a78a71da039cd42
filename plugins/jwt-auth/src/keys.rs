use p256::pkcs8::{Document, SubjectPublicKeyInfoRef};
use plugin_settings::Settings;

use crate::algorithm::Key;
use crate::denial::Denial;
use crate::jwk::{Jwk, rsa_key};
use crate::object::Object;
use crate::token::Token;

/// The shortest secret, in bytes: what HS256 needs (RFC 7518 §3.2).
pub(crate) const MIN_SECRET: usize = 32;
/// A token that names no key is tried with all of them, so there cannot be any number.
const MAX_KEYS: usize = 16;

/// The keys that tokens are trusted by.
#[derive(Debug)]
pub(crate) struct Keys {
    /// `JWT_SECRET`.
    secret: Option<String>,
    /// `JWT_PUBLIC_KEY`.
    pem: Option<String>,
    /// Those of `JWT_KEYS` that are of use.
    set: Vec<Jwk>,
}

impl Keys {
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let text = |name| settings.text(name).map(|value| value.map(str::to_owned));
        let (secret, pem) = (text("JWT_SECRET")?, text("JWT_PUBLIC_KEY")?);
        let mut set = match settings.text("JWT_KEYS")? {
            Some(json) => {
                web_keys(json).ok_or("JWT_KEYS must be a JSON Web Key, or a set of them in \"keys\" (RFC 7517)")?
            }
            None => Vec::new(),
        };
        set.retain(Jwk::is_of_use);
        if set.len() > MAX_KEYS {
            return Err(format!("JWT_KEYS may hold up to {MAX_KEYS} keys that can check tokens"));
        }
        if secret.is_none() && pem.is_none() && set.is_empty() {
            return Err("there is no key: set JWT_KEYS, JWT_SECRET or JWT_PUBLIC_KEY, to a key for \
                        HS256, HS384, HS512, RS256, ES256 or EdDSA"
                .into());
        }
        Ok(Self { secret, pem, set })
    }

    /// Whether every key can be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.secret()?;
        self.pem()?;
        for (number, jwk) in self.set.iter().enumerate() {
            // Keys that are passed over are not counted: the name is the better hint.
            let kid =
                jwk.kid.as_ref().map_or_else(|| format!("usable key {}", number + 1), |kid| format!("key \"{kid}\""));
            jwk.key().map_err(|problem| format!("JWT_KEYS: {kid} {problem}"))?;
        }
        Ok(())
    }

    /// Whether one of the keys vouches for a token.
    ///
    /// Keys of a set have names, and a token that names one is checked with that and no other. `JWT_SECRET` and
    /// `JWT_PUBLIC_KEY` have none, nor may keys of a set: they are asked whatever the token names.
    pub(crate) fn vouch(&self, token: &Token<'_>) -> Result<(), Denial> {
        let named = |jwk: &&Jwk| match (&jwk.kid, &token.kid) {
            (Some(kid), Some(asked)) => kid == asked,
            _ => true,
        };
        let nameless = [self.secret().transpose(), self.pem().transpose()].into_iter().flatten();
        let set = self.set.iter().filter(named);
        let mut found = Found::NoKey;
        for key in nameless.chain(set.filter(|jwk| jwk.allows(token.algorithm)).map(Jwk::key)) {
            let key = key.map_err(|_| Denial::NotSetUp)?;
            if key.suits(token.algorithm) {
                found = Found::Key;
                if key.verifies(token.algorithm, token.signed.as_bytes(), &token.signature) {
                    return Ok(());
                }
            }
        }
        Err(match found {
            Found::NoKey => Denial::NotTrusted("no key of its name and algorithm is known"),
            Found::Key => Denial::NotTrusted("its signature is wrong"),
        })
    }

    fn secret(&self) -> Result<Option<Key>, String> {
        match &self.secret {
            Some(secret) if secret.len() < MIN_SECRET => {
                Err(format!("JWT_SECRET is too short: it must have at least {MIN_SECRET} bytes"))
            }
            secret => Ok(secret.as_ref().map(|secret| Key::Secret(secret.clone().into_bytes()))),
        }
    }

    fn pem(&self) -> Result<Option<Key>, String> {
        self.pem.as_deref().map(public_key).transpose().map_err(|problem| format!("JWT_PUBLIC_KEY {problem}"))
    }
}

/// Whether there was a key to ask.
enum Found {
    NoKey,
    Key,
}

/// The keys of a set, or the one that stands alone.
fn web_keys(json: &str) -> Option<Vec<Jwk>> {
    match Object::parse(json.as_bytes())?.get("keys") {
        Some(keys) => serde_json::from_str(keys.get()).ok(),
        None => serde_json::from_str(json).ok().map(|key| vec![key]),
    }
}

/// The key in a PEM block (RFC 7468 §13).
fn public_key(pem: &str) -> Result<Key, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("is a private key; its public part belongs here: openssl pkey -pubout -in FILE".into());
    }
    if pem.contains("BEGIN CERTIFICATE") {
        return Err("is a certificate; its key belongs here: openssl x509 -pubkey -noout -in FILE".into());
    }
    let unusable =
        || "must be an RSA, P-256 or Ed25519 key in PEM, from -----BEGIN PUBLIC KEY----- to the end".to_owned();
    let (label, document) = Document::from_pem(pem.trim()).map_err(|_| unusable())?;
    if label != "PUBLIC KEY" {
        return Err(unusable());
    }
    let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes()).map_err(|_| unusable())?;
    if let Ok(key) = rsa::PublicKey::try_from(info.clone()) {
        return rsa_key(key);
    }
    if let Ok(key) = p256::ecdsa::VerifyingKey::try_from(info.clone()) {
        return Ok(Key::P256(Box::new(key)));
    }
    ed25519_dalek::VerifyingKey::try_from(info).map(|key| Key::Ed25519(Box::new(key))).map_err(|_| unusable())
}
