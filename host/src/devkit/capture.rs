//! Captures the log lines of a plugin that the devkit runs, and keeps them until they are taken.

use std::fmt::{self, Write as _};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The lines that were captured and not taken yet.
static CAPTURED: Mutex<String> = Mutex::new(String::new());

/// Captures the log lines of plugins from now on.
pub fn listen() {
    let targets = Targets::new().with_target("plugin", LevelFilter::TRACE);
    // Fails if the process has a subscriber already.
    let _ = tracing_subscriber::registry().with(Capture.with_filter(targets)).try_init();
}

/// Takes the lines that were captured since the last call: one line for each line of the log.
pub(super) fn take() -> String {
    std::mem::take(&mut *CAPTURED.lock())
}

/// The layer that captures.
struct Capture;

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = event.metadata().level().as_str().to_lowercase();
        let _ = writeln!(CAPTURED.lock(), "logged ({level}): {}", line.0);
    }
}

/// Collects the field of an event that holds the line.
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "line" {
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "line" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
