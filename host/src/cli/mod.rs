//! The command line: runs a command with its settings.

mod arguments;
mod author;
mod client;
mod cluster;
mod config;
mod dashboard;
mod deploy;
mod dev;
mod drain;
mod failure;
mod keep;
mod log;
mod output;
mod plugin;
mod reach;
mod serve;
mod show;
mod signals;
mod slots;
mod status;
mod token;
mod trace;

use std::process::ExitCode;

use self::arguments::{Command, parse};
use self::serve::serve;
use crate::edge::listener::Inherited;

/// Runs the command. Returns the exit code of the process: 78 for settings that cannot be used.
pub fn run() -> ExitCode {
    let cli = parse();
    match &cli.command {
        Command::ConfigCheck => config::check(&cli.source),
        Command::ConfigPrint => config::print(&cli.source),
        Command::Plugin(arguments) => plugin::run(arguments, &cli.source),
        Command::Cluster(arguments) => cluster::run(arguments, &cli.source),
        Command::Dashboard(arguments) => dashboard::run(arguments, &cli.source),
        Command::Drain(arguments) => drain::run(arguments, &cli.source),
        Command::Status(arguments) => status::run(arguments, &cli.source),
        Command::Ready(probe) => status::ready(probe, &cli.source),
        Command::Token(action) => token::run(action),
        Command::Trace(arguments) => trace::run(arguments, &cli.source),
        Command::Serve => serve::run(cli.source),
        Command::Dev(folder) => match dev::prepare(&cli.source, folder) {
            Ok((config, source, builder)) => serve(config.into(), source, Inherited::default(), Some(builder)),
            Err(code) => code,
        },
    }
}
