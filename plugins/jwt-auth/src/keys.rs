use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::pkcs8::SubjectPublicKeyInfoRef;
use plugin_settings::Settings;
use serde_json::value::RawValue;

use crate::algorithm::{Algorithm, Key};
use crate::denial::Denial;
use crate::jwk::{Jwk, rsa_key};
use crate::object::Object;
use crate::token::Token;

/// The shortest secret, in bytes: what HS256 needs (RFC 7518 §3.2).
pub(crate) const MIN_SECRET: usize = 32;
/// Each login reads them all, so there cannot be any number.
const MAX_KEYS: usize = 16;
/// Keys of a set that are named, with why they cannot be used, when none can.
const MAX_PROBLEMS: usize = 4;
/// Where a public key in PEM begins and ends.
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// How many keys a token may be tried with: anybody can send one, and have this much done for it.
const MAX_TRIES: usize = 4;

/// The keys that tokens are trusted by. Its `Debug` shows none of them.
pub(crate) struct Keys {
    /// `JWT_SECRET`.
    secret: Option<String>,
    /// `JWT_PUBLIC_KEY`.
    pem: Option<String>,
    /// Those of `JWT_KEYS` that are of use.
    set: Vec<Jwk>,
    /// Whether `JWT_KEYS` is one key, which must then be good. Of a set, those that cannot be used are passed over.
    is_lone: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let own = |value: Option<&str>| value.map(str::to_owned);
        let (secret, pem) = (own(settings.secret("JWT_SECRET")?), own(settings.text("JWT_PUBLIC_KEY")?));
        let (set, is_lone) = match settings.text("JWT_KEYS")? {
            Some(json) => web_keys(json)?,
            None => (Vec::new(), false),
        };
        if set.len() > MAX_KEYS {
            return Err(format!("JWT_KEYS may hold up to {MAX_KEYS} keys that can check tokens"));
        }
        if secret.is_none() && pem.is_none() && set.is_empty() {
            return Err("there is no key: set JWT_KEYS, JWT_SECRET or JWT_PUBLIC_KEY, to a key for \
                        HS256, HS384, HS512, RS256, ES256 or EdDSA"
                .into());
        }
        Ok(Self { secret, pem, set, is_lone })
    }

    /// Whether the keys can be used: every one that stands alone, and at least one of a set.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.secret()?;
        self.pem()?;
        let (mut usable, mut unusable) = (0, None);
        for jwk in &self.set {
            match jwk.key() {
                Ok(_) => usable += 1,
                Err(problem) => unusable = unusable.or_else(|| Some(format!("JWT_KEYS: {} {problem}", jwk.name()))),
            }
        }
        match unusable {
            Some(problem) if self.is_lone || usable == 0 => Err(problem),
            _ => self.check_tries(),
        }
    }

    /// Whether one of the keys vouches for a token.
    ///
    /// Keys of a set have names, and a token that names one is checked with that and no other; one that names none, with
    /// the only key that there is for its algorithm. `JWT_SECRET` and `JWT_PUBLIC_KEY` have no name, nor may keys of a
    /// set: they are asked whatever the token names.
    pub(crate) fn vouch(&self, token: &Token<'_>) -> Result<(), Denial> {
        let own = self.own(token.algorithm).map_err(|_| Denial::NotSetUp)?;
        let set = self.of_set(own.len(), token.algorithm, token.kid.as_deref());
        if own.is_empty() && set.is_empty() {
            let unnamed = token.kid.is_none() && self.set.iter().any(|jwk| jwk.suits(token.algorithm));
            return Err(Denial::NotTrusted(if unnamed {
                "it does not say which of the keys it is signed with"
            } else {
                "no key of its name and algorithm is known"
            }));
        }
        let set = set.into_iter().filter(|jwk| jwk.makes_as_long(&token.signature)).map(Jwk::key);
        for key in own.into_iter().map(Ok).chain(set) {
            let key = match key {
                Ok(key) => key,
                Err(_) if self.is_lone => return Err(Denial::NotSetUp),
                Err(_) => continue,
            };
            if key.verifies(token.algorithm, token.signed.as_bytes(), &token.signature) {
                return Ok(());
            }
        }
        Err(Denial::NotTrusted("its signature is wrong"))
    }

    /// `JWT_SECRET` and `JWT_PUBLIC_KEY`, as far as they are for that algorithm.
    fn own(&self, algorithm: Algorithm) -> Result<Vec<Key>, String> {
        let own = [self.secret()?, self.pem()?];
        Ok(own.into_iter().flatten().filter(|key| key.suits(algorithm)).collect())
    }

    /// The keys of the set that a token by that algorithm is tried with, beside so many others.
    fn of_set(&self, own: usize, algorithm: Algorithm, kid: Option<&str>) -> Vec<&Jwk> {
        let suitable: Vec<_> = self.set.iter().filter(|jwk| jwk.suits(algorithm)).collect();
        let is_only = own == 0 && suitable.len() == 1;
        let asked = |jwk: &&Jwk| match (jwk.kid.as_deref(), kid) {
            (None, _) => true,
            (Some(_), None) => is_only,
            (Some(name), Some(kid)) => name == kid,
        };
        suitable.into_iter().filter(asked).collect()
    }

    /// Whether every token, whatever it names, is tried with few keys.
    fn check_tries(&self) -> Result<(), String> {
        for algorithm in Algorithm::ALL {
            let own = self.own(algorithm)?.len();
            for kid in self.set.iter().map(|jwk| jwk.kid.as_deref()).chain([None]) {
                if own + self.of_set(own, algorithm, kid).len() > MAX_TRIES {
                    return Err(format!(
                        "JWT_KEYS: a token would have to be tried with more than {MAX_TRIES} keys of its algorithm, \
                         those without a name and those of one name; give each a \"kid\" of its own"
                    ));
                }
            }
        }
        Ok(())
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

/// The keys of a set, or the one that stands alone, and which of both it is: at least one that tokens can be checked with,
/// as far as can be seen without arithmetic. Others in a set are passed over: they may be for others, and those who
/// publish sets add to them. Private keys are nowhere in their place.
fn web_keys(json: &str) -> Result<(Vec<Jwk>, bool), String> {
    let wrong = || "JWT_KEYS must be a JSON Web Key, or a set of them in \"keys\" (RFC 7517)".to_owned();
    let (entries, is_lone): (Vec<&RawValue>, _) =
        match Object::parse(json.as_bytes()).ok_or_else(wrong)?.get("keys").filter(|keys| !is_null(keys)) {
            Some(keys) => (serde_json::from_str(keys.get()).map_err(|_| wrong())?, false),
            None => (vec![serde_json::from_str(json).map_err(|_| wrong())?], true),
        };
    let is_private = |entry: &&RawValue| {
        let members = Object::parse(entry.get().as_bytes());
        let has = |name| members.as_ref().and_then(|key| key.get(name)).is_some_and(|value| !is_null(value));
        has("d") || has("priv")
    };
    if !is_lone && entries.iter().any(is_private) {
        return Err("JWT_KEYS holds a private key; nothing but its public part belongs here".into());
    }
    let entries = || entries.iter().enumerate().map(|(index, entry)| read(index + 1, entry, is_lone));
    let keys: Vec<Jwk> = entries().filter_map(Result::ok).collect();
    if keys.is_empty() {
        let problems: Vec<_> = entries().filter_map(Result::err).take(MAX_PROBLEMS).collect();
        let problems = if problems.is_empty() { "it is empty".to_owned() } else { problems.join("; ") };
        return Err(format!("JWT_KEYS holds no key that tokens can be checked with here: {problems}"));
    }
    Ok((keys, is_lone))
}

/// A key that tokens can be checked with, or why not. A key that stands alone must be good, which [`Keys::check`] sees.
fn read(number: usize, entry: &RawValue, is_lone: bool) -> Result<Jwk, String> {
    let mut jwk: Jwk = serde_json::from_str(entry.get()).map_err(|_| format!("key {number} is no JSON Web Key"))?;
    jwk.number = number;
    jwk.check_use().map_err(|problem| format!("{} {problem}", jwk.name()))?;
    if !is_lone {
        jwk.check_size().map_err(|problem| format!("{} {problem}", jwk.name()))?;
    }
    Ok(jwk)
}

/// A member that is `null` is absent: some write every member that there is.
fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// The key in a PEM block (RFC 7468 §13), read as generously as OpenSSL does: however its lines are cut.
fn public_key(pem: &str) -> Result<Key, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("is a private key; its public part belongs here: openssl pkey -pubout -in FILE".into());
    }
    if pem.contains("BEGIN CERTIFICATE") {
        return Err("is a certificate; its key belongs here: openssl x509 -pubkey -noout -in FILE".into());
    }
    let unusable = |cause| {
        format!(
            "must be an RSA, P-256 or Ed25519 key in PEM, from {BEGIN} to the end, in as many lines as you like: {cause}"
        )
    };
    let body = pem.trim().strip_prefix(BEGIN).ok_or_else(|| unusable("it begins with something else"))?;
    let body = body.strip_suffix(END).ok_or_else(|| unusable("it ends with something else"))?;
    let base64: String = body.split_ascii_whitespace().collect();
    let der = BASE64_STANDARD.decode(base64).map_err(|_| unusable("what stands between is not base64"))?;
    let info = SubjectPublicKeyInfoRef::try_from(&*der).map_err(|_| unusable("what stands in it is no key"))?;
    if let Ok(key) = rsa::PublicKey::try_from(info.clone()) {
        return rsa_key(key);
    }
    if let Ok(key) = p256::ecdsa::VerifyingKey::try_from(info.clone()) {
        return Ok(Key::P256(Box::new(key)));
    }
    ed25519_dalek::VerifyingKey::try_from(info)
        .map(|key| Key::Ed25519(Box::new(key)))
        .map_err(|_| unusable("it is a key of another kind"))
}
