//! A page of uids, as one gateway sends it to another.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use super::parcel::{Malformed, name};
use crate::base::message::ConnectionId;

/// The most bytes of one page: it must fit an answer.
const LONGEST: usize = 48 << 10;

/// Some uids of a long list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The uids.
    pub uids: Vec<ByteString>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<u64>,
}

/// A page that is being written.
pub struct PageWriter(BytesMut);

impl PageWriter {
    /// Begins a page.
    pub fn begin() -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u64(0);
        Self(bytes)
    }

    /// Adds a uid. Returns `false` if the page is full.
    pub fn add(&mut self, uid: &str) -> bool {
        let length = u16::try_from(uid.len()).ok().filter(|_| self.0.len() + 2 + uid.len() <= LONGEST);
        if let Some(length) = length {
            self.0.put_u16(length);
            self.0.put_slice(uid.as_bytes());
        }
        length.is_some()
    }

    /// Ends the page. The next one begins after this connection; `None` if there is none.
    pub fn end(mut self, next: Option<ConnectionId>) -> Bytes {
        self.0[..8].copy_from_slice(&next.map_or(0, |next| next.0).to_be_bytes());
        self.0.freeze()
    }
}

impl Page {
    /// Reads a page that was asked for `after` this connection.
    ///
    /// # Errors
    /// [`Malformed`], also if the next page would begin no later than this one: whoever asked would never come to an
    /// end.
    pub fn decode(mut from: Bytes, after: u64) -> Result<Self, Malformed> {
        let next = match from.try_get_u64()? {
            0 => None,
            next if next > after => Some(next),
            _ => return Err(Malformed),
        };
        let mut uids = Vec::new();
        while !from.is_empty() {
            uids.push(name(&mut from)?);
        }
        Ok(Self { uids, next })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_arrives_as_it_was_sent() {
        let mut page = PageWriter::begin();
        for uid in ["anna", "", "bob"] {
            assert!(page.add(uid));
        }
        let bytes = page.end(Some(ConnectionId(1 << 60)));
        let uids = ["anna", "", "bob"].map(ByteString::from).to_vec();
        assert_eq!(Page::decode(bytes.clone(), 7), Ok(Page { uids, next: Some(1 << 60) }));
        assert_eq!(Page::decode(bytes, 1 << 60), Err(Malformed), "it would begin again and again");
        assert_eq!(Page::decode(PageWriter::begin().end(None), 7), Ok(Page { uids: Vec::new(), next: None }));
    }

    #[test]
    fn a_page_has_as_many_uids_as_fit() {
        let (mut page, uid) = (PageWriter::begin(), "x".repeat(1000));
        let added = (0..100).filter(|_| page.add(&uid)).count();
        assert_eq!(added, (LONGEST - 8) / 1002);
        assert!(!page.add(&"x".repeat(70_000)));
        assert_eq!(Page::decode(page.end(None), 0).unwrap().uids.len(), added);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            _ = Page::decode(bytes.into(), 0);
        }
    }
}
