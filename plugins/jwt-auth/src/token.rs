use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::denial::Denial;
use crate::object::{Object, string};

/// The longest token that is read, in bytes. It has room for as many claims as a session can have attributes.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// A signed token in its compact form (RFC 7515 §7.1), split into its parts, and not checked yet.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    /// The name of the key that signed the token, as the token says.
    pub(crate) kid: Option<String>,
    /// The signed text: header and payload as they came.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
    payload: &'a str,
}

impl<'a> Token<'a> {
    /// Splits a token, and reads its header.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Denial> {
        if token.len() > MAX_BYTES {
            return Err(Denial::Malformed("it is over 16 KiB long"));
        }
        let parts = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, payload) = signed.split_once('.')?;
            (!payload.contains('.')).then_some((signed, header, payload, signature))
        };
        let (signed, header, payload, signature) =
            parts().ok_or(Denial::Malformed("it does not consist of three parts"))?;

        let header = decode(header)?;
        let header = Object::parse(&header).ok_or(Denial::Malformed("its header is not a JSON object"))?;
        // `crit` names extensions that must be understood (RFC 7515 §4.1.11). This plugin understands none.
        if header.get("crit").is_some() {
            return Err(Denial::NotTrusted("it demands extensions"));
        }
        let algorithm = header.get("alg").and_then(string).ok_or(Denial::Malformed("its header names no algorithm"))?;
        let algorithm =
            Algorithm::named(&algorithm).ok_or(Denial::NotTrusted("its algorithm is not among those accepted"))?;
        let kid = match header.get("kid").map(string) {
            None => None,
            Some(Some(kid)) => Some(kid.into_owned()),
            Some(None) => return Err(Denial::Malformed("the name of its key is not a string")),
        };
        Ok(Self { algorithm, kid, signed, signature: decode(signature)?, payload })
    }

    /// Returns the payload. Do not believe it before the signature is checked.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, Denial> {
        decode(self.payload)
    }
}

/// Decodes base64url without padding, strictly: each token has only one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Denial> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::Malformed("a part of it is not base64url without padding"))
}
