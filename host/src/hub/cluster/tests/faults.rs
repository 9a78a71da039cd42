//! What goes wrong.

use super::super::id::{Fingerprint, NodeId};
use super::net::{MS, SECOND};
use super::world::{Event, World, secret};

/// One fault. It begins, and heals after a while.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The host publishes into the void.
    CutOut(usize),
    /// The host hears nothing.
    CutIn(usize),
    /// One server does not reach the other.
    Split(usize),
    /// The host's connection ends; it connects again, perhaps to the other server. It may notice at once.
    Reconnect(usize, bool),
    /// A subscription drops all messages for some time.
    Drops(usize),
    /// The process stands still, with or without the machine's clocks.
    Pause(usize),
    Freeze(usize),
    /// The wall clock jumps.
    Jump(usize),
    /// Everything takes 100 ms longer.
    Lag(usize),
    /// The host dies, and starts again.
    Restart(usize),
    /// Another host has the same id.
    Twin(usize),
    /// A host with another secret starts.
    Foreign,
    Answers,
    Batches,
}

impl World {
    /// Chooses faults for a seed.
    pub(super) fn plan(&mut self, from: u64) {
        self.net.spike = [0, 2 * MS, 20 * MS][self.rng.pick(3)];
        self.net.hides_503 = self.rng.one_in(4);
        for host in 0..self.hosts.len() {
            self.net.clients[host].sends_late = self.rng.one_in(2);
            if self.rng.one_in(3) {
                let hour = 3_600 * SECOND as i64;
                self.hosts[host].wall_error = [hour, -hour, 30_000][self.rng.pick(3)];
            }
        }
        if self.setup.is_parted {
            let (server, wait) = (self.rng.pick(2), self.rng.between(SECOND, 5 * SECOND / 2));
            self.at(from, Event::Fault(Fault::Split(server)));
            self.at(from + wait, Event::Fault(Fault::Split(1 - server)));
            return;
        }
        for _ in 0..self.rng.below(6) {
            let (host, at) = (self.rng.pick(self.setup.hosts), from + self.rng.below(self.setup.storm));
            let fault = match self.rng.below(16) {
                0 => Fault::CutOut(host),
                1 => Fault::CutIn(host),
                2 | 15 => {
                    // Both ways, often not at the same time.
                    let wait = self.rng.below(3 * SECOND) * self.rng.below(2);
                    self.at(at + wait, Event::Fault(Fault::Split(0)));
                    Fault::Split(1)
                }
                3 | 4 => Fault::Reconnect(host, self.rng.one_in(2)),
                5 => Fault::Drops(host),
                6 | 7 => Fault::Pause(host),
                8 => Fault::Freeze(host),
                9 => Fault::Jump(host),
                10 => Fault::Lag(host),
                11 => Fault::Restart(host),
                12 => [Fault::Twin(host), Fault::Foreign][self.rng.pick(2)],
                13 => Fault::Answers,
                _ => Fault::Batches,
            };
            self.at(at, Event::Fault(fault));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.setup.seed == super::replayed() {
            println!("{:>9} us  {fault:?}", self.now);
        }
        let mut time =
            [self.rng.between(MS, 50 * MS), self.rng.between(50 * MS, SECOND), self.rng.between(SECOND, 6 * SECOND)];
        time.rotate_left(self.rng.pick(3));
        let time = match fault {
            // Long enough that some are thought dead.
            Fault::Split(_) if self.setup.is_parted => 5 * SECOND,
            _ => time[0],
        };
        match fault {
            Fault::CutOut(host) => self.net.clients[host].is_cut_out = true,
            Fault::CutIn(host) => self.net.clients[host].is_cut_in = true,
            Fault::Split(server) => self.net.split_at[server] = Some(self.now),
            Fault::Reconnect(host, notices) => {
                if !self.hosts[host].is_alive {
                    return;
                }
                let incarnation = self.hosts[host].incarnation;
                self.net.disconnect(host);
                self.net.unsubscribe(self.now, incarnation, &mut self.rng);
                if notices {
                    let now = self.hosts[host].now(self.now);
                    self.hosts[host].node.set_connected(now, false);
                    self.carry_out(host);
                }
            }
            Fault::Drops(host) => {
                let sub = self.rng.pick(3);
                self.net.clients[host].drops_until[sub] = self.now + time.min(2 * SECOND);
            }
            Fault::Pause(host) => {
                self.hosts[host].paused_until = self.now + time;
                self.hosts[host].thaw = [0, 3 * MS][self.rng.pick(2)];
            }
            Fault::Freeze(host) => {
                self.hosts[host].paused_until = self.now + time;
                // Nobody reads these clocks until then.
                self.hosts[host].stopped += time;
                self.truth.a_clock_stopped = true;
            }
            Fault::Jump(host) => {
                let hour = 3_600 * SECOND as i64;
                self.hosts[host].wall_error = [hour, -hour, 0][self.rng.pick(3)];
            }
            Fault::Lag(host) => self.net.clients[host].lag = 100 * MS,
            Fault::Restart(host) => {
                if !self.hosts[host].is_alive {
                    return;
                }
                self.kill(host);
            }
            Fault::Twin(host) => _ = self.add(Some(NodeId::from_low_bits(host as u64)), secret()),
            Fault::Foreign => {
                let host = self.add(Some(NodeId::from_low_bits(400)), Fingerprint(1));
                self.hosts[host].is_foreign = true;
            }
            Fault::Answers => self.net.loses_answers = 4,
            Fault::Batches => self.net.loses_batches = 10,
        }
        self.net.note_alone(self.now);
        self.at(self.now + time, Event::Heal(fault));
    }

    pub(super) fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::CutOut(host) => self.net.clients[host].is_cut_out = false,
            Fault::CutIn(host) => self.net.clients[host].is_cut_in = false,
            Fault::Split(server) => self.net.split_at[server] = None,
            Fault::Reconnect(host, _) => {
                if !self.hosts[host].is_alive || self.net.clients[host].is_connected {
                    return;
                }
                let server = self.rng.pick(self.setup.servers);
                let late = self.net.connect(host, server);
                let incarnation = self.hosts[host].incarnation;
                self.net.subscribe(self.now, host, incarnation, &mut self.rng);
                self.net.note_alone(self.now);
                for (to, frame, token) in late {
                    self.publish(host, to, frame, token);
                }
                let now = self.hosts[host].now(self.now);
                self.hosts[host].node.set_connected(now, true);
                self.carry_out(host);
            }
            Fault::Lag(host) => self.net.clients[host].lag = 0,
            Fault::Restart(host) => {
                if !self.hosts[host].is_alive {
                    self.restart(host);
                }
            }
            Fault::Answers => self.net.loses_answers = 0,
            Fault::Batches => self.net.loses_batches = 0,
            Fault::Drops(_) | Fault::Pause(_) | Fault::Freeze(_) | Fault::Jump(_) | Fault::Twin(_) | Fault::Foreign => {
            }
        }
        self.net.note_alone(self.now);
    }
}
