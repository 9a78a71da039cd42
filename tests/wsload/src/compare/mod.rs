//! `wsload compare`: measures Hotgate and servers with compiled-in rules on the same cores, one after the other.

mod chart;
mod doubts;
mod lab;
mod measure;
mod plugins;
mod row;
mod server;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use self::lab::Lab;
use self::row::{Measured, ROWS, Row, Work};
use self::server::Programs;
use crate::open::require_descriptors;
use crate::pinned;

/// The reference server of this repository.
const NODE_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/node/server.mjs");
/// The packages that it needs.
const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/node/node_modules");
/// Bun, as npm installs it.
const BUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/bun/node_modules/.bin/bun");

#[derive(Args, Clone)]
pub(crate) struct CompareArgs {
    /// The gateway [default: `hotgate` in wsload's folder]
    #[arg(long)]
    hotgate: Option<PathBuf>,
    /// The program that runs the reference server
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// The reference server [default: the one in tests/peers/node]
    #[arg(long)]
    node_server: Option<PathBuf>,
    /// The folder with origin_auth.wasm and origin_router.wasm [default: cargo builds them]
    #[arg(long)]
    plugins: Option<PathBuf>,
    /// Number of rounds; the order of the servers alternates
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured seconds of each run
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rows of the table, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = ROWS.map(|row| row.name))]
    only: Vec<String>,
    /// The folder for table, picture, figures and logs
    #[arg(long, default_value = "target/compare")]
    out: PathBuf,
}

/// Exit codes: 0 for success, 2 if it could not begin, 3 if a message was lost or wrong, or a row could not be
/// measured.
pub(crate) fn run(args: &CompareArgs) -> ExitCode {
    match compare(args) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("\nwsload compare: faults:");
            faults.iter().for_each(|fault| eprintln!("  {fault}"));
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("wsload compare: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(args: &CompareArgs) -> Result<Vec<String>, String> {
    let mut rows: Vec<&'static Row> =
        ROWS.iter().filter(|row| args.only.is_empty() || args.only.iter().any(|name| name == row.name)).collect();
    if !Path::new(BUN).is_file() {
        let missing = format!("there is no {BUN}: npm ci --prefix tests/peers/bun");
        if rows.iter().all(|row| row.beside == "bun") {
            return Err(missing);
        }
        eprintln!("the rows with Bun are left out: {missing}");
        rows.retain(|row| row.beside != "bun");
    }
    fs::create_dir_all(&args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let scratch = tempfile::tempdir_in(&args.out).map_err(|error| format!("no temporary folder: {error}"))?;
    let mut lab = prepare(args, &rows, scratch.path())?;

    let mut measured: Vec<Measured> = rows.iter().map(|row| Measured { row, pairs: Vec::new() }).collect();
    for round in 1..=args.rounds {
        for this in &mut measured {
            eprintln!("round {round} of {}: {}", args.rounds, this.row.title);
            (lab.round, lab.row) = (round, this.row.name);
            match lab.measure(this.row.work) {
                Ok(pair) => this.pairs.push(pair),
                Err(why) => lab.faults.push(format!("{}, round {round}: not measured: {why}", this.row.name)),
            }
        }
    }

    let table = table::markdown(&measured, args.rounds);
    let doubts = doubts::doubts(&lab.runs);
    let table = doubts.iter().fold(table, |table, doubt| format!("{table}\n{doubt}\n"));
    println!("{table}");
    let all = json!({
        "rounds": args.rounds, "seconds": args.seconds, "table": table::json(&measured),
        "faults": lab.faults, "doubts": doubts, "runs": lab.runs,
    });
    for (name, text) in
        [("compare.md", table), ("compare.svg", chart::svg(&measured)), ("compare.json", format!("{all:#}\n"))]
    {
        write(&args.out.join(name), &text)?;
    }
    eprintln!("table, picture and figures are in {}", args.out.display());
    Ok(lab.faults)
}

/// Checks everything that is needed, before minutes are spent on measuring.
fn prepare(args: &CompareArgs, rows: &[&Row], scratch: &Path) -> Result<Lab, String> {
    let &[first, second, ..] = pinned::cores().as_slice() else {
        return Err("two cores are needed, one for the server and one for wsload".into());
    };
    if !(args.seconds >= 1.0 && args.seconds <= 600.0) {
        return Err("--seconds must be between 1 and 600".into());
    }
    if rows
        .iter()
        .any(|row| matches!(row.work, Work::Memory { .. } | Work::Broadcast | Work::ApiBroadcast | Work::Storm))
    {
        require_descriptors(measure::IDLE as usize + 1000)?;
    }
    let hotgate = match &args.hotgate {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("hotgate"),
    };
    if !hotgate.is_file() {
        return Err(format!("there is no {}: cargo build --release -p hotgate", hotgate.display()));
    }
    let node_server = match &args.node_server {
        Some(path) => path.clone(),
        None if Path::new(NODE_MODULES).is_dir() || rows.iter().all(|row| row.beside != "node") => NODE_SERVER.into(),
        None => return Err(format!("there is no {NODE_MODULES}: npm ci --prefix tests/peers/node")),
    };
    let plugins = match &args.plugins {
        Some(folder) => folder.clone(),
        None if rows.iter().any(|row| row.work == Work::Swap) => plugins::build()?,
        None => PathBuf::new(),
    };
    let logs = args.out.join("logs");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    Ok(Lab {
        programs: Programs { hotgate, node: args.node.clone(), node_server, bun: BUN.into(), plugins },
        cores: [first, second],
        seconds: args.seconds,
        scratch: scratch.to_owned(),
        logs,
        round: 0,
        row: "",
        runs: Vec::new(),
        faults: Vec::new(),
    })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
