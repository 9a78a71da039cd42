//! Opens many connections, with a limit on how many are opened at a time.

use std::net::Ipv4Addr;

use crate::address::{loopback, split_ws};
use crate::cli::Common;
use crate::net::{Handler, Net, NetConfig, TlsClient};
use crate::stats::Samples;
use crate::sys;

/// Progress of a set-up phase.
#[derive(Default, Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) started: usize,
    pub(crate) ready: usize,
    pub(crate) failed: usize,
}

impl Progress {
    pub(crate) fn opening(&self) -> usize {
        self.started - self.ready - self.failed
    }
}

pub(crate) trait Opener: Handler {
    /// Starts connection number `i`. A failure is recorded in the progress.
    fn start(&mut self, net: &mut Net, i: usize);
    fn progress(&self) -> &Progress;
    /// Fails connections that have been opening for longer than `limit_ns`.
    fn expire(&mut self, net: &mut Net, now: u64, limit_ns: u64);
    /// Why connections failed.
    fn errors(&self) -> &Samples;
}

/// Opens `total` connections. With `fail_fast`, the first failure ends the set-up.
pub(crate) fn open_all<O: Opener>(
    net: &mut Net,
    o: &mut O,
    total: usize,
    c: &Common,
    fail_fast: bool,
) -> Result<f64, String> {
    let begin = net.now();
    let deadline = begin + secs(c.setup_timeout);
    let mut next_expire = begin;
    loop {
        while o.progress().started < total && o.progress().opening() < c.connect_concurrency {
            let i = o.progress().started;
            o.start(net, i);
            if fail_fast && o.progress().failed > 0 {
                break;
            }
        }
        if fail_fast && o.progress().failed > 0 {
            let p = o.progress();
            return Err(format!(
                "{} of {} connections failed during set-up ({} were ready): {}",
                p.failed,
                total,
                p.ready,
                o.errors().json()
            ));
        }
        if o.progress().ready + o.progress().failed >= total {
            break;
        }
        net.flush();
        net.poll(o, 20_000_000).map_err(|e| format!("epoll: {e}"))?;
        let now = net.now();
        if now >= next_expire {
            next_expire = now + 100_000_000;
            o.expire(net, now, secs(c.connect_timeout));
        }
        if now > deadline {
            let p = o.progress();
            return Err(format!(
                "set-up took longer than {} s: {} of {} connections were ready",
                c.setup_timeout, p.ready, total
            ));
        }
    }
    net.flush();
    Ok((net.now() - begin) as f64 / 1e9)
}

pub(crate) fn secs(s: f64) -> u64 {
    (s * 1e9) as u64
}

/// The loopback source address of each connection.
#[derive(Clone, Copy)]
pub(crate) struct Sources {
    count: u32,
}

impl Sources {
    /// Uses the wanted number of addresses, or, for 0, one address per 20,000 simultaneous connections.
    pub(crate) fn new(c: &Common, simultaneous: usize, server_is_v4: bool) -> Sources {
        let auto = (simultaneous / 20_000) as u32;
        let auto = if auto == 0 { 0 } else { auto + 1 };
        let count = if c.source_addrs > 0 { c.source_addrs } else { auto };
        Sources { count: if server_is_v4 { count } else { 0 } }
    }

    pub(crate) fn pick(&self, i: u64) -> Option<Ipv4Addr> {
        (self.count > 0).then(|| Ipv4Addr::new(127, 0, 0, 2 + (i % self.count as u64) as u8))
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// Creates the event loop of a scenario. Also returns the path to request, and `true` if the server has an IPv4
/// address.
pub(crate) fn make_net(c: &Common, answer_pings: bool) -> Result<(Net, String, bool), String> {
    let (host, path, secure) = split_ws(&c.ws)?;
    let addr = loopback("--ws", &host)?;
    let tls = match &c.ca {
        Some(ca) if secure => Some(TlsClient::new(ca, &host)?),
        None if secure => return Err(format!("--ws '{}': needs --ca", c.ws)),
        _ => None,
    };
    let net = Net::new(NetConfig {
        host,
        addr,
        headers: c.header.clone(),
        answer_pings,
        zero_mask: c.zero_mask,
        max_frame: c.max_frame,
        seed: c.seed,
        congestion: c.congestion.clone(),
        tls,
    })
    .map_err(|e| format!("epoll: {e}"))?;
    Ok((net, path, addr.is_ipv4()))
}

/// Makes room for `connections` descriptors, or returns an error that says what is missing.
pub(crate) fn require_descriptors(connections: usize) -> Result<(), String> {
    let need = connections as u64 + 32;
    let allowed = sys::raise_descriptors();
    if need > allowed {
        return Err(format!(
            "{connections} connections need {need} file descriptors, but the hard limit (ulimit -Hn) is {allowed}: \
             use fewer connections or raise the limit before starting wsload"
        ));
    }
    Ok(())
}
