//! The measured message: a fixed-width, JSON-safe ASCII stamp followed by padding.
//!
//! ```text
//! WL rrrr pppppppp ssssssss tttttttttttt  + padding     (no spaces; 34 bytes)
//!    run  pair     seq      time stamp in ns, all in lower-case hex
//! ```
//! `run` distinguishes messages of this run from messages of another run. `pair` names the (sender, target) pair. `seq`
//! counts from 0 within the pair. The time is the send time (closed loop) or the scheduled time (open loop), in
//! nanoseconds since the tool started.

pub(crate) const STAMP: usize = 34;
const MAGIC: [u8; 2] = *b"WL";

const fn hex_pairs() -> [[u8; 2]; 256] {
    let digits = *b"0123456789abcdef";
    let mut t = [[0u8; 2]; 256];
    let mut i = 0;
    while i < 256 {
        t[i] = [digits[i >> 4], digits[i & 15]];
        i += 1;
    }
    t
}

const fn hex_values() -> [u8; 256] {
    let mut t = [0xFFu8; 256];
    let mut i = 0;
    while i < 10 {
        t[b'0' as usize + i] = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 6 {
        t[b'a' as usize + i] = 10 + i as u8;
        i += 1;
    }
    t
}

static HEX: [[u8; 2]; 256] = hex_pairs();
static UNHEX: [u8; 256] = hex_values();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) pair: u32,
    pub(crate) seq: u32,
    pub(crate) ts: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Ours(Stamp),
    /// A stamp of another run.
    Foreign,
    /// No stamp at this place.
    None,
}

#[derive(Clone, Copy)]
pub(crate) struct RunId([u8; 4]);

impl RunId {
    pub(crate) fn new(n: u16) -> RunId {
        let [a, b] = n.to_be_bytes();
        let (x, y) = (HEX[a as usize], HEX[b as usize]);
        RunId([x[0], x[1], y[0], y[1]])
    }

    /// The first bytes of every message of this run.
    pub(crate) fn marker(&self) -> [u8; 6] {
        let r = self.0;
        [MAGIC[0], MAGIC[1], r[0], r[1], r[2], r[3]]
    }
}

#[inline]
fn put(dst: &mut [u8], bytes: &[u8]) {
    for (d, b) in dst.chunks_exact_mut(2).zip(bytes) {
        d.copy_from_slice(&HEX[*b as usize]);
    }
}

#[inline]
fn get(src: &[u8]) -> (u64, u8) {
    let mut v = 0u64;
    let mut bad = 0u8;
    for c in src {
        let d = UNHEX[*c as usize];
        bad |= d;
        v = v << 4 | (d & 15) as u64;
    }
    (v, bad & 0xF0)
}

#[inline]
pub(crate) fn encode(run: &RunId, s: &Stamp) -> [u8; STAMP] {
    let mut b = [0u8; STAMP];
    b[..6].copy_from_slice(&run.marker());
    put(&mut b[6..14], &s.pair.to_be_bytes());
    put(&mut b[14..22], &s.seq.to_be_bytes());
    put(&mut b[22..34], &s.ts.to_be_bytes()[2..]);
    b
}

#[inline]
pub(crate) fn decode(run: &RunId, src: &[u8]) -> Decoded {
    if src.len() < STAMP || src[..2] != MAGIC {
        return Decoded::None;
    }
    let (pair, e1) = get(&src[6..14]);
    let (seq, e2) = get(&src[14..22]);
    let (ts, e3) = get(&src[22..34]);
    if e1 | e2 | e3 != 0 {
        return Decoded::None;
    }
    if src[2..6] != run.0 {
        return Decoded::Foreign;
    }
    Decoded::Ours(Stamp { pair: pair as u32, seq: seq as u32, ts })
}

/// Padding of varying bytes, so that shifted or truncated bodies are noticed.
pub(crate) fn padding(len: usize) -> Vec<u8> {
    b"abcdefghijklmnopqrstuvwxyz0123456789-".iter().copied().cycle().take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let run = RunId::new(0xbeef);
        for s in [
            Stamp { pair: 0, seq: 0, ts: 0 },
            Stamp { pair: u32::MAX, seq: 12345, ts: (1 << 48) - 1 },
            Stamp { pair: 7, seq: u32::MAX, ts: 1_234_567_890_123 },
        ] {
            let b = encode(&run, &s);
            assert!(b.iter().all(u8::is_ascii_alphanumeric));
            assert_eq!(decode(&run, &b), Decoded::Ours(s));
        }
    }

    #[test]
    fn strays_are_told_apart() {
        let s = Stamp { pair: 1, seq: 2, ts: 3 };
        let b = encode(&RunId::new(1), &s);
        assert_eq!(decode(&RunId::new(2), &b), Decoded::Foreign);
        assert_eq!(decode(&RunId::new(1), b"Already_Linked"), Decoded::None);
        let mut broken = b;
        broken[10] = b'!';
        assert_eq!(decode(&RunId::new(1), &broken), Decoded::None);
        assert_eq!(decode(&RunId::new(1), &b[..20]), Decoded::None);
    }
}
