//! Runs the gateway until a signal ends it: the log, the runtime, the gateway, the drain.

use std::convert::Infallible;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::log;
use super::output::{EXIT_CONFIG, refuse};
use super::signals::Signals;
use crate::config::{Config, Loaded, Source};
use crate::devkit::dev::Builder;
use crate::edge::drain::Ending;
use crate::edge::listener::Inherited;
use crate::gateway::{Gateway, StartError};

/// Loads the settings and serves. Sockets that systemd has passed take the place of the configured addresses.
pub(super) fn run(mut source: Source) -> ExitCode {
    let taken = Inherited::take().and_then(|inherited| {
        inherited.apply(&mut source.overrides)?;
        Ok(inherited)
    });
    let inherited = match taken {
        Ok(inherited) => inherited,
        Err(error) => return refuse(&format_args!("{error:#}")),
    };
    let loaded = match source.load_to_serve() {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    match inherited.check(&loaded.config) {
        Ok(()) => serve(loaded, source, inherited, None),
        Err(error) => refuse(&error),
    }
}

/// Serves with these settings, on the sockets in `inherited` where there are some. `builder` builds the plugin again on
/// each change, for `hotgate dev`.
pub(super) fn serve(loaded: Loaded, source: Source, inherited: Inherited, builder: Option<Builder>) -> ExitCode {
    // Dropped last: dropping it writes the lines that are still queued.
    let (_log, lost) = log::start(&loaded.config.log, loaded.config.admin.enabled);
    raise_descriptor_limit(&loaded.config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        // SIGHUP must not end a gateway that is starting. Only for `hotgate dev` it does: the terminal was closed.
        let signals = Signals::new(builder.is_some());
        // At a file size limit (`ulimit -f`) only the write must fail, as on a full disk. SIGXFSZ would end the
        // gateway.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        let (mut signals, hangup) = match signals.and_then(|ends| Ok((ends, signal(SignalKind::hangup())?))) {
            Ok(signals) => signals,
            Err(error) => {
                error!(%error, "cannot listen for signals");
                return ExitCode::FAILURE;
            }
        };
        let gateway = tokio::select! {
            started = Gateway::start(loaded, inherited) => match started {
                Ok(gateway) => gateway,
                Err(error) => {
                    error!(error = format!("{error:#}"), "cannot start");
                    return match error {
                        StartError::Plugin(_) | StartError::Tls(_) | StartError::Cluster(_) | StartError::InUse(_) => {
                            ExitCode::from(EXIT_CONFIG)
                        }
                        StartError::Listen(_) | StartError::Alone(_) => ExitCode::FAILURE,
                    };
                }
            },
            _ = signals.next() => return ExitCode::SUCCESS,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let twice = async {
            let _ = stop.send(signals.next().await);
            signals.next().await;
        };
        tokio::select! {
            end = gateway.run(source, hangup, async { stopped.await.unwrap_or(Ending::Quick) }) => match end {
                Ok(()) => ExitCode::SUCCESS,
                // Once it starts again, it may find a place in the cluster, or says what is wrong with its settings.
                Err(_logged) => ExitCode::FAILURE,
            },
            () = twice => {
                warn!("second signal: ending at once");
                ExitCode::FAILURE
            }
            never = log::report_lost(lost) => match never {},
            never = build(builder) => match never {},
        }
    });
    // This cuts off tasks that have not ended by now.
    runtime.shutdown_background();
    code
}

/// Builds the plugin on each change, for `hotgate dev`. Without a builder, waits for ever.
async fn build(builder: Option<Builder>) -> Infallible {
    match builder {
        Some(builder) => builder.run().await,
        None => std::future::pending().await,
    }
}

/// Raises the limit of file descriptors, because every connection needs one. The usual soft limit of 1,024 is for
/// programs that use `select`.
fn raise_descriptor_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let available = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    // For plugins, listeners, logs and the like.
    const OTHERS: u64 = 64;
    let api = if config.api.enabled { config.api.connections } else { 0 };
    let needed = (config.limits.connections + config.limits.text_connections + api) as u64 + OTHERS;
    if available < needed {
        info!(available, needed, "too few file descriptors for limits.connections (ulimit -n)");
    }
}
