//! Prints the answer of a command on standard output, and problems on standard error.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::plugin::{is_harmful, tame};

/// The exit code for settings that cannot be used: `EX_CONFIG` of sysexits.h. It tells a supervisor that starting again
/// will not help.
pub(super) const EXIT_CONFIG: u8 = 78;

/// Prints text for people. Some of it may come from plugins, so characters that could harm a terminal are replaced.
pub(super) fn show(text: &str) -> ExitCode {
    print(&tame(text))
}

/// Prints JSON. Escapes characters that could harm a terminal; they can only be inside strings.
pub(super) fn print_json(json: &serde_json::Value) -> ExitCode {
    print(&(escaped(&format!("{json:#}")) + "\n"))
}

/// Prints JSON in one line, and escapes it as [`print_json`] does.
pub(super) fn print_json_line(json: &serde_json::Value) -> ExitCode {
    print(&(escaped(&json.to_string()) + "\n"))
}

fn escaped(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        match is_harmful(c) && c != '\n' {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
            false => text.push(c),
        }
    }
    text
}

/// Prints text. Unlike `println!`, this does not panic when a pager closes the pipe early.
pub(super) fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                complain(&format_args!("cannot write the answer: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints a problem on standard error. If standard error is closed, the problem is lost.
pub(super) fn complain(problem: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "hotgate: {}", tame(&problem.to_string()));
}

/// Prints on standard error why the configuration is refused, and returns the exit code for that.
pub(super) fn refuse(error: &dyn fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(EXIT_CONFIG)
}
