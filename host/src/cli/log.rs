//! The log: lines on standard error, written by a thread of its own. A terminal, pipe or disk that takes no more lines
//! must not stall the gateway: such lines are lost and counted, and the log reports their number when it can be written
//! again.

use std::convert::Infallible;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::time::Duration;

use super::keep::Keeper;
use crate::base::metrics::METRICS;
use crate::base::verbosity::VERBOSITY;
use crate::config::{LogConfig, LogFormat};
use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The most lines that wait to be written.
const WAITING_LINES: usize = 8192;

/// How often lost lines are reported.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Starts the log; `keeps` tells whether the last lines are kept. Dropping the guard writes the lines that are still
/// queued.
pub(super) fn start(config: &LogConfig, keeps: bool) -> (WorkerGuard, ErrorCounter) {
    let output = Output { stream: io::stderr(), is_broken: false };
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).finish(output);
    let lost = writer.error_counter();
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    // Checked when the configuration was loaded.
    let targets = targets(&config.level).unwrap_or_default();
    let keeper = keeps.then_some(Keeper);
    match config.format {
        LogFormat::Text => {
            let (targets, handle) = reload::Layer::new(targets);
            log.finish().with(keeper).with(targets).init();
            VERBOSITY.begin(&config.level, move |level| apply(&handle, level));
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let (targets, handle) = reload::Layer::new(targets);
            log.finish().with(keeper).with(targets).init();
            VERBOSITY.begin(&config.level, move |level| apply(&handle, level));
        }
    }
    (guard, lost)
}

/// Reads directives, which say what is logged.
fn targets(directives: &str) -> Result<Targets, String> {
    let targets: Targets = directives.parse().map_err(|error| format!("{error}"))?;
    // What it says is said by `hub::exchange`, in words for operators.
    Ok(targets.with_target("async_nats", LevelFilter::OFF))
}

/// Puts directives into effect.
fn apply<S>(handle: &reload::Handle<Targets, S>, directives: &str) -> Result<(), String> {
    handle.reload(targets(directives)?).map_err(|error| error.to_string())
}

/// The output of the log's thread.
struct Output<W> {
    stream: W,
    /// True if only a part of the last line was written.
    is_broken: bool,
}

impl<W: Write> Write for Output<W> {
    /// Writes a line, or counts it as lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.write_line(line).is_err() {
            METRICS.log_lines_lost.increment();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<W: Write> Output<W> {
    /// Writes a line. If only a part of the last line was written, ends that one first.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_broken {
            self.stream.write_all(b"\n")?;
            self.is_broken = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.is_broken = !rest.is_empty();
        }
        Ok(())
    }
}

/// Reports from time to time how many lines were lost. If the report is lost, too, it counts as a lost line and the
/// next report follows.
pub(super) async fn report_lost(counter: ErrorCounter) -> Infallible {
    let (mut dropped, mut reported) = (0, 0);
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        let now = counter.dropped_lines();
        METRICS.log_lines_lost.add(now.saturating_sub(dropped) as u64);
        dropped = now;
        let lost = METRICS.log_lines_lost.get();
        if lost > reported {
            reported = lost;
            warn!(lost, "log lines lost since the start: standard error is not read fast enough, or cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk that has room for some bytes.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.written.extend(&bytes[..count]);
            if count == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_spoils_no_other_line() {
        let disk = Disk { written: Vec::new(), room: 10 };
        let mut output = Output { stream: disk, is_broken: false };
        let before = METRICS.log_lines_lost.get();
        for line in ["first\n", "second\n", "third\n"] {
            output.write_all(line.as_bytes()).expect("the log's thread goes on");
        }
        assert_eq!(METRICS.log_lines_lost.get() - before, 2);
        output.stream.room = 100;
        output.write_all(b"fourth\n").expect("the log's thread goes on");
        output.write_all(b"fifth\n").expect("the log's thread goes on");
        assert_eq!(String::from_utf8_lossy(&output.stream.written), "first\nseco\nfourth\nfifth\n");
    }
}
