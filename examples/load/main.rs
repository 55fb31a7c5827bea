//! A load generator that verifies what it measures.
//!
//! One thread, raw non-blocking sockets and one epoll set, so that one core of it can drive one core of a server. It sets
//! up users and channels over HTTP, opens the connections, sends in an open or a closed loop, receives as the default
//! client does (receipts, gap notices answered by history), and at the end holds its books against what came.

mod args;
#[path = "../common/backend.rs"]
mod backend;
#[path = "../common/fleet.rs"]
mod fleet;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/msgpack.rs"]
mod msgpack;
mod payload;
mod plan;
#[path = "../common/procfs.rs"]
mod procfs;
#[path = "../common/raw.rs"]
mod raw;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod world;
#[path = "../common/wukong.rs"]
mod wukong;

use std::process::ExitCode;

use anyhow::{Context, Result};
use args::Args;
use clap::Parser;
use plan::Plan;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let (backend, key) = plan::backend(&args.http, &args.data_dir)?;
    let mut plan = Plan::new(&args)?;
    eprintln!("prefix {} seed {}", plan.prefix, plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    if args.no_setup {
        runtime.block_on(plan.read_bases(&backend))?;
    } else {
        runtime.block_on(plan.set_up(&backend, &key))?;
        if args.prefix.is_some() {
            runtime.block_on(plan.read_bases(&backend))?;
        }
    }
    if args.setup_only {
        eprintln!("users and channels are there: run again with --prefix {} --no-setup", plan.prefix);
        return Ok(ExitCode::SUCCESS);
    }
    drop(backend);
    drop(runtime);
    let report = run::run(&args, plan, &key)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
