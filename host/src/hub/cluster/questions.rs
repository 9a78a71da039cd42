//! Answers what operators ask of this gateway at another one.
//!
//! What a question and its answer mean is not known here: the [`Informant`] knows, which the admin listener provides.
//! An answer that is too long for one frame is sent in parts. The gateway that asks fetches one after the other, by the
//! number that it gave its question.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::frame::MAX_ANSWER;

/// The longest answer in bytes. A longer one is not sent.
pub const LONGEST: usize = 1 << 20;

/// The most bytes of a part: with its header, it fits a frame's answer.
const PART: usize = MAX_ANSWER - HEADER;

/// The bytes before each part: how long the whole answer is.
const HEADER: usize = 4;

/// The most questions that are answered at a time. Past it they get no answer: they must not slow down messages.
const AT_ONCE: usize = 16;

/// The most answers that are kept until all their parts are fetched, and for how long.
const KEPT: usize = 16;
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The most bytes of all answers of other gateways that are collected and shown at a time. Past it, a request is
/// refused. The largest pages of connections (`?limit=1000`, some 200 bytes each) of 300 gateways fit.
pub const COLLECTED: usize = 64 << 20;

/// What an operator asks, on its way to another gateway: a question, or the next part of the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRequest {
    /// The number of the question: random, so that no two are mixed up.
    pub id: u64,
    /// Which part of the answer to send: the one that begins at this byte. With 0, the question is answered anew.
    pub offset: u32,
    /// The question. Empty if `offset` is not 0.
    pub text: Bytes,
}

/// Answers questions.
pub trait Informant: Send + Sync {
    /// Answers a question. An empty answer means that there is none.
    fn answer(&self, question: Bytes) -> BoxFuture<'static, Bytes>;
}

/// An answer of which not all parts are fetched yet.
#[derive(Debug)]
struct Kept {
    id: u64,
    whole: Bytes,
    until: Instant,
}

/// The questions of other gateways, and the memory for their answers to the questions of this one.
pub struct Questions {
    informant: OnceLock<Box<dyn Informant>>,
    running: Semaphore,
    kept: Mutex<VecDeque<Kept>>,
    /// The bytes of [`COLLECTED`] that are free.
    free: Arc<Semaphore>,
}

/// Bytes that an answer of another gateway takes until this is dropped.
#[derive(Debug)]
pub struct Room {
    _bytes: OwnedSemaphorePermit,
}

impl Default for Questions {
    fn default() -> Self {
        let (running, kept, free) = (Semaphore::new(AT_ONCE), Mutex::default(), Arc::new(Semaphore::new(COLLECTED)));
        Self { informant: OnceLock::new(), running, kept, free }
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl Questions {
    /// Sets who answers. Until then, and without an admin listener, there are no answers.
    pub fn answer_by(&self, informant: Box<dyn Informant>) {
        // Only a second call would fail, and each gateway has one admin listener.
        _ = self.informant.set(informant);
    }

    /// Reserves memory for an answer of another gateway. Returns `None` if too many bytes are in use.
    pub fn reserve(&self, bytes: usize) -> Option<Room> {
        let bytes = u32::try_from(bytes).ok()?;
        self.free.clone().try_acquire_many_owned(bytes).ok().map(|bytes| Room { _bytes: bytes })
    }

    /// Returns the part of the answer that is asked for, or nothing.
    pub async fn answer(&self, request: PartRequest) -> Bytes {
        let PartRequest { id, offset, text } = request;
        if offset > 0 {
            let mut kept = self.kept(None);
            let Some(at) = kept.iter().position(|answer| answer.id == id) else { return Bytes::new() };
            let part = part(&kept[at].whole, offset as usize);
            if offset as usize + PART >= kept[at].whole.len() {
                kept.remove(at);
            }
            return part;
        }
        let (Some(informant), Ok(_permit)) = (self.informant.get(), self.running.try_acquire()) else {
            return Bytes::new();
        };
        let whole = informant.answer(text).await;
        if whole.is_empty() || whole.len() > LONGEST {
            return Bytes::new();
        }
        let first = part(&whole, 0);
        if whole.len() > PART {
            let mut kept = self.kept(Some(id));
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Kept { id, whole, until: Instant::now() + KEPT_FOR });
        }
        first
    }
}

impl Questions {
    /// Locks the answers that are kept: not those that are too old, and none to this question.
    fn kept(&self, id: Option<u64>) -> MutexGuard<'_, VecDeque<Kept>> {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.retain(|answer| answer.until > now && Some(answer.id) != id);
        kept
    }
}

/// Writes the part that begins at `offset`; nothing if the answer ends before.
fn part(whole: &Bytes, offset: usize) -> Bytes {
    if offset >= whole.len() {
        return Bytes::new();
    }
    let bytes = &whole[offset..whole.len().min(offset + PART)];
    let mut into = BytesMut::with_capacity(HEADER + bytes.len());
    // It is at most `LONGEST`.
    into.put_u32(whole.len() as u32);
    into.put_slice(bytes);
    into.freeze()
}

/// An answer that arrives in parts.
#[derive(Debug, Default)]
pub struct Parts {
    total: usize,
    bytes: BytesMut,
}

