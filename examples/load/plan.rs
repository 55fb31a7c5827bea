//! Who talks where: users, channels, members, and how they are made on the server.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;

use crate::args::Args;
use crate::backend::{self, Backend, NewChannel};

/// All channels of a run are groups.
pub const GROUP: u8 = 2;
/// Width of a channel's number in its id: the id's place in a table is read from it.
pub const CHANNEL_DIGITS: usize = 7;
/// Smallest payload: what identifies a message and proves its bytes.
pub const PAYLOAD_MIN: usize = 24;
/// Members sent in one request: keeps bodies small.
const MEMBERS_PER_REQUEST: usize = 1_000;

/// One channel.
#[derive(Debug, Clone)]
pub struct ChannelPlan {
    /// Its id.
    pub id: String,
    /// Connections that send to it.
    pub senders: Vec<u32>,
    /// Connections that only receive from it.
    pub receivers: Vec<u32>,
    /// Connections that never read.
    pub stalled: Vec<u32>,
    /// Seq of its last message before the run.
    pub base: u64,
}

/// The whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Begins every name.
    pub prefix: String,
    /// Seed of payloads.
    pub seed: u64,
    /// Connections 0..senders send.
    pub senders: usize,
    /// Connections behind them only receive; 0 when offline.
    pub receivers: usize,
    /// Connections behind those never read.
    pub stalled: usize,
    /// Users of all kinds, by connection; offline receivers are behind them.
    pub users: Vec<String>,
    /// The channels.
    pub channels: Vec<ChannelPlan>,
}

impl Plan {
    /// Makes the plan of a run; nothing is asked of the server.
    ///
    /// # Errors
    /// Arguments that contradict each other.
    pub fn new(args: &Args) -> Result<Self> {
        let (channels, members, senders) = if args.fanout {
            (args.channels.unwrap_or(1), args.members.unwrap_or(1_000), args.connections)
        } else {
            (args.channels.unwrap_or(1_000), args.members.unwrap_or(2), args.connections)
        };
        ensure!(args.payload >= PAYLOAD_MIN, "--payload must be at least {PAYLOAD_MIN}");
        ensure!(senders > 0 && channels > 0 && args.in_flight > 0, "nothing to do");
        ensure!(channels < 10usize.pow(CHANNEL_DIGITS as u32), "too many channels");
        let senders_of_channel = if args.fanout { senders } else { 1 };
        ensure!(members >= senders_of_channel, "--members counts the {senders_of_channel} senders too");
        let others = members - senders_of_channel;
        let receivers = args.receivers.unwrap_or_else(|| if args.fanout { others } else { senders.max(others) });
        ensure!(others <= receivers, "{others} receivers of a channel cannot be found among {receivers}");
        let prefix = match &args.prefix {
            Some(prefix) => prefix.clone(),
            None => format!("l{}", &backend::random_token()?[..6]),
        };
        let seed = match args.seed {
            Some(seed) => seed,
            None => u64::from_str_radix(&backend::random_token()?[..12], 16)?,
        };
        let online = if args.offline { 0 } else { receivers };
        let mut users: Vec<String> = (0..senders).map(|i| format!("{prefix}-s{i}")).collect();
        users.extend((0..online).map(|i| format!("{prefix}-r{i}")));
        users.extend((0..args.stalled).map(|i| format!("{prefix}-x{i}")));
        let offline_from = users.len();
        if args.offline {
            users.extend((0..receivers).map(|i| format!("{prefix}-r{i}")));
        }
        let first_receiver = if args.offline { offline_from } else { senders };
        let plans = (0..channels).map(|c| ChannelPlan {
            id: format!("{prefix}-c{c:0CHANNEL_DIGITS$}"),
            senders: if args.fanout { (0..senders as u32).collect() } else { vec![(c % senders) as u32] },
            receivers: (0..others).map(|k| (first_receiver + (c * others + k) % receivers.max(1)) as u32).collect(),
            stalled: (0..args.stalled).filter(|i| i % channels == c).map(|i| (senders + online + i) as u32).collect(),
            base: 0,
        });
        let channels = plans.collect();
        Ok(Self { prefix, seed, senders, receivers: online, stalled: args.stalled, users, channels })
    }

    /// Connections that are opened.
    pub fn connections(&self) -> usize {
        self.senders + self.receivers + self.stalled
    }

    /// A user's token: derived, so that a later run with --no-setup knows it without a file of secrets.
    pub fn token(&self, key: &str, user: &str) -> String {
        let digest = blake3::keyed_hash(blake3::hash(key.as_bytes()).as_bytes(), user.as_bytes());
        digest.to_hex()[..32].to_owned()
    }

    /// Makes users and channels on the server.
    ///
    /// # Errors
    /// The first request that fails.
    pub async fn set_up(&self, backend: &Backend, key: &str) -> Result<()> {
        let tokens: Vec<(String, String)> =
            self.users.iter().map(|user| (user.clone(), self.token(key, user))).collect();
        let bar = bar("tokens", tokens.len());
        backend.set_tokens(&tokens, || bar.inc(1)).await.context("making tokens")?;
        bar.finish_and_clear();
        let mut first = Vec::with_capacity(self.channels.len());
        let mut more = Vec::new();
        for channel in &self.channels {
            let everybody = channel.senders.iter().chain(&channel.receivers).chain(&channel.stalled);
            let names: Vec<String> = everybody.map(|i| self.users[*i as usize].clone()).collect();
            for (n, part) in names.chunks(MEMBERS_PER_REQUEST).enumerate() {
                let part =
                    NewChannel { channel_id: channel.id.clone(), channel_type: GROUP, subscribers: part.to_vec() };
                if n == 0 { first.push(part) } else { more.push(part) }
            }
        }
        let bar = self::bar("channels", first.len() + more.len());
        backend.create_channels(&first, || bar.inc(1)).await.context("making channels")?;
        backend.create_channels(&more, || bar.inc(1)).await.context("adding members")?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Asks where each channel stands: numbering of this run begins behind it.
    ///
    /// # Errors
    /// The first request that fails.
    pub async fn read_bases(&mut self, backend: &Backend) -> Result<()> {
        let bar = bar("heads", self.channels.len());
        let users = &self.users;
        let mut requests = stream::iter(self.channels.iter().enumerate())
            .map(|(at, channel)| async move {
                let user = &users[channel.senders[0] as usize];
                let newest = backend.newest(user, &channel.id, GROUP, 1).await?;
                anyhow::Ok((at, newest.last().map_or(0, |message| message.message_seq)))
            })
            .buffer_unordered(32);
        let mut bases = Vec::with_capacity(self.channels.len());
        while let Some(base) = requests.try_next().await? {
            bar.inc(1);
            bases.push(base);
        }
        drop(requests);
        bar.finish_and_clear();
        for (at, base) in bases {
            self.channels[at].base = base;
        }
        Ok(())
    }
}

/// The key and a handle on the server's HTTP.
///
/// # Errors
/// There is no root key.
pub fn backend(http: &str, data_dir: &Path) -> Result<(Backend, String)> {
    let key = backend::need_root_key(data_dir)?;
    Ok((Backend::new(http, &key)?, key))
}

fn bar(what: &'static str, length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec}");
    bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}
