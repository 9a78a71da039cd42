use std::borrow::Cow;

use origin_packet::message;
use plugin_settings::Settings;
use serde_json::value::RawValue;

use crate::denial::Denial;
use crate::hotgate::gateway::types::Attribute;
use crate::object::{Object, string};

/// The last second of the year 9999. A later number is no date in seconds, but most likely one in milliseconds.
const LAST_DATE: f64 = 253_402_300_799.0;
/// How many attributes the host accepts by default, and how many bytes of them together.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE_BYTES: usize = 16 * 1024;

/// The rules for the claims of a token.
#[derive(Debug)]
pub(crate) struct Rules {
    /// `JWT_ISSUER`: the accepted issuers; `None` accepts everybody who has a key.
    issuers: Option<Vec<String>>,
    audience: Audience,
    /// `JWT_LEEWAY`: by how many seconds the clocks of issuer and gateway may differ.
    leeway: u64,
    /// `JWT_EXPIRY`: whether a token has to expire.
    must_expire: bool,
    /// `JWT_UID_CLAIM`.
    uid: String,
    /// `JWT_ATTRIBUTES`: the name of each attribute, and the claim that it comes from.
    attributes: Vec<(String, String)>,
}

/// `JWT_AUDIENCE`: the accepted audiences.
#[derive(Debug)]
enum Audience {
    /// Any audience, or none.
    Any,
    /// No audience. A token for somebody else must be denied (RFC 7519 §4.1.3).
    None,
    /// One of these audiences.
    OneOf(Vec<String>),
}

/// The bearer of a genuine token.
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

    /// Returns the bearer of a token with this payload at this time, in seconds since 1970.
    pub(crate) fn bearer(&self, payload: &[u8], now: u64) -> Result<Bearer, Denial> {
        let claims = Object::parse(payload).ok_or(Denial::Malformed("its claims are not a JSON object"))?;
        let expires_at = self.times(&claims, now)?;
        self.parties(&claims)?;
        let uid = origin_packet::uid("uid", claims.find(&self.uid)).map_err(|unusable| Denial::nobody(&unusable))?;
        Ok(Bearer { uid, attributes: self.attributes(&claims)?, expires_at })
    }

    /// Returns until when the token is valid, if it is valid now. The leeway counts for the session and for the login:
    /// both end in the same second.
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

    /// Checks the issuer and the audience of the token.
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

    /// Returns the attributes. A claim that is a list makes an attribute of each item. A claim without a value makes an
    /// empty attribute, because the issuer says that there is nothing. Only a missing claim makes no attribute, which
    /// leaves the router to its default.
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
                    return Err(Denial::NotForHere("its claims make too many attributes"));
                }
                attributes.push(Attribute { name: name.clone(), value });
            }
        }
        Ok(attributes)
    }
}

/// Reads a number of seconds since 1970 (RFC 7519 §2), which may have a fraction.
fn date(value: &RawValue) -> Option<f64> {
    // Of all JSON values, numbers and nothing else parse as a number.
    value.get().parse().ok().filter(|seconds| (0.0..=LAST_DATE).contains(seconds))
}

/// Reads one string, or a list of strings.
fn strings(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    match string(value) {
        Some(one) => Some(vec![one]),
        None => serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.into_iter().map(string).collect(),
    }
}
