//! A gateway under valgrind's callgrind, which counts its instructions. The counts do not depend on how busy the
//! machine is.
//!
//! Valgrind has no room for the pool of plugin instances, so instances are allocated on demand. Valgrind also does not
//! let the gateway start its compiler, and hides some features of the processor. So the plugins are compiled before,
//! for any processor.

use std::fs;
use std::ops::{Div, Sub};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Gateway, Setup, cache};

/// Settings that turn off timers and timeouts: under valgrind everything takes fifty times as long.
const UNHURRIED: &str = "
[engine]
processor = \"any\"
[websocket]
handshake_timeout = \"1h\"
authentication_timeout = \"1h\"
[heartbeat]
timeout = \"24h\"
check_interval = \"1h\"
[watch]
rescan = \"24h\"
";

/// A function that only the thread of the plugins' clock calls. Its profile is left out, because the wall clock decides
/// how often it runs.
const NOT_COUNTED: &str = "clock::Clock::tick";

/// The number of rounds in which a unit is counted. With 8, the difference of two units was up to 18 % too large once
/// in some twenty runs: one of them had no quiet round.
const ROUNDS: usize = 20;

/// The executed work: of a whole round, or of one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Instructions of the gateway and its plugins, not of the kernel.
    pub instructions: f64,
    /// System calls. Under valgrind each read of the clock is a system call.
    pub system_calls: f64,
}

/// A gateway under valgrind, with one thread for all connections.
#[derive(Debug)]
pub struct Callgrind {
    gateway: Gateway,
    /// The option of `vgdb` that names the files by which it reaches valgrind.
    prefix: String,
    /// The folder of the profiles: `target/costs/NAME`.
    folder: PathBuf,
}

impl Callgrind {
    /// Starts a gateway with these settings, and profiles in a folder of this name. `None` if valgrind is not
    /// installed.
    pub async fn start(setup: Setup, name: &str) -> Option<Self> {
        // `vgdb` is part of valgrind.
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().ok()?;
        let folder = cache("costs").join(name);
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a writable target directory");
        let setup = setup.and(UNHURRIED);
        setup.rehearse().await;
        let prefix = format!("--vgdb-prefix={}", setup.state_folder().with_file_name("vgdb").display());
        let profile = format!("--callgrind-out-file={}", folder.join("profile").display());
        let gateway = setup
            .environment("TOKIO_WORKER_THREADS", "1")
            .launcher(&["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"])
            .launcher(&["--collect-systime=yes", "--vgdb-poll=1000", &prefix, &profile])
            .start()
            .await;
        let callgrind = Self { gateway, prefix, folder };
        callgrind.tell(&["instrumentation", "on"]);
        Some(callgrind)
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The cost of one unit of `work`. `work` runs `units` times in each round, one after another. The result is the
    /// lowest of all rounds, because other work of the gateway only adds to the cost. The first round is not counted:
    /// its buffers still grow.
    pub async fn count(&self, units: u32, mut work: impl AsyncFnMut()) -> Cost {
        let mut least = Cost { instructions: f64::INFINITY, system_calls: f64::INFINITY };
        for round in 0..=ROUNDS {
            self.dump();
            for _ in 0..units {
                work().await;
            }
            let all = self.dump();
            if round > 0 {
                let one = all / f64::from(units);
                least.instructions = least.instructions.min(one.instructions);
                least.system_calls = least.system_calls.min(one.system_calls);
            }
        }
        least
    }

    /// The profile, for `callgrind_annotate`, of the thread that executed most instructions in the last round.
    pub fn profile(&self) -> PathBuf {
        let profiles = self.profiles();
        let most = profiles.into_iter().max_by(|(_, a), (_, b)| a.instructions.total_cmp(&b.instructions));
        let profile = most.expect("a round").0;
        // A call that began before the round has `calls=0`: its cost would be shown as the caller's own.
        let text = fs::read_to_string(&profile).expect("a readable file");
        fs::write(&profile, text.replace("\ncalls=0 ", "\ncalls=1 ")).expect("a writable file");
        profile
    }

    /// Returns the work that was executed since the last dump.
    fn dump(&self) -> Cost {
        for profile in files(&self.folder) {
            fs::remove_file(profile).expect("a file of ours");
        }
        self.tell(&["dump"]);
        let nothing = Cost { instructions: 0.0, system_calls: 0.0 };
        self.profiles().into_iter().fold(nothing, |sum, (_, cost)| Cost {
            instructions: sum.instructions + cost.instructions,
            system_calls: sum.system_calls + cost.system_calls,
        })
    }

    /// The profiles of the last dump: one for each thread that is counted.
    fn profiles(&self) -> Vec<(PathBuf, Cost)> {
        files(&self.folder).filter_map(|path| read(&path).map(|cost| (path, cost))).collect()
    }

    /// Sends callgrind a command, and waits until it is done. This needs no debugger's rights: valgrind itself polls
    /// for commands whenever a thread of the gateway has run for a while. One command in thousands was seen to fail, so
    /// a failed command is sent again. Doing a command twice does no harm.
    fn tell(&self, command: &[&str]) {
        let pid = format!("--pid={}", self.gateway.id());
        let tell = || Command::new("vgdb").args([&self.prefix, &pid, "--max-invoke-ms=0"]).args(command).output();
        let mut output = tell().expect("vgdb starts");
        if !output.status.success() {
            output = tell().expect("vgdb starts");
        }
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).expect("a folder of ours").flatten().map(|entry| entry.path())
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            system_calls: self.system_calls - other.system_calls,
        }
    }
}

impl Div<f64> for Cost {
    type Output = Self;

    fn div(self, count: f64) -> Self {
        Self { instructions: self.instructions / count, system_calls: self.system_calls / count }
    }
}

/// Reads the sums of a profile from its line `totals: INSTRUCTIONS SYSTEM-CALLS TIME`, in which trailing zeroes are
/// left out.
fn read(profile: &Path) -> Option<Cost> {
    let text = fs::read_to_string(profile).expect("a readable file");
    let mut totals = text.lines().find_map(|line| line.strip_prefix("totals: "))?.split(' ');
    let mut next = || totals.next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    (!text.contains(NOT_COUNTED)).then(|| Cost { instructions: next(), system_calls: next() })
}
