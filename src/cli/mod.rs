//! The command line: flags, subcommands, exit codes.
//!
//! Owns what a person types and reads. Refuses to know how anything is done: `serve` builds the [`crate::app::App`], the
//! other commands speak to a running server over HTTP, or to the data directory when none runs. Errors are one line on
//! stderr; what a script wants is alone on stdout.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Loaded, Sources, load};

mod care;
mod chat;
mod client;
mod keys;
mod offline;
mod serve;
mod show;
mod wukongim;

/// How the process ends. Documented in `--help` and docs/operations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// The command failed; stderr says why.
    Failed = 1,
    /// The command line makes no sense (clap's own code).
    Usage = 2,
    /// The configuration is refused.
    Config = 3,
    /// The server cannot start: port, data directory, format.
    Start = 4,
    /// The drain was cut off by `drain_timeout_ms`.
    DrainCut = 5,
    /// A second signal ended the process at once.
    Signal = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command: its code and its line.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    fn new(exit: Exit, text: impl std::fmt::Display) -> Self {
        Self { exit, text: text.to_string() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    /// Any other error, with its causes in one line.
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, text: format!("{:#}", error.into()) }
    }
}

const AFTER_HELP: &str = "\
Settings come from a file (chinwag.toml, or --config), then the environment (CHINWAG_…), then flags.
`chinwag config show` lists every key with its value, origin and environment variable.

Exit codes: 0 done · 1 failed · 2 wrong command line · 3 configuration refused · 4 cannot start (port,
data directory, format) · 5 drain cut off by drain_timeout_ms · 130 ended by a second signal";

/// A real-time messaging server: every message numbered, durable and delivered or told.
#[derive(Debug, Parser)]
#[command(name = "chinwag", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Settings {
    /// Configuration file [default: chinwag.toml, if there is one]
    #[arg(long, short, global = true, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// Directory of log, view and secrets (data_dir)
    #[arg(long, alias = "data", global = true, value_name = "DIR", help_heading = "Settings")]
    data_dir: Option<String>,
    /// Where WebSocket clients connect (listen.socket)
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = "Settings")]
    listen_socket: Option<String>,
    /// Where the HTTP API listens (listen.http)
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = "Settings")]
    listen_http: Option<String>,
    /// Where WuKongIM's clients connect over TCP, empty: nowhere (wukong.tcp_listen)
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = "Settings")]
    wukong_tcp_listen: Option<String>,
    /// Connection shards, 0: one per core (shards)
    #[arg(long, global = true, value_name = "N", help_heading = "Settings")]
    shards: Option<String>,
    /// Listen beyond this machine without TLS (insecure)
    #[arg(long, global = true, help_heading = "Settings")]
    insecure: bool,
    /// error, warn, info, debug, trace or a filter (log.level)
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Settings")]
    log_level: Option<String>,
    /// text or json (log.format)
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Settings")]
    log_format: Option<String>,
    /// Any other key, as often as needed: --set limits.group.members_max=500
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Settings")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve,
    /// Make a token for a user and print it
    ///
    /// Speaks to the running server, or to the data directory when none runs.
    Token(keys::TokenArgs),
    /// API keys of back ends: create, list, rotate, revoke
    ///
    /// Speaks to the running server, or to the data directory when none runs.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Chats of a running server: new, send, history, connect; prints the API's JSON
    ///
    /// The same lines work when the program is called as `micro`.
    Chat(chat::ChatArgs),
    /// Read everything in the data directory and compare it; changes nothing, needs the server stopped
    ///
    /// Exit codes: 0 sound, 1 something was found, 2 it could not be checked.
    Check(care::CheckArgs),
    /// Copy everything acked so far into a directory, and later only what is new; the server may run
    Backup(care::BackupArgs),
    /// Restore a backup into an absent or empty data directory and verify it; clients are told to sync anew
    Restore(care::RestoreArgs),
    /// Write every channel as NDJSON, a file each; the server may run
    Export(care::ExportArgs),
    /// Make a data directory of an export, in an absent or empty directory, and verify it
    Import(care::ImportArgs),
    /// Say what stops a start and what cutting it away would lose; with --accept-loss do it, keeping aside what is cut
    Repair(care::RepairArgs),
    /// Set the view aside and make it again from the log; needs the server stopped
    Rebuild,
    /// The configuration: check it, show it, print the example file
    #[command(subcommand)]
    Config(show::ConfigCommand),
    /// Print the version
    Version,
}

