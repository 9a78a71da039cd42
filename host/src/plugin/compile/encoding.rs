//! Recognises what a file holds by its first bytes.

/// What the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A component, in the version of the encoding that the engine reads.
    Component,
    /// A component in this other version of the encoding.
    OtherVersion(u16),
    /// A core WebAssembly module.
    Module,
    /// It begins like WebAssembly, and is cut off or in an unknown encoding.
    Unknown,
    /// Nothing.
    Empty,
    /// Text.
    Text,
    /// Anything else.
    Other,
}

impl Encoding {
    /// The version of a component that the engine reads.
    pub const VERSION: u16 = 13;

    /// Recognises the content of a file.
    pub fn of(bytes: &[u8]) -> Self {
        let Some(rest) = bytes.strip_prefix(b"\0asm") else {
            let is_text = bytes.iter().take(64).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
            return match (bytes.is_empty(), is_text) {
                (true, _) => Self::Empty,
                (false, true) => Self::Text,
                (false, false) => Self::Other,
            };
        };
        // Version and layer, two bytes each, the lower byte first.
        match rest.first_chunk() {
            Some([1, 0, 0, 0]) => Self::Module,
            Some(&[low, high, 1, 0]) => match u16::from_le_bytes([low, high]) {
                Self::VERSION => Self::Component,
                version => Self::OtherVersion(version),
            },
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_recognised_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], Encoding::Empty),
            (b"\0asm\x0d\0\x01\0", Encoding::Component),
            (b"\0asm\x0d\0\x01\0\0\x01", Encoding::Component),
            (b"\0asm\x0c\0\x01\0", Encoding::OtherVersion(12)),
            (b"\0asm\x0d\x01\x01\0", Encoding::OtherVersion(269)),
            (b"\0asm\x01\0\0\0", Encoding::Module),
            (b"\0asm\x02\0\0\0", Encoding::Unknown),
            (b"\0asm\x0d\0\x02\0", Encoding::Unknown),
            (b"\0asm\x0d\0\x01", Encoding::Unknown),
            (b"\0asm", Encoding::Unknown),
            (b"(component\n)", Encoding::Text),
            (b"\0as", Encoding::Other),
            (b"\x7fELF", Encoding::Other),
        ] {
            assert_eq!(Encoding::of(bytes), expected, "{}", bytes.escape_ascii());
        }
        // Only the beginning counts.
        assert_eq!(Encoding::of(&[&b" ".repeat(64)[..], b"\0"].concat()), Encoding::Text);
        assert_eq!(Encoding::of(&[&b" ".repeat(63)[..], b"\0"].concat()), Encoding::Other);
    }
}
