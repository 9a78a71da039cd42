//! What a plugin says while it is tried: its log lines, kept until somebody asks.

use std::fmt::{self, Write as _};

use parking_lot::{Mutex, MutexGuard};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What was said and not asked for yet, in lines.
static SAID: Mutex<String> = Mutex::new(String::new());

/// Listens to plugins from now on.
pub fn listen() {
    let targets = Targets::new().with_target("plugin", LevelFilter::TRACE);
    // Fails when somebody listens already.
    let _ = tracing_subscriber::registry().with(Voice.with_filter(targets)).try_init();
}

/// What was said since the last time, a line of the log a line.
pub(super) fn take() -> String {
    std::mem::take(&mut *said())
}

fn said() -> MutexGuard<'static, String> {
    SAID.lock()
}

struct Voice;

impl<S: Subscriber> Layer<S> for Voice {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = event.metadata().level().as_str().to_lowercase();
        let _ = writeln!(said(), "says ({level}): {}", line.0);
    }
}

/// The field that holds what was said.
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
