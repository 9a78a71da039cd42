//! Waits for events of sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub(crate) use rustix::event::epoll::{Event, EventFlags as Flags};

pub(crate) const IN: Flags = Flags::IN;
pub(crate) const OUT: Flags = Flags::OUT;
pub(crate) const RDHUP: Flags = Flags::RDHUP;
pub(crate) const HUP: Flags = Flags::HUP;
pub(crate) const ERR: Flags = Flags::ERR;
pub(crate) const EDGE: Flags = Flags::ET;

const MILLISECOND: u64 = 1_000_000;

pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        Ok(Epoll(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(token), flags)?)
    }

    /// Waits at most `timeout_ns` for events. Replaces the contents of `events`, up to its capacity.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, timeout_ns: u64) -> io::Result<()> {
        events.clear();
        let milliseconds = timeout_ns / MILLISECOND;
        if milliseconds == 0 && timeout_ns > 0 {
            // epoll counts in milliseconds, poll in nanoseconds.
            let mut itself = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut itself, Some(&Timespec { tv_sec: 0, tv_nsec: timeout_ns as _ })) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let timeout =
            Timespec { tv_sec: (milliseconds / 1000) as _, tv_nsec: (milliseconds % 1000 * MILLISECOND) as _ };
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
