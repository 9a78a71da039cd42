//! The sessions of the dashboard, and the codes that open them. Both are in memory only, as digests.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::TokenDigest;
use crate::edge::http::token::Token;

/// How long a code can be used.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a session lasts: a working day.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// The most codes. The oldest one makes room.
const MAX_CODES: usize = 16;
/// The most sessions with the same rights. The oldest one makes room: whoever only reads ends no session that may do
/// everything.
const MOST_OF_A_KIND: usize = 8;

/// What a code or a session allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything.
    All,
    /// To read.
    Read,
}

/// A session, for a request of it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Names it in the log.
    pub(super) number: u64,
    pub(super) rights: Rights,
    /// When it ends.
    pub(super) end: Instant,
    /// Cancelled when it ends earlier: because its user logged out, or because it made room.
    pub(super) ended: CancellationToken,
}

/// All codes and sessions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    codes: VecDeque<Code>,
    sessions: VecDeque<Open>,
    /// The sessions so far.
    opened: u64,
}

#[derive(Debug)]
struct Code {
    digest: TokenDigest,
    rights: Rights,
    end: Instant,
}

/// A session that is open. Dropping it ends its streams.
#[derive(Debug)]
struct Open {
    digest: TokenDigest,
    session: Session,
    _ended: DropGuard,
}

impl Sessions {
    /// Makes a code that opens one session.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(super) fn make_code(&self, rights: Rights) -> io::Result<Token> {
        let token = Token::random()?;
        let code = Code { digest: token.digest(), rights, end: Instant::now() + CODE_LIFE };
        let mut state = self.state();
        if state.codes.len() == MAX_CODES {
            state.codes.pop_front();
        }
        state.codes.push_back(code);
        Ok(token)
    }

    /// Takes a code, which cannot be used again. Returns what it allows, or `None` if there is no such code.
    pub(super) fn take_code(&self, code: &str) -> Option<Rights> {
        let (digest, mut state) = (TokenDigest::of(code.as_bytes()), self.state());
        let at = state.codes.iter().position(|code| code.digest.matches(&digest))?;
        state.codes.remove(at).map(|code| code.rights)
    }

    /// Opens a session. Returns it with its token.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(super) fn open(&self, rights: Rights) -> io::Result<(Session, Token)> {
        let (token, ended) = (Token::random()?, CancellationToken::new());
        let mut state = self.state();
        state.opened += 1;
        let session =
            Session { number: state.opened, rights, end: Instant::now() + SESSION_LIFE, ended: ended.clone() };
        let is_same = |open: &Open| open.session.rights == rights;
        if state.sessions.iter().filter(|open| is_same(open)).count() == MOST_OF_A_KIND {
            let oldest = state.sessions.iter().position(is_same);
            _ = oldest.and_then(|oldest| state.sessions.remove(oldest));
        }
        state.sessions.push_back(Open { digest: token.digest(), session: session.clone(), _ended: ended.drop_guard() });
        Ok((session, token))
    }

    /// Finds the session with this token.
    pub(super) fn find(&self, token: &[u8]) -> Option<Session> {
        let (digest, state) = (TokenDigest::of(token), self.state());
        state.sessions.iter().find(|open| open.digest.matches(&digest)).map(|open| open.session.clone())
    }

    /// Ends a session.
    pub(super) fn close(&self, number: u64) {
        self.state().sessions.retain(|open| open.session.number != number);
    }

    /// Locks the state, without what is over.
    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        let (mut state, now) = (self.0.lock(), Instant::now());
        state.codes.retain(|code| code.end > now);
        state.sessions.retain(|open| open.session.end > now);
        state
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_code_works_once_and_for_a_minute() {
        let sessions = Sessions::default();
        let (all, read) = (sessions.make_code(Rights::All).unwrap(), sessions.make_code(Rights::Read).unwrap());
        assert_eq!(sessions.take_code("0123456789abcdef0123456789abcdef"), None);
        assert_eq!(sessions.take_code(all.text()), Some(Rights::All));
        assert_eq!(sessions.take_code(all.text()), None);
        advance(CODE_LIFE - Duration::from_millis(1)).await;
        assert_eq!(sessions.take_code(read.text()), Some(Rights::Read));
        let late = sessions.make_code(Rights::All).unwrap();
        advance(CODE_LIFE).await;
        assert_eq!(sessions.take_code(late.text()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_with_its_time_or_its_user() {
        let sessions = Sessions::default();
        let (session, token) = sessions.open(Rights::Read).unwrap();
        let find = |token: &Token| sessions.find(token.text().as_bytes()).map(|session| session.number);
        assert_eq!(find(&token), Some(session.number));
        sessions.close(session.number);
        assert!(session.ended.is_cancelled() && find(&token).is_none());
        let (session, token) = sessions.open(Rights::All).unwrap();
        assert!(sessions.take_code(token.text()).is_none(), "a token is no code");
        let code = sessions.make_code(Rights::All).unwrap();
        assert!(find(&code).is_none(), "a code is no token");
        advance(SESSION_LIFE - Duration::from_millis(1)).await;
        assert_eq!(find(&token), Some(session.number));
        advance(Duration::from_millis(1)).await;
        assert!(find(&token).is_none() && session.ended.is_cancelled());
    }

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let sessions = Sessions::default();
        let (first, token) = sessions.open(Rights::All).unwrap();
        let code = sessions.make_code(Rights::All).unwrap();
        for _ in 1..MAX_CODES {
            sessions.open(Rights::Read).unwrap();
            sessions.make_code(Rights::All).unwrap();
        }
        for _ in 1..MOST_OF_A_KIND {
            sessions.open(Rights::All).unwrap();
        }
        assert!(!first.ended.is_cancelled() && sessions.find(token.text().as_bytes()).is_some());
        sessions.open(Rights::All).unwrap();
        sessions.make_code(Rights::All).unwrap();
        assert!(first.ended.is_cancelled() && sessions.find(token.text().as_bytes()).is_none());
        assert_eq!(sessions.take_code(code.text()), None);
        let state = sessions.0.lock();
        assert_eq!((state.codes.len() + 1, state.sessions.len()), (MAX_CODES + 1, 2 * MOST_OF_A_KIND));
    }
}
