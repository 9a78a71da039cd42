//! The fields of frames: numbers in network byte order, and lists whose length is checked before memory is reserved.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::super::clock::Stamp;

/// A length or value in a frame is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed")]
pub(super) struct Malformed;

/// Reads fields from the front of a frame.
pub(super) trait Read {
    fn u8(&mut self) -> Result<u8, Malformed>;
    fn u16(&mut self) -> Result<u16, Malformed>;
    fn u32(&mut self) -> Result<u32, Malformed>;
    fn u64(&mut self) -> Result<u64, Malformed>;
    /// Reads bytes without copying them.
    fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed>;
    /// Reads the number of entries of a list, each of which takes at least `size` bytes.
    fn entries(&mut self, size: usize) -> Result<usize, Malformed>;
    /// Reads a list, each entry of which takes at least `size` bytes.
    fn list<T>(
        &mut self,
        size: usize,
        entry: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed>;
}

impl Read for Bytes {
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.try_get_u8().map_err(|_| Malformed)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.try_get_u16().map_err(|_| Malformed)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.try_get_u32().map_err(|_| Malformed)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.try_get_u64().map_err(|_| Malformed)
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.len() { Err(Malformed) } else { Ok(self.split_to(length)) }
    }

    fn entries(&mut self, size: usize) -> Result<usize, Malformed> {
        let count = usize::from(self.u16()?);
        if count * size > self.len() { Err(Malformed) } else { Ok(count) }
    }

    fn list<T>(
        &mut self,
        size: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.entries(size)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(entry(self)?);
        }
        Ok(list)
    }
}

/// Reads a stamp that may be missing.
pub(super) fn stamp_or_none(from: &mut Bytes) -> Result<Option<Stamp>, Malformed> {
    Ok(Some(from.u64()?).filter(|&stamp| stamp != 0).map(Stamp))
}

/// Writes a list: the number of its entries, then each of them. Callers bound their lists; entries past the 65,535th
/// would be left out.
pub(super) fn put_list<T>(into: &mut BytesMut, list: &[T], mut entry: impl FnMut(&mut BytesMut, &T)) {
    let count = u16::try_from(list.len()).unwrap_or(u16::MAX);
    into.put_u16(count);
    for item in &list[..usize::from(count)] {
        entry(into, item);
    }
}

/// Writes bytes with their length before them. Callers bound them to far less than 4 GiB.
pub(super) fn put_bytes(into: &mut BytesMut, bytes: &[u8]) {
    into.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    into.put_slice(bytes);
}
