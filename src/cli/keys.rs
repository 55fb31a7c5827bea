//! `token` and `key`: over HTTP when a server runs, else on the data directory.

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Asked, ask};
use super::{Exit, Failure, offline, show};
use crate::config::Config;
use crate::credentials::{find_root_key, mint_user_token};
use crate::http::admin::{KeyBody, KeyList, KeyMade};
use crate::http::envelope::Done;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user
    pub uid: String,
    /// Device kind the token is for: 0 app, 1 web, 2 pc
    #[arg(long, default_value_t = 0)]
    pub device_flag: u8,
    /// 1: connections of this user and device kind are closed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub device_level: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print it; it is never shown again
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// admin (users, channels, keys, everything), send (act for any user) or read (read for any user); several with commas
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<String>,
        /// Bind the key to a namespace: it then opens only routes that know namespaces
        #[arg(long)]
        namespace: Option<String>,
    },
    /// List the keys without their secrets
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a key a new secret and print it; the old one stops working at once
    Rotate {
        /// Its id, from `key list`
        id: String,
    },
    /// Take a key's power away for good
    Revoke {
        /// Its id, from `key list`
        id: String,
    },
}

/// Asks the running server; `None` when there is none, or no root key to ask it with: the data directory is then opened, and
/// its lock tells whether a server has it.
fn online<T: serde::de::DeserializeOwned>(
    config: &Config,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<Option<T>, Failure> {
    let Some((key, _)) = find_root_key(&config.auth, &config.data_dir)? else { return Ok(None) };
    match ask(config.listen.http, path, &key, body)? {
        Asked::Answer(answer) => Ok(Some(answer)),
        Asked::NobodyThere => Ok(None),
    }
}

pub(super) fn token(config: &Config, args: &TokenArgs) -> Result<Exit, Failure> {
    protocol::ids::Uid::new(&args.uid).map_err(|e| Failure::new(Exit::Usage, format_args!("UID {e}")))?;
    let token = mint_user_token()?;
    let body = json!({
        "uid": args.uid, "token": token, "device_flag": args.device_flag, "device_level": args.device_level,
    });
    if online::<Done>(config, "/user/token", Some(body))?.is_none() {
        offline::Directory::open(config)?.set_token(&args.uid, args.device_flag, args.device_level, &token)?;
    }
    println!("{token}");
    Ok(Exit::Success)
}

pub(super) fn run(config: &Config, command: &KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Create { name, scope, namespace } => {
            let body = json!({"name": name, "scopes": scope, "namespace": namespace});
            let made = match online::<KeyMade>(config, "/admin/keys", Some(body))? {
                Some(made) => made,
                None => offline::Directory::open(config)?.create_key(name, scope, namespace.as_deref())?,
            };
            eprintln!("key {} made; this is the only time it is shown:", made.listed.key_id);
            println!("{}", made.key);
        }
        KeyCommand::List { json } => {
            let keys = match online::<KeyList>(config, "/admin/keys", None)? {
                Some(list) => list.keys,
                None => offline::Directory::open(config)?.keys(),
            };
            if *json {
                println!("{}", serde_json::to_string_pretty(&keys)?);
            } else {
                print!("{}", table(&keys));
            }
        }
        KeyCommand::Rotate { id } => {
            let path = format!("/admin/keys/{}/rotate", path_part(id)?);
            let made = match online::<KeyMade>(config, &path, Some(json!({})))? {
                Some(made) => made,
                None => offline::Directory::open(config)?.rotate_key(id)?,
            };
            eprintln!("key {} has a new secret; this is the only time it is shown:", made.listed.key_id);
            println!("{}", made.key);
        }
        KeyCommand::Revoke { id } => {
            let path = format!("/admin/keys/{}/revoke", path_part(id)?);
            if online::<KeyList>(config, &path, Some(json!({})))?.is_none() {
                offline::Directory::open(config)?.revoke_key(id)?;
            }
            println!("key {id} is revoked");
        }
    }
    Ok(Exit::Success)
}

/// Ids of keys are letters and digits; anything else would change the path.
fn path_part(id: &str) -> Result<&str, Failure> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(id);
    }
    Err(Failure::new(Exit::Usage, format_args!("{id:?} is not the id of a key, see `chinwag key list`")))
}

fn table(keys: &[KeyBody]) -> String {
    let mut rows = vec![["id", "name", "scopes", "namespace", "state"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        let state = if key.revoked { "revoked" } else { "valid" };
        [
            key.key_id.clone(),
            key.name.clone(),
            key.scopes.join(","),
            key.namespace.clone().unwrap_or_default(),
            state.to_owned(),
        ]
    }));
    show::columns(&rows)
}
