//! `serve`: logging, the server, the banner, signals, the exit code.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Exit, Failure};
use crate::app::App;
use crate::config::{Config, Loaded, Log};
use crate::credentials::{ROOT_KEY_FILE, RootKeySource};

pub(super) fn run(loaded: Loaded) -> Result<Exit, Failure> {
    let config = loaded.config;
    start_logging(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("chinwag-http")
        // They ask the store, which is work of the CPU and the disk: more threads would only wait for each other.
        .max_blocking_threads(8)
        .build()
        .context("cannot make the runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<Exit, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    for open in config.wukong.warnings() {
        tracing::warn!("{open}");
    }
    // seam: everything of a server is behind these four verbs.
    let app = App::start(config.clone()).await.map_err(|e| Failure::new(Exit::Start, format_args!("{e:#}")))?;
    print_banner(&banner(&config, &app));
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "draining; a second signal leaves at once");
    let report = tokio::select! {
        report = app.drain() => report,
        _ = terminate.recv() => return Ok(leave_at_once()),
        _ = interrupt.recv() => return Ok(leave_at_once()),
    };
    tracing::info!(clean = report.clean, "drained: {report}");
    Ok(if report.clean { Exit::Success } else { Exit::DrainCut })
}

/// The runtime would wait for blocking work that a drain was cut off from, so the process ends here.
#[expect(clippy::disallowed_methods, reason = "a second signal asks for exactly this")]
fn leave_at_once() -> Exit {
    tracing::warn!("a second signal: leaving without a drain");
    std::process::exit(Exit::Signal as i32)
}

fn start_logging(log: &Log) -> Result<(), Failure> {
    let filter =
        EnvFilter::try_new(&log.level).map_err(|e| Failure::new(Exit::Config, format_args!("log.level: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if log.format == "json" {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|e| Failure::new(Exit::Start, format_args!("logging cannot begin: {e}")))
}

/// What a newcomer reads: where it listens, where data and key are, what to type next.
fn banner(config: &Config, app: &App) -> String {
    let key_file = config.data_dir.join(ROOT_KEY_FILE);
    let root_key = match app.root_key() {
        RootKeySource::Made(path) => format!("{} (made now, readable by its owner only)", path.display()),
        RootKeySource::DataDir(path) | RootKeySource::ConfiguredFile(path) => path.display().to_string(),
        RootKeySource::Environment => "from CHINWAG_AUTH_ROOT_KEY".into(),
        RootKeySource::StoredHashOnly => format!("the one made earlier; {} was taken away", key_file.display()),
    };
    let mut text = format!(
        "chinwag {}\n  sockets   ws://{}\n  http      http://{} (API described in /openapi.json)\n  data      {}\n  root key  {root_key}\n",
        env!("CARGO_PKG_VERSION"),
        app.socket_addr(),
        app.http_addr(),
        config.data_dir.display(),
    );
    text.push_str(&format!(
        "\nnext, in another terminal:\n  {}\n",
        next_command(&std::env::current_exe().unwrap_or_default())
    ));
    text
}

/// From a build directory the chat example, which finds its way by itself; else a first token.
fn next_command(exe: &Path) -> &'static str {
    let profile = exe.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    match profile {
        Some("release") => "cargo run --release --example chat -- alice",
        Some("debug") => "cargo run --example chat -- alice",
        _ => "chinwag token alice",
    }
}

/// A closed stdout is no reason to stop serving.
fn print_banner(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_suits_how_the_server_was_started() {
        for (exe, expected) in [
            ("/src/chinwag/target/release/chinwag", "cargo run --release --example chat -- alice"),
            ("/src/chinwag/target/debug/chinwag", "cargo run --example chat -- alice"),
            ("/usr/bin/chinwag", "chinwag token alice"),
            ("", "chinwag token alice"),
        ] {
            assert_eq!(next_command(Path::new(exe)), expected);
        }
    }
}
