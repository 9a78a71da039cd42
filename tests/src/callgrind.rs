//! A gateway whose instructions are counted, by valgrind's callgrind: figures that do not depend on how busy the machine
//! is.
//!
//! Valgrind has no room for the pool of plugin instances: they are allocated on demand. Nor does it let the gateway start
//! a compiler, and it hides some of the processor from it; so the plugins are compiled beforehand, for any processor.

use std::fs;
use std::ops::{Div, Sub};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Gateway, Setup, build};

/// What keeps time, or ends what takes long, is out of the way: under valgrind everything takes fifty times as long.
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

/// What only the thread does that keeps the plugins' time. How often it does is up to the clock.
const NOT_COUNTED: &str = "engine::Clock::tick";

/// How often a unit is counted.
const ROUNDS: usize = 8;

/// What was executed: in all, or for one of many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Instructions of the gateway and its plugins, not of the kernel.
    pub instructions: f64,
    /// System calls. Under valgrind each look at the clock is one.
    pub system_calls: f64,
}

/// A gateway under valgrind, with one thread for all connections.
#[derive(Debug)]
pub struct Callgrind {
    gateway: Gateway,
    /// Where the gateway is spoken to through valgrind.
    prefix: String,
    /// Where the profiles are kept: `target/costs/NAME`.
    folder: PathBuf,
}

impl Callgrind {
    /// Starts a gateway with these settings and profiles of this name. `None` where there is no valgrind.
    pub async fn start(setup: Setup, name: &str) -> Option<Self> {
        // `vgdb` comes with it.
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().ok()?;
        let folder = build::cache("costs").join(name);
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

    /// What one of `units` costs that `work` does, one after another: the least of some rounds, since what happens beside
    /// them only adds to it. The first round is not counted: it finds buffers that are still to grow, and the like.
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

    /// The profile of the thread that did most in the last round, for `callgrind_annotate`.
    pub fn profile(&self) -> PathBuf {
        let profiles = self.profiles();
        let most = profiles.into_iter().max_by(|(_, a), (_, b)| a.instructions.total_cmp(&b.instructions));
        let profile = most.expect("a round").0;
        // What a call cost that began before the round would be taken for its caller's own.
        let text = fs::read_to_string(&profile).expect("a readable file");
        fs::write(&profile, text.replace("\ncalls=0 ", "\ncalls=1 ")).expect("a writable file");
        profile
    }

    /// What was executed since the last time.
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

    /// The profiles of the last dump, one a thread that counts.
    fn profiles(&self) -> Vec<(PathBuf, Cost)> {
        files(&self.folder).filter_map(|path| read(&path).map(|cost| (path, cost))).collect()
    }

    /// Gives callgrind a command, and waits until it has been carried out. Without a debugger's rights: the gateway
    /// asks for commands itself, whenever one of its threads has run for a while. It was seen once, in thousands, that
    /// this failed; nothing is lost when a command is carried out twice.
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

/// The sums of a profile: its line `totals: INSTRUCTIONS SYSTEM-CALLS TIME`, where zeroes at the end are left out.
fn read(profile: &Path) -> Option<Cost> {
    let text = fs::read_to_string(profile).expect("a readable file");
    let mut totals = text.lines().find_map(|line| line.strip_prefix("totals: "))?.split(' ');
    let mut next = || totals.next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    (!text.contains(NOT_COUNTED)).then(|| Cost { instructions: next(), system_calls: next() })
}
