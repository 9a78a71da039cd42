//! `hotgate token`: makes tokens for the HTTP push API.

use std::process::ExitCode;

use clap::Subcommand;

use super::output::{complain, print};
use crate::config::token_name;
use crate::edge::http::token::Token;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(super) enum Action {
    /// Make a token, and print it with the lines for the configuration; no gateway needs to run
    New {
        /// The token's name, for the log: letters, digits, "-", "_" and "."
        #[arg(value_parser = token_name)]
        name: String,
    },
}

/// Runs a command.
pub(super) fn run(action: &Action) -> ExitCode {
    let Action::New { name } = action;
    match Token::random() {
        Ok(token) => print(&text(name, &token)),
        Err(error) => {
            complain(&format_args!("cannot make a token: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn text(name: &str, token: &Token) -> String {
    let digest = token.digest();
    format!(
        "\
The token of {name}. It is shown only here; give it to the system that pushes:

{token}

Add these lines to the gateway's configuration file, and change them to what the token may do. They take effect at once.
From then on, the token in the state folder (api-token) opens nothing: only tokens in the configuration do.

[[api.token]]
name = \"{name}\"
sha256 = \"{digest}\"
# Also: \"push:group\", \"push:everyone\", \"line\", \"kick\", \"membership\", \"events\".
scopes = [\"push:uid\", \"query\"]
# Only these uids and groups; \"*\" stands for any run of characters.
# uids = [\"shop-*\"]
# groups = [\"news-*\"]
# Requests and items a second.
# rate = 100
",
        token = token.text(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scope;

    #[test]
    fn what_is_printed_names_every_scope_and_shows_the_token_once() {
        let token = Token::random().unwrap();
        let text = text("billing", &token);
        for (word, _) in Scope::ALL {
            assert!(text.contains(&format!("\"{word}\"")), "{word}");
        }
        assert_eq!(text.matches(token.text()).count(), 1);
        assert!(text.find(token.text()) < text.find("[[api.token]]"));
    }
}
