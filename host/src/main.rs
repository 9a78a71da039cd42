//! The `hotgate` binary: settings → log → gateway → signal → drain; or, for itself, a compiler.

mod log;

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;

use hotgate::cli::{self, Command, EXIT_CONFIG};
use hotgate::config::{Config, Loaded, Source};
use hotgate::gateway::{Gateway, StartError};
use hotgate::plugin;
use hotgate::workshop::dev::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_appender::non_blocking::ErrorCounter;

/// The system's own keeps much of what it was given back, by thread: what swaps take would grow for a long time.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena a processor, also where the process may use only some of them: their numbers are what must be below 1,024. What is
/// unused goes back to the operating system within a second.
#[cfg(target_os = "linux")]
// SAFETY: jemalloc reads its settings from a C string under this name, which it leaves to the program to define.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 70] = b"percpu_arena:percpu,narenas:1024,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == plugin::COMPILE) {
        return plugin::compile();
    }
    let cli = cli::parse();
    match &cli.command {
        Command::ConfigCheck => cli.config_check(),
        Command::ConfigPrint => cli.config_print(),
        Command::Plugin(arguments) => cli.plugin(arguments),
        Command::Serve => match cli.source.load_to_serve() {
            Ok(loaded) => {
                // Dropped last: it writes what is still in the log's queue.
                let (_log, lost) = log::start(&loaded.config.log);
                serve(loaded, cli.source, lost, None)
            }
            Err(error) => cli::refuse(&error),
        },
        Command::Dev(folder) => match cli.dev(folder) {
            Ok((config, source, builder)) => {
                let (_log, lost) = log::start(&config.log);
                serve(config.into(), source, lost, Some(builder))
            }
            Err(code) => code,
        },
    }
}

fn serve(loaded: Loaded, source: Source, lost: ErrorCounter, builder: Option<Builder>) -> ExitCode {
    raise_descriptor_limit(&loaded.config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        // A hangup must not end a gateway that is starting; whoever develops has closed the terminal.
        let signals = Signals::new(builder.is_some());
        // A file size limit (`ulimit -f`) is an error of the write, like a full disk, and must not end the gateway.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        let (mut signals, hangup) = match signals.and_then(|ends| Ok((ends, signal(SignalKind::hangup())?))) {
            Ok(signals) => signals,
            Err(error) => {
                error!(%error, "cannot listen for signals");
                return ExitCode::FAILURE;
            }
        };
        let gateway = tokio::select! {
            started = Gateway::start(loaded) => match started {
                Ok(gateway) => gateway,
                Err(error) => {
                    error!(error = format!("{error:#}"), "cannot start");
                    return match error {
                        StartError::Plugin(_) | StartError::InUse(_) => ExitCode::from(EXIT_CONFIG),
                        StartError::Listen(_) => ExitCode::FAILURE,
                    };
                }
            },
            () = signals.next() => return ExitCode::SUCCESS,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let twice = async {
            signals.next().await;
            let _ = stop.send(());
            signals.next().await;
        };
        tokio::select! {
            () = gateway.run(source, hangup, async { _ = stopped.await }) => ExitCode::SUCCESS,
            () = twice => {
                warn!("second signal: ending at once");
                ExitCode::FAILURE
            }
            never = log::tell_lost(lost) => match never {},
            never = build(builder) => match never {},
        }
    });
    // Tasks that have not ended by now are cut off.
    runtime.shutdown_background();
    code
}

/// Builds what is served, where that is what it is served for.
async fn build(builder: Option<Builder>) -> Infallible {
    match builder {
        Some(builder) => builder.run().await,
        None => std::future::pending().await,
    }
}

/// The signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new(of_terminal: bool) -> io::Result<Self> {
        let hangup = of_terminal.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = hung_up(self.hangup.as_mut()) => {}
        }
    }
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => _ = hangup.recv().await,
        None => std::future::pending().await,
    }
}

/// Every connection needs a file descriptor; the usual soft limit of 1,024 is for programs that use `select`.
fn raise_descriptor_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let available = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    // Plugins, listeners, logs and the like.
    const OTHERS: u64 = 64;
    let needed = (config.limits.connections + config.limits.text_connections) as u64 + OTHERS;
    if available < needed {
        info!(available, needed, "file descriptors do not reach for all of limits.connections (ulimit -n)");
    }
}
