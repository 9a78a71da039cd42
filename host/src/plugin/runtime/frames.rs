//! The place where a plugin failed: the functions that were running. Their names are written only when somebody reads
//! them, and within bounds: names come from the plugin's file, and a mangled name of some hundred bytes may stand for a
//! name of gigabytes.

use std::fmt;
use std::sync::Arc;

use wasmtime::{FrameInfo, WasmBacktrace};

use crate::plugin::text::shown;

/// Most bytes of the name of a function or of its module.
const MAX_NAME: usize = 512;

/// The functions that were running when a call failed. Empty if the plugin was not running.
#[derive(Clone, Default)]
pub struct Frames(Option<Arc<wasmtime::Error>>);

impl Frames {
    /// Returns the frames of a trap.
    pub(crate) fn of(error: wasmtime::Error) -> Self {
        Self(error.is::<WasmBacktrace>().then(|| Arc::new(error)))
    }

    /// Returns `true` if there are no frames.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns a line for each frame, innermost first.
    pub fn lines(&self) -> Vec<String> {
        let backtrace = self.0.as_ref().and_then(|error| error.downcast_ref::<WasmBacktrace>());
        let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
        frames.iter().enumerate().map(|(number, frame)| line(number, frame)).collect()
    }
}

fn line(number: usize, frame: &FrameInfo) -> String {
    let module = shown(frame.module().name().unwrap_or("?"), MAX_NAME);
    let function = match frame.func_name() {
        Some(name) => demangled(name),
        None => format!("function {}", frame.func_index()),
    };
    match frame.module_offset() {
        Some(offset) => format!("{number}: {offset:#x} - {module}!{function}"),
        None => format!("{number}: {module}!{function}"),
    }
}

/// Returns the name of a Rust function as in its source, and other names unchanged. A name that is too long to be shown
/// is not read further.
fn demangled(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(name) => shown(name, MAX_NAME),
        Err(_) => shown(name, MAX_NAME),
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn names_are_those_of_the_source_and_bounded() {
        assert_eq!(demangled("_ZN4room4find17h0123456789abcdefE"), "room::find::h0123456789abcdef");
        assert_eq!(demangled("main"), "main");
    }

    #[test]
    fn a_name_that_stands_for_a_huge_one_costs_no_more_than_others() {
        let begun = Instant::now();
        // In Rust: each tuple holds the tuple before it twice. Positions are counted after the `_R`.
        let mut name = "_RIC1aTuuE".to_owned();
        let mut before = 4;
        for _ in 0..60 {
            let here = name.len() - 2;
            name += &format!("TB{0}B{0}E", base_62(before));
            before = here;
        }
        let shown = demangled(&(name + "E"));
        assert!(shown.starts_with("a::<((), ()), (((), ()), ((), ())), ") || shown.starts_with("a<"), "{shown}");
        assert!((MAX_NAME..MAX_NAME + 4).contains(&shown.len()), "{shown}");
        // In C++, which is not demangled: each type names the type before it twice.
        let mut name = "_Z1f1a1pIS_S_E".to_owned();
        for digit in ('1'..='9').chain('A'..='Z') {
            name += &format!("S0_IS{digit}_S{digit}_E");
        }
        assert_eq!(demangled(&name), name);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    fn base_62(number: usize) -> String {
        const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let Some(mut number) = number.checked_sub(1) else { return "_".to_owned() };
        let mut text = "_".to_owned();
        loop {
            text.insert(0, DIGITS[number % 62] as char);
            number /= 62;
            if number == 0 {
                return text;
            }
        }
    }
}