impl Parts {
    /// Adds the next part. Returns `false` if it is none: then the answer will never be whole.
    pub fn add(&mut self, mut part: Bytes) -> bool {
        let Ok(total) = part.try_get_u32() else { return false };
        let total = total as usize;
        let is_next = total <= LONGEST && (self.bytes.is_empty() || total == self.total);
        if !is_next || part.is_empty() || self.bytes.len() + part.len() > total {
            return false;
        }
        self.total = total;
        self.bytes.extend_from_slice(&part);
        true
    }

    /// Returns the bytes of the whole answer, 0 before the first part.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Returns where the next part begins; `None` if the answer is whole.
    pub fn next(&self) -> Option<u32> {
        let length = self.bytes.len();
        (length < self.total).then_some(u32::try_from(length).unwrap_or(u32::MAX))
    }

    /// Returns the answer.
    pub fn whole(self) -> Bytes {
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::super::parcel::{Parcel, decode, encode_question};
    use super::*;

    #[test]
    fn questions_arrive_as_they_were_sent() {
        let request = PartRequest { id: 7, offset: 9, text: Bytes::from_static(b"how?") };
        assert_eq!(decode(encode_question(&request)), Ok(Parcel::Question(request)));
    }

    /// Answers with as many bytes as the question says.
    struct Echo;

    impl Informant for Echo {
        fn answer(&self, question: Bytes) -> BoxFuture<'static, Bytes> {
            let length: usize = std::str::from_utf8(&question).unwrap().parse().unwrap();
            Box::pin(async move { (0..length).map(|at| (at % 251) as u8).collect() })
        }
    }

    async fn ask(questions: &Questions, id: u64, offset: u32, length: usize) -> Bytes {
        questions.answer(PartRequest { id, offset, text: length.to_string().into() }).await
    }

    async fn whole(questions: &Questions, length: usize) -> Option<Bytes> {
        let mut parts = Parts::default();
        while parts.add(ask(questions, 7, parts.next().unwrap_or(0), length).await) {
            if parts.next().is_none() {
                return Some(parts.whole());
            }
        }
        None
    }

    #[tokio::test]
    async fn long_answers_come_in_parts() {
        let questions = Questions::default();
        assert_eq!(whole(&questions, 5).await, None, "nobody answers yet");
        questions.answer_by(Box::new(Echo));
        for length in [1, PART, PART + 1, 2 * PART, LONGEST] {
            let answer = whole(&questions, length).await.unwrap();
            assert!(answer.len() == length && answer.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        }
        for length in [0, LONGEST + 1] {
            assert_eq!(whole(&questions, length).await, None, "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_some_time_and_not_many() {
        let questions = Questions::default();
        questions.answer_by(Box::new(Echo));
        for id in 0..=KEPT as u64 {
            assert_eq!(ask(&questions, id, 0, PART + 9).await.len(), HEADER + PART);
        }
        let rest = PART as u32;
        assert_eq!(ask(&questions, 0, rest, 0).await.len(), 0, "the oldest is dropped");
        assert_eq!(ask(&questions, 1, rest, 0).await.len(), HEADER + 9);
        assert_eq!(ask(&questions, 1, rest + 9, 0).await.len(), 0, "there is no more");
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(ask(&questions, 1, rest, 0).await.len(), 0);
    }

    #[tokio::test]
    async fn only_some_questions_are_answered_at_a_time() {
        struct Never;
        impl Informant for Never {
            fn answer(&self, _: Bytes) -> BoxFuture<'static, Bytes> {
                Box::pin(std::future::pending())
            }
        }
        let questions = Questions::default();
        questions.answer_by(Box::new(Never));
        let mut running: Vec<_> = (0..AT_ONCE).map(|id| Box::pin(ask(&questions, id as u64, 0, 1))).collect();
        for question in &mut running {
            assert!(futures_util::poll!(question).is_pending());
        }
        assert_eq!(ask(&questions, 9, 0, 1).await.len(), 0);
    }

    #[test]
    fn all_answers_together_are_bounded() {
        let questions = Questions::default();
        let mut rooms: Vec<_> = (0..COLLECTED / LONGEST).map(|_| questions.reserve(LONGEST)).collect();
        assert!(rooms.iter().all(Option::is_some));
        assert!(questions.reserve(1).is_none());
        assert!(questions.reserve(usize::MAX).is_none());
        rooms.pop();
        let room = questions.reserve(LONGEST - 1);
        assert!(room.is_some() && questions.reserve(2).is_none() && questions.reserve(1).is_some());
    }

    #[test]
    fn only_parts_of_one_answer_are_put_together() {
        let header = |total: u32, rest: &[u8]| Bytes::from([&total.to_be_bytes()[..], rest].concat());
        for wrong in [
            Bytes::new(),
            Bytes::from_static(&[0, 0, 0]),
            header(0, b""),
            header(3, b""),
            header(2, b"abc"),
            header(LONGEST as u32 + 1, b"abc"),
        ] {
            assert!(!Parts::default().add(wrong.clone()), "{wrong:?}");
        }
        let mut parts = Parts::default();
        assert!(parts.add(header(6, b"abc")));
        assert!(!parts.add(header(7, b"def")), "of another answer");
        assert!(!parts.add(header(6, b"defg")), "too long");
        assert_eq!((parts.next(), parts.total()), (Some(3), 6));
        assert!(parts.add(header(6, b"def")));
        assert_eq!((parts.next(), parts.whole()), (None, Bytes::from_static(b"abcdef")));
    }
}
