//! Clients that log in and stay.

use crate::cli::Common;
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::open::{Opener, Progress, Sources};
use crate::proto::{Proto, Step};
use crate::stats::Samples;

/// The uids of the clients.
pub(crate) enum Uids {
    /// Each client has its own uid: this prefix and the client's number.
    Own(String),
    /// All clients have this uid.
    Same(String),
}

pub(crate) struct Member {
    pub(crate) conn: ConnId,
    pub(crate) ready: bool,
    started: u64,
}

pub(crate) struct Crowd {
    pub(crate) proto: Proto,
    sources: Sources,
    uids: Uids,
    pub(crate) members: Vec<Member>,
    pub(crate) progress: Progress,
    pub(crate) errors: Samples,
    /// The reasons why ready connections closed.
    pub(crate) closures: Samples,
    pub(crate) greetings: u64,
}

impl Crowd {
    pub(crate) fn new(c: &Common, path: &str, sources: Sources, size: usize, uids: Uids) -> Crowd {
        Crowd {
            proto: Proto::new(c, path),
            sources,
            uids,
            members: (0..size).map(|_| Member { conn: NO_CONN, ready: false, started: 0 }).collect(),
            progress: Progress::default(),
            errors: Samples::default(),
            closures: Samples::default(),
            greetings: 0,
        }
    }

    pub(crate) fn uid(&self, i: usize) -> String {
        match &self.uids {
            Uids::Own(prefix) => format!("{prefix}{i}"),
            Uids::Same(uid) => uid.clone(),
        }
    }

    pub(crate) fn alive(&self) -> usize {
        self.members.iter().filter(|member| member.ready).count()
    }

    pub(crate) fn start(&mut self, net: &mut Net, i: usize) {
        self.progress.started += 1;
        let path = self.proto.path(&self.uid(i));
        match net.open_ws(path, i as u32, self.sources.pick(i as u64)) {
            Ok(conn) => self.members[i] = Member { conn, ready: false, started: net.now() },
            Err(e) => self.failed(&format!("connect: {e}")),
        }
    }

    pub(crate) fn expire(&mut self, net: &mut Net, now: u64, limit_ns: u64) {
        for i in 0..self.members.len() {
            let member = &mut self.members[i];
            if member.conn != NO_CONN && !member.ready && now > member.started + limit_ns {
                net.close(member.conn, true);
                member.conn = NO_CONN;
                self.failed("no answer within --connect-timeout");
            }
        }
    }

    pub(crate) fn on_open(&mut self, net: &mut Net, conn: ConnId, i: u32) {
        let step = self.proto.on_open(net, conn, &self.uid(i as usize));
        self.step(net, i, step);
    }

    /// Handles a message of the login, or a greeting. Returns `false` for any other message.
    pub(crate) fn on_message(&mut self, net: &mut Net, i: u32, data: &[u8]) -> bool {
        let greeting = self.proto.is_greeting(data);
        self.greetings += u64::from(greeting);
        if self.members[i as usize].ready {
            return greeting;
        }
        let step = self.proto.on_setup_message(data);
        self.step(net, i, step);
        true
    }

    pub(crate) fn on_close(&mut self, i: u32, why: &Gone) {
        let member = &mut self.members[i as usize];
        member.conn = NO_CONN;
        if std::mem::replace(&mut member.ready, false) {
            self.closures.add(&why.to_string());
        } else {
            self.failed(&why.to_string());
        }
    }

    /// Sends a close frame on every connection.
    pub(crate) fn leave(&self, net: &mut Net) {
        for member in self.members.iter().filter(|member| member.ready) {
            net.send_close(member.conn, 1000);
        }
        net.flush();
    }

    fn step(&mut self, net: &mut Net, i: u32, step: Step) {
        let member = &mut self.members[i as usize];
        match step {
            Step::Wait => {}
            Step::Ready => {
                member.ready = true;
                self.progress.ready += 1;
            }
            Step::Failed(e) => {
                net.close(member.conn, false);
                member.conn = NO_CONN;
                self.failed(&e);
            }
        }
    }

    fn failed(&mut self, why: &str) {
        self.progress.failed += 1;
        self.errors.add(why);
    }
}

/// A scenario that opens the connections of a crowd.
pub(crate) trait HasCrowd: Handler {
    fn crowd(&self) -> &Crowd;
    fn crowd_mut(&mut self) -> &mut Crowd;
}

impl<T: HasCrowd> Opener for T {
    fn start(&mut self, net: &mut Net, i: usize) {
        self.crowd_mut().start(net, i);
    }

    fn progress(&self) -> &Progress {
        &self.crowd().progress
    }

    fn expire(&mut self, net: &mut Net, now: u64, limit_ns: u64) {
        self.crowd_mut().expire(net, now, limit_ns);
    }

    fn errors(&self) -> &Samples {
        &self.crowd().errors
    }
}