impl Settings {
    fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Vec::new();
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(Failure::new(Exit::Usage, format_args!("--set {assignment:?} is not KEY=VALUE")));
            };
            flags.push((key.trim().to_owned(), value.trim().to_owned(), format!("--set {}", key.trim())));
        }
        let mut named = |key: &str, value: &Option<String>, flag: &str| {
            if let Some(value) = value {
                flags.push((key.to_owned(), value.clone(), flag.to_owned()));
            }
        };
        named("data_dir", &self.data_dir, "--data-dir");
        named("listen.socket", &self.listen_socket, "--listen-socket");
        named("listen.http", &self.listen_http, "--listen-http");
        named("wukong.tcp_listen", &self.wukong_tcp_listen, "--wukong-tcp-listen");
        named("shards", &self.shards, "--shards");
        named("log.level", &self.log_level, "--log-level");
        named("log.format", &self.log_format, "--log-format");
        named("insecure", &self.insecure.then(|| "true".to_owned()), "--insecure");
        Ok(Sources::of_process(self.config.clone(), flags))
    }

    fn load(&self) -> Result<Loaded, Failure> {
        load(&self.sources()?).map_err(|e| Failure::new(Exit::Config, e))
    }
}

/// Runs a command line to its end.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end here too, with code 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("chinwag: {}", failure.text);
            failure.exit.into()
        }
    }
}

/// The name the chat commands are called by in m3o.txt: a link to this program.
const MICRO: &str = "micro";

/// Reads a command line. Called as `micro` it is a client, so no command does not mean to run a server.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let called = args.first().map(std::path::Path::new).and_then(std::path::Path::file_stem);
    if called != Some(std::ffi::OsStr::new(MICRO)) {
        return Cli::try_parse_from(args);
    }
    let command = Cli::command().name(MICRO).bin_name(MICRO).subcommand_required(true).arg_required_else_help(true);
    Cli::from_arg_matches(&command.try_get_matches_from(args)?)
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    match cli.command.as_ref().unwrap_or(&Command::Serve) {
        Command::Serve => serve::run(cli.settings.load()?),
        Command::Token(args) => keys::token(&cli.settings.load()?.config, args),
        Command::Key(command) => keys::run(&cli.settings.load()?.config, command),
        Command::Chat(args) => chat::run(&cli.settings.load()?.config, args),
        Command::Check(args) => care::run_check(&cli.settings.load()?.config, args),
        Command::Backup(args) => care::run_backup(&cli.settings.load()?.config, args),
        Command::Restore(args) => care::run_restore(&cli.settings.load()?.config, args),
        Command::Export(args) => care::run_export(&cli.settings.load()?.config, args),
        Command::Import(args) => care::run_import(&cli.settings.load()?.config, args),
        Command::Repair(args) => care::run_repair(&cli.settings.load()?.config, args),
        Command::Rebuild => care::run_rebuild(&cli.settings.load()?.config),
        Command::Config(command) => show::run(&cli.settings, command),
        Command::Version => {
            println!("chinwag {}", env!("CARGO_PKG_VERSION"));
            Ok(Exit::Success)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        try_parse(line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    fn try_parse(line: &str) -> Result<Cli, clap::Error> {
        super::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_go_before_and_after_the_command() {
        for line in
            ["chinwag --data-dir d --set shards=3 token alice", "chinwag token alice --data-dir d --set shards=3"]
        {
            let sources = parse(line).settings.sources().expect("valid");
            assert!(sources.flags.contains(&("data_dir".into(), "d".into(), "--data-dir".into())), "{line}");
            assert!(sources.flags.contains(&("shards".into(), "3".into(), "--set shards".into())), "{line}");
        }
        assert!(parse("chinwag").command.is_none());
        assert!(parse("chinwag --set x").settings.sources().is_err());
    }

    #[test]
    fn micro_is_a_client_and_never_a_server() {
        assert!(try_parse("micro").is_err() && try_parse("/usr/bin/micro").is_err());
        for name in ["micro", "./micro", "/usr/bin/micro", "chinwag"] {
            let line = format!("{name} chat new --user_ids=JohnBarry");
            assert!(matches!(parse(&line).command, Some(Command::Chat(_))), "{line}");
        }
    }

    #[test]
    fn every_flag_is_a_key() {
        let line = "chinwag --data-dir d --listen-socket 127.0.0.1:1 --listen-http 127.0.0.1:2 --shards 1 --insecure \
                    --wukong-tcp-listen 127.0.0.1:3 --log-level info --log-format json";
        let mut sources = parse(line).settings.sources().expect("valid");
        sources.env.clear();
        sources.file = Some("/dev/null".into());
        let loaded = load(&sources).expect("all are keys with valid values");
        assert!(loaded.config.insecure && loaded.config.shards == 1 && loaded.config.log.format == "json");
    }
}
