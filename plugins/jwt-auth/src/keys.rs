use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::pkcs8::SubjectPublicKeyInfoRef;
use plugin_settings::Settings;
use serde_json::value::RawValue;

use crate::algorithm::{Algorithm, Key, MIN_SECRET};
use crate::denial::Denial;
use crate::jwk::{Jwk, rsa_key};
use crate::object::Object;
use crate::token::Token;

/// How many keys of `JWT_KEYS` can be used: each login reads all of them.
const MAX_KEYS: usize = 16;
/// How many unusable keys an error names, with the reason, if no key of a set can be used.
const MAX_PROBLEMS: usize = 4;
/// The beginning and the end of a public key in PEM.
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// How many keys are tried with one token: anybody can send a token, and cause this much work.
const MAX_TRIES: usize = 4;

/// The keys that check tokens. `Debug` shows no key.
pub(crate) struct Keys {
    /// `JWT_SECRET`.
    secret: Option<String>,
    /// `JWT_PUBLIC_KEY`.
    pem: Option<String>,
    /// The keys of `JWT_KEYS` that are of use.
    set: Vec<Jwk>,
    /// Whether `JWT_KEYS` is a single key, which must be usable. Keys of a set that cannot be used are ignored.
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

    /// Checks that every single key can be used, and at least one key of a set.
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

    /// Checks that one of the keys signed a token.
    ///
    /// Keys of a set can have names. A token that names a key is checked with the keys of this name. A token that names
    /// no key is checked with a named key only if this is the only key for its algorithm. `JWT_SECRET`,
    /// `JWT_PUBLIC_KEY` and keys of a set without a name are tried whatever the token names.
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

    /// Returns `JWT_SECRET` and `JWT_PUBLIC_KEY`, if they are for that algorithm.
    fn own(&self, algorithm: Algorithm) -> Result<Vec<Key>, String> {
        let own = [self.secret()?, self.pem()?];
        Ok(own.into_iter().flatten().filter(|key| key.suits(algorithm)).collect())
    }

    /// Returns the keys of the set that are tried with a token of that algorithm and `kid`. `own` is the number of
    /// other keys for the algorithm.
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

    /// Checks that every token is tried with few keys, whatever key it names.
    fn check_tries(&self) -> Result<(), String> {
        for algorithm in Algorithm::ALL {
            let own = self.own(algorithm)?.len();
            for kid in self.set.iter().map(|jwk| jwk.kid.as_deref()).chain([None]) {
                if own + self.of_set(own, algorithm, kid).len() > MAX_TRIES {
                    return Err(format!(
                        "JWT_KEYS: a token would have to be tried with more than {MAX_TRIES} keys of its algorithm, \
                         those without a name and those of the same name: give each key its own \"kid\""
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

/// Reads the keys of a set, or a single key, and returns whether it is a single key. At least one key must be able to
/// check tokens, as far as can be seen without arithmetic. Other keys of a set are ignored: they may be for other
/// programs, and publishers add keys to their sets. Private keys are refused in any case.
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
        return Err("JWT_KEYS holds a private key: give only its public part".into());
    }
    let entries = || entries.iter().enumerate().map(|(index, entry)| read(index + 1, entry, is_lone));
    let keys: Vec<Jwk> = entries().filter_map(Result::ok).collect();
    if keys.is_empty() {
        let problems: Vec<_> = entries().filter_map(Result::err).take(MAX_PROBLEMS).collect();
        let problems = if problems.is_empty() { "it is empty".to_owned() } else { problems.join("; ") };
        return Err(format!("JWT_KEYS holds no key that can check tokens here: {problems}"));
    }
    Ok((keys, is_lone))
}

/// Reads a key that can check tokens; otherwise returns why it cannot. [`Keys::check`] sees whether a single key is
/// usable.
fn read(number: usize, entry: &RawValue, is_lone: bool) -> Result<Jwk, String> {
    let mut jwk: Jwk = serde_json::from_str(entry.get()).map_err(|_| format!("key {number} is no JSON Web Key"))?;
    jwk.number = number;
    jwk.check_use().map_err(|problem| format!("{} {problem}", jwk.name()))?;
    if !is_lone {
        jwk.check_size().map_err(|problem| format!("{} {problem}", jwk.name()))?;
    }
    Ok(jwk)
}

/// Returns whether a member is `null`, which counts as absent: some programs write every member that there is.
fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Reads the key in a PEM block (RFC 7468 §13). Its lines may have any length, as for OpenSSL.
fn public_key(pem: &str) -> Result<Key, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("is a private key: give its public part (openssl pkey -pubout -in FILE)".into());
    }
    if pem.contains("BEGIN CERTIFICATE") {
        return Err("is a certificate: give its key (openssl x509 -pubkey -noout -in FILE)".into());
    }
    let unusable = |cause| {
        format!("must be an RSA, P-256 or Ed25519 key in PEM, from {BEGIN} to {END}, in lines of any length: {cause}")
    };
    let body = pem.trim().strip_prefix(BEGIN).ok_or_else(|| unusable("it begins with something else"))?;
    let body = body.strip_suffix(END).ok_or_else(|| unusable("it ends with something else"))?;
    let base64: String = body.split_ascii_whitespace().collect();
    let der = BASE64_STANDARD.decode(base64).map_err(|_| unusable("the text between is not base64"))?;
    let info = SubjectPublicKeyInfoRef::try_from(&*der).map_err(|_| unusable("the content is not a key"))?;
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
