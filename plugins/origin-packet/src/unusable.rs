/// The longest uid that the host registers, in bytes.
pub(crate) const MAX_UID_BYTES: usize = 256;

/// Why a packet or line cannot be used. Each text fits the 123 bytes of a close reason.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A binary message does not hold text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON (RFC 8259).
    #[error("not JSON: {0}")]
    NotJson(serde_json::Error),
    /// JSON, but not an object. Nothing more of it was read.
    #[error("not a JSON object")]
    NotAnObject,
    /// The object lacks this field.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The field is of this other type.
    #[error("`{0}` is {1}, not a string or an integer")]
    WrongType(&'static str, &'static str),
    /// The field is a string with escapes that stand for no character, such as a lone surrogate.
    #[error("`{0}` is not Unicode text")]
    NotUnicode(&'static str),
    /// The field is the empty string.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// The field is longer than a uid may be.
    #[error("`{0}` is longer than {max} bytes", max = MAX_UID_BYTES)]
    TooLong(&'static str),
}
