//! `hotgate dashboard`: prints an address at which a browser shows the dashboard.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, Target};
use super::failure::Failure;
use super::output::show;
use crate::config::Source;
use crate::edge::http::token::ADMIN_FILE;

/// The command, and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    /// Whoever opens the address can look at everything, and change nothing
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    target: Target,
}

/// Asks the gateway for a code, and prints the address with it.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let client = Client::new(&arguments.target, ADMIN_FILE, source);
    match client.and_then(|client| address(&client, arguments)) {
        Ok(text) => show(&text),
        Err(failure) => failure.report(),
    }
}

fn address(client: &Client, arguments: &Arguments) -> Result<String, Failure> {
    let path = if arguments.read_only { "/codes?read-only=true" } else { "/codes" };
    let answer = client.ask(Method::POST, path, ())?;
    let code = answer["code"].as_str();
    let code = code.ok_or_else(|| Failure::Failed("the answer of the gateway has no code".to_owned()))?;
    Ok(text(&client.page(), code, &answer["expires_in_seconds"]))
}

/// Returns what is printed. `page` is the address of the page, or the path of the Unix socket that leads to it.
fn text(page: &Result<String, String>, code: &str, seconds: &Value) -> String {
    let works = format!("The address works once, within {seconds} s.");
    match page {
        Ok(url) => format!("{url}/#code={code}\n\n{works}\n"),
        Err(socket) => format!(
            "http://localhost:1235/#code={code}\n\n{works} The admin listener is a Unix socket, which browsers do not \
             open. First forward a port to it, on the machine with the browser:\n  ssh -L 1235:{socket} HOST\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_alone_in_the_first_line() {
        let text = |page| text(&page, "c0de", &60.into());
        let page = text(Ok("https://gateway.test:1235".to_owned()));
        assert_eq!(page, "https://gateway.test:1235/#code=c0de\n\nThe address works once, within 60 s.\n");
        let unix = text(Err("/run/hotgate/admin".to_owned()));
        assert!(
            unix.starts_with("http://localhost:1235/#code=c0de\n")
                && unix.contains("ssh -L 1235:/run/hotgate/admin HOST")
        );
    }
}
