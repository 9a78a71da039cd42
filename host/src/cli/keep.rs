//! Keeps the last lines of the log, for the dashboard.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::base::recent::{LogLine, RECENT};

/// The largest number that JavaScript reads exactly. Ids of a cluster are larger.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// The most bytes of a message, and of all fields beside it.
const MESSAGE: usize = 1 << 10;
const FIELDS: usize = 3 << 10;
/// The bytes that a field takes beside its text.
const FIELD: usize = 64;

/// Keeps each line of the log in [`RECENT`].
pub(super) struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut reader = Reader { message: String::new(), fields: Map::new(), left: FIELDS };
        event.record(&mut reader);
        let bytes = size_of::<LogLine>() + reader.message.len() + FIELDS - reader.left;
        let line = LogLine {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: event.metadata().level().as_str(),
            message: reader.message,
            fields: reader.fields,
        };
        RECENT.push(bytes, Arc::new(line));
    }
}

/// Reads the fields of an event.
struct Reader {
    message: String,
    fields: Map<String, Value>,
    /// How many bytes the fields may still take.
    left: usize,
}

impl Reader {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        if let Some(left) = self.left.checked_sub(FIELD) {
            self.left = left;
            self.fields.insert(field.name().to_owned(), value.into());
        }
    }

    fn add_text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        if field.name() == "message" {
            self.message = cut(text, MESSAGE);
        } else {
            let text = cut(text, self.left.saturating_sub(FIELD));
            let bytes = text.len();
            self.add(field, text);
            self.left = self.left.saturating_sub(bytes);
        }
    }
}

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match value {
            0..=MAX_EXACT => self.add(field, value),
            _ => self.add_text(field, format_args!("{value}")),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }
}

/// Writes a text, and cuts it after so many bytes.
fn cut(text: fmt::Arguments<'_>, bytes: usize) -> String {
    let mut cut = Cut { text: String::new(), left: bytes };
    // Fails if the text is too long. The rest is not kept.
    if cut.write_fmt(text).is_err() {
        cut.text.push('…');
    }
    cut.text
}

/// A text that takes only so many bytes.
struct Cut {
    text: String,
    left: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fitting = text.floor_char_boundary(self.left);
        self.text.push_str(&text[..fitting]);
        self.left -= fitting;
        if fitting < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{error, info};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry::Registry;

    use super::*;

    #[test]
    fn a_line_is_kept_with_its_fields_and_within_its_bound() {
        with_default(Registry::default().with(Keeper), || {
            let (long, peer) = ("é".repeat(FIELDS), std::net::Ipv4Addr::LOCALHOST);
            info!(%peer, count = 3, is = true, word = "a\u{1b}b", "kept {}", 1);
            error!(long, after = "x", "kept 2");
        });
        let lines = RECENT.since(0, usize::MAX).entries;
        let kept: Vec<_> = lines.iter().filter(|(_, line)| line.message.starts_with("kept")).collect();
        let (short, long) = (&kept[0].1, &kept[1].1);
        let expected = serde_json::json!({ "peer": "127.0.0.1", "count": 3, "is": true, "word": "a\u{1b}b" });
        assert_eq!((short.level, &*short.message, Value::from(short.fields.clone())), ("INFO", "kept 1", expected));
        let text = long.fields["long"].as_str().unwrap();
        assert!((FIELDS - 200..FIELDS + 4).contains(&text.len()) && text.ends_with('…'), "{}", text.len());
        assert!(!long.fields.contains_key("after") && long.level == "ERROR");
    }
}
