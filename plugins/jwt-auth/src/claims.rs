use std::borrow::Cow;

use origin_packet::message;
use plugin_settings::Settings;
use serde_json::value::RawValue;

use crate::denial::Denial;
use crate::hotgate::gateway::types::Attribute;
use crate::object::{Object, string};

/// The last second of the year 9999. What is later is no date, but most likely counted in milliseconds.
const LAST_DATE: f64 = 253_402_300_799.0;
/// How many attributes the host takes by default, and of how many bytes together.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE_BYTES: usize = 16 * 1024;

/// What a token must say, and what is made of it.
#[derive(Debug)]
pub(crate) struct Rules {
    /// `JWT_ISSUER`: who may have issued it; none for anybody who has a key.
    issuers: Option<Vec<String>>,
    audience: Audience,
    /// `JWT_LEEWAY`: by how many seconds the clocks of issuer and gateway may differ.
    leeway: u64,
    /// `JWT_EXPIRY`: whether a token has to expire.
    must_expire: bool,
    /// `JWT_UID_CLAIM`.
    uid: String,
    /// `JWT_ATTRIBUTES`: the name of each and the claim it comes from.
    attributes: Vec<(String, String)>,
}

/// `JWT_AUDIENCE`: whom a token is for.
#[derive(Debug)]
enum Audience {
    /// Whoever it says, or nobody.
    Any,
    /// Nobody in particular. A token for somebody else must not be taken (RFC 7519 §4.1.3).
    None,
    /// One of these.
    OneOf(Vec<String>),
}

/// What a genuine token says about its bearer.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) uid: String,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) expires_at: Option<u64>,
}

impl Rules {
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let owned = |items: Vec<&str>| items.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let audience = match settings.list("JWT_AUDIENCE")? {
            None => Audience::None,
            Some(audiences) if audiences == ["*"] => Audience::Any,
            Some(audiences) => Audience::OneOf(owned(audiences)),
        };
        let attribute = |item: &str| match item.split_once('=') {
            Some(("", _) | (_, "")) => Err("JWT_ATTRIBUTES must be a list of claims, or of attribute=claim".to_owned()),
            Some((name, claim)) => Ok((name.to_owned(), claim.to_owned())),
            None => Ok((item.to_owned(), item.to_owned())),
        };
        Ok(Self {
            issuers: settings.list("JWT_ISSUER")?.map(owned),
            audience,
            leeway: settings.number("JWT_LEEWAY", 60, 0..=600)?,
            must_expire: settings.choice("JWT_EXPIRY", &[("required", true), ("optional", false)])?,
            uid: settings.text("JWT_UID_CLAIM")?.unwrap_or("sub").to_owned(),
            attributes: settings
                .list("JWT_ATTRIBUTES")?
                .unwrap_or_default()
                .into_iter()
                .map(attribute)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Who bears a token with this payload at this time, in seconds since 1970.
    pub(crate) fn judge(&self, payload: &[u8], now: u64) -> Result<Bearer, Denial> {
        let claims = Object::parse(payload).ok_or(Denial::Malformed("its claims are not a JSON object"))?;
        let expires_at = self.times(&claims, now)?;
        self.parties(&claims)?;
        let uid = origin_packet::uid("uid", claims.find(&self.uid)).map_err(|unusable| Denial::nobody(&unusable))?;
        Ok(Bearer { uid, attributes: self.attributes(&claims)?, expires_at })
    }

    /// Until when it is good, which now it must be. The leeway is granted to the session as to the login: both end in
    /// the same second.
    fn times(&self, claims: &Object<'_>, now: u64) -> Result<Option<u64>, Denial> {
        let end = match claims.get("exp").map(date) {
            None if self.must_expire => return Err(Denial::NotForHere("`exp` is missing")),
            None => None,
            Some(None) => return Err(Denial::NotForHere("`exp` is not a date in seconds")),
            Some(Some(end)) => Some(end.floor() as u64 + self.leeway),
        };
        if end.is_some_and(|end| now >= end) {
            return Err(Denial::Expired);
        }
        match claims.get("nbf").map(date) {
            Some(None) => Err(Denial::NotForHere("`nbf` is not a date in seconds")),
            Some(Some(start)) if now.saturating_add(self.leeway) < start.ceil() as u64 => {
                Err(Denial::NotForHere("`nbf` is still to come"))
            }
            _ => Ok(end),
        }
    }

    /// Whether it comes from and is for the right ones.
    fn parties(&self, claims: &Object<'_>) -> Result<(), Denial> {
        if let Some(issuers) = &self.issuers {
            let issuer = claims.get("iss").and_then(string).ok_or(Denial::NotForHere("`iss` is missing"))?;
            if !issuers.contains(&issuer.into_owned()) {
                return Err(Denial::NotForHere("`iss` is somebody else"));
            }
        }
        match (&self.audience, claims.get("aud")) {
            (Audience::Any, _) | (Audience::None, None) => Ok(()),
            (Audience::None, Some(_)) => Err(Denial::NotForHere("it has an `aud`, and none is expected")),
            (Audience::OneOf(_), None) => Err(Denial::NotForHere("`aud` is missing")),
            (Audience::OneOf(expected), Some(audiences)) => {
                let audiences = strings(audiences).ok_or(Denial::NotForHere("`aud` is not made of strings"))?;
                if audiences.iter().any(|audience| expected.iter().any(|one| one == audience)) {
                    Ok(())
                } else {
                    Err(Denial::NotForHere("`aud` is somebody else"))
                }
            }
        }
    }

    /// A claim that is a list is an attribute for each of its items. One that is there and holds nothing is an empty
    /// attribute, for it says something: that there is nothing. Only one that is missing is none, and leaves a router to
    /// its default.
    fn attributes(&self, claims: &Object<'_>) -> Result<Vec<Attribute>, Denial> {
        let mut attributes = Vec::new();
        let mut bytes = 0;
        for (name, claim) in &self.attributes {
            let Some(claim) = claims.find(claim) else { continue };
            let mut values = serde_json::from_str::<Vec<&RawValue>>(claim.get()).unwrap_or_else(|_| vec![claim]);
            values.retain(|value| value.get() != "null");
            let values = match values[..] {
                [] => vec![Some(String::new())],
                _ => values.into_iter().map(message).collect(),
            };
            for value in values {
                let value = value.ok_or(Denial::NotForHere("a claim is not Unicode text"))?;
                bytes += name.len() + value.len();
                if attributes.len() == MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTE_BYTES {
                    return Err(Denial::NotForHere("it makes for too many attributes"));
                }
                attributes.push(Attribute { name: name.clone(), value });
            }
        }
        Ok(attributes)
    }
}

/// A number of seconds since 1970 (RFC 7519 §2), which may have a fraction.
fn date(value: &RawValue) -> Option<f64> {
    // Of JSON's values, all numbers and nothing else read as one.
    value.get().parse().ok().filter(|seconds| (0.0..=LAST_DATE).contains(seconds))
}

/// One string, or a list of them.
fn strings(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    match string(value) {
        Some(one) => Some(vec![one]),
        None => serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.into_iter().map(string).collect(),
    }
}
