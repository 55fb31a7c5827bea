//! A small back end: what an application's server does with Chinwag over HTTP.
//!
//! It holds the root key (from the data directory or the environment) and acts for any user: lists conversations, sets
//! unread counts, deletes conversations, sends, makes groups and changes their members.

#[path = "../common/backend.rs"]
mod backend;

use std::path::PathBuf;

use anyhow::{Result, bail};
use backend::{Backend, Conversation, NewChannel};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "A small back end over Chinwag's HTTP interface", name = "sidecar")]
struct Args {
    /// Where the server's HTTP listens.
    #[arg(long, default_value = "http://127.0.0.1:5001", global = true)]
    http: String,
    /// The server's data directory, for its root key.
    #[arg(long, default_value = "./data", global = true)]
    data_dir: PathBuf,
    /// An API key instead of the root key.
    #[arg(long, global = true)]
    key: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a token for a user and prints it.
    Token {
        /// The user.
        uid: String,
    },
    /// Lists a user's conversations, newest first.
    List {
        /// The user.
        uid: String,
        /// Only what changed after this version.
        #[arg(long, default_value_t = 0)]
        version: u64,
        /// Messages to show of each conversation.
        #[arg(long, default_value_t = 1)]
        messages: u32,
    },
    /// Sets how many messages of a conversation are unread.
    SetUnread {
        /// The user.
        uid: String,
        /// The conversation: a peer's uid, or `group:NAME`.
        channel: String,
        /// Unread messages.
        unread: u64,
    },
    /// Deletes a conversation from a user's view.
    Delete {
        /// The user.
        uid: String,
        /// The conversation: a peer's uid, or `group:NAME`.
        channel: String,
    },
    /// Sends a text in a user's name.
    Send {
        /// The sender.
        from: String,
        /// Where to: a peer's uid, or `group:NAME`.
        channel: String,
        /// The text.
        text: String,
    },
    /// Shows the newest messages of a channel, as a user sees it.
    History {
        /// The user.
        uid: String,
        /// The channel: a peer's uid, or `group:NAME`.
        channel: String,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Makes a group, or adds members to it.
    Group {
        /// Its name.
        name: String,
        /// Its members.
        members: Vec<String>,
    },
    /// Adds members to a group.
    Add {
        /// The group.
        name: String,
        /// Who.
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Removes members from a group.
    Remove {
        /// The group.
        name: String,
        /// Who.
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Says which of these users are online.
    Online {
        /// Who.
        #[arg(required = true)]
        uids: Vec<String>,
    },
}

/// `group:NAME` or a peer's uid, as (channel_id, channel_type).
fn channel(text: &str) -> (&str, u8) {
    match text.strip_prefix("group:") {
        Some(name) => (name, 2),
        None => (text, 1),
    }
}

fn show(row: &Conversation) {
    let kind = if row.channel_type == 1 { "" } else { "group:" };
    println!(
        "{kind}{:<24} unread {:<5} last {:<7} version {}",
        row.channel_id, row.unread, row.last_msg_seq, row.version
    );
    for message in row.recents.iter().rev() {
        show_message(message);
    }
}

fn show_message(message: &backend::Message) {
    let text = message.content().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|e| format!("({e})"));
    println!("    {:>6}  {}: {text}", message.message_seq, message.from_uid);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let key = match args.key {
        Some(key) => key,
        None => backend::need_root_key(&args.data_dir)?,
    };
    let backend = Backend::new(&args.http, &key)?;
    match args.command {
        Command::Token { uid } => {
            let token = backend::random_token()?;
            backend.set_token(&uid, &token, 0).await?;
            println!("{token}");
        }
        Command::List { uid, version, messages } => {
            let rows = backend.conversations(&uid, version, messages).await?;
            if rows.is_empty() {
                println!("no conversations{}", if version > 0 { " changed" } else { "" });
            }
            rows.iter().for_each(show);
        }
        Command::SetUnread { uid, channel: name, unread } => {
            let (id, kind) = channel(&name);
            let answer = backend.set_unread(&uid, id, kind, unread).await?;
            let result = answer["unread"].as_u64().unwrap_or(unread);
            println!("{uid} has {result} unread in {name}");
        }
        Command::Delete { uid, channel: name } => {
            let (id, kind) = channel(&name);
            backend.delete_conversation(&uid, id, kind).await?;
            println!("{uid} no longer has {name}");
        }
        Command::Send { from, channel: name, text } => {
            if text.is_empty() {
                bail!("there is no text to send");
            }
            let (id, kind) = channel(&name);
            println!("{}", backend.send(&from, id, kind, text.as_bytes()).await?);
        }
        Command::History { uid, channel: name, limit } => {
            let (id, kind) = channel(&name);
            backend.newest(&uid, id, kind, limit).await?.iter().for_each(show_message);
        }
        Command::Group { name, members } => {
            let channel = NewChannel { channel_id: name.clone(), channel_type: 2, subscribers: members };
            backend.create_channel(&channel).await?;
            println!("group {name} is there");
        }
        Command::Add { name, members } => backend.change_members(&name, true, &members).await?,
        Command::Remove { name, members } => backend.change_members(&name, false, &members).await?,
        Command::Online { uids } => {
            let online = backend.online(&uids).await?;
            for uid in uids {
                println!("{uid} {}", if online.contains(&uid) { "online" } else { "offline" });
            }
        }
    }
    Ok(())
}
