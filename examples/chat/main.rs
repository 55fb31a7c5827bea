//! A chat in the terminal: what a newcomer starts twice after starting the server.
//!
//! Works with a pipe as well: one line is one message or one `/` command, so scripts and tests can drive it. Nothing is
//! kept here; conversations, history and unread counts come from the server.

#[path = "../common/backend.rs"]
mod backend;
#[path = "../common/client.rs"]
mod client;
mod room;
mod screen;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use backend::Backend;
use clap::Parser;
use client::{Client, Credential, Options};
use room::{Flow, Room};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Updates and commands under way; the other side waits beyond it.
const QUEUE: usize = 256;
/// How long messages typed last may take to be stored when leaving.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(name = "chat", about = "Chats through a Chinwag server", after_help = room::HELP)]
struct Args {
    /// Who you are.
    uid: String,
    /// Start talking to this user, or to `group:NAME`.
    #[arg(long)]
    to: Option<String>,
    /// Where the server's sockets listen.
    #[arg(long, default_value = "ws://127.0.0.1:5200")]
    server: String,
    /// Where the server's HTTP listens: for a first token and for groups.
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    http: String,
    /// Your token. Without it one is minted with the root key of the data directory.
    #[arg(long, env = "CHAT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The server's data directory, for its root key.
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
    /// Names this device; random when left out, so that two terminals are two devices.
    #[arg(long)]
    device: Option<String>,
    /// Keep typed lines in this file from one start to the next.
    #[arg(long)]
    history_file: Option<PathBuf>,
    /// Stay this many seconds after the end of the input (for scripts).
    #[arg(long, default_value_t = 0.0)]
    linger: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let root = match backend::root_key(&args.data_dir)? {
        Some(key) => Some(Backend::new(&args.http, &key)?),
        None => None,
    };
    let credential = match (&args.token, &root) {
        (Some(token), _) => Credential::Fixed(token.clone()),
        (None, Some(backend)) => Credential::Mint(backend.clone()),
        (None, None) => {
            backend::need_root_key(&args.data_dir).context("there is no --token either")?;
            return Ok(());
        }
    };
    let device_id = match args.device {
        Some(device) => device,
        None => format!("chat-{}", &backend::random_token()?[..8]),
    };
    let options = Options { server: args.server, uid: args.uid.clone(), credential, device_id };
    let (tell, updates) = mpsc::channel(QUEUE);
    let (commands, asked) = mpsc::channel(QUEUE);
    let (screen, mut lines) = screen::open(format!("{}> ", args.uid), args.history_file)?;
    let mut running = tokio::spawn(Client::new(options, tell).run(asked));
    let mut room = Room::new(args.uid, screen, commands, updates, root);
    if let Some(to) = args.to {
        room.line(&format!("/to {to}")).await;
    }
    let linger = Duration::try_from_secs_f64(args.linger).context("--linger")?;
    let mut input_open = true;
    let leaving = sleep(Duration::ZERO);
    tokio::pin!(leaving);
    loop {
        tokio::select! {
            Some(update) = room.next_update() => room.update(update).await,
            line = lines.recv(), if input_open && room.ready() => match line {
                Some(line) => if room.line(&line).await == Flow::Quit { break },
                None => {
                    input_open = false;
                    leaving.as_mut().reset(tokio::time::Instant::now() + linger);
                }
            },
            () = &mut leaving, if !input_open => break,
            ended = &mut running => return ended.context("the client stopped")?,
        }
    }
    // Everything typed is stored before the program ends, and what arrives meanwhile is shown.
    drop(room.leave());
    let rest = async {
        while let Some(update) = room.next_update().await {
            room.update(update).await;
        }
    };
    if timeout(LEAVE_TIMEOUT, rest).await.is_err() {
        room.complain("the server did not take the last messages in time");
    }
    Ok(())
}
