//! What a search costs in a million messages, in one channel and spread over a thousand, and what the index costs per
//! message stored. `cargo bench --bench search`, a tenth of it with `-- --quick`.
//!
//! Texts are made of Turkish and English words whose frequencies fall as in real texts. Every search asks for the newest 20.
//! CPU of the index is its thread's, from /proc, in steps of 10 ms.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chinwag::domain::content::fold;
use chinwag::domain::message::MessageFlags;
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::search::SearchOptions;
use chinwag::store::{ChannelNo, Commit, MessageRecord, Record, SearchQuery, Store};
use common::{Plan, Random};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid};

const MESSAGES: u64 = 1_000_000;
const CHANNELS_MANY: u64 = 1_000;
const LOT: usize = 500;
const RATE: u64 = 10_000;
const WORDS: usize = 20_000;
const LIMIT: usize = 20;
const SCAN_MAX: usize = 10_000;

const ROOTS: &str = "merhaba günaydın bugün yarın akşam toplantı proje dosya gönder aldım tamam teşekkür ederim lütfen nasıl güzel \
    çalışma müşteri sipariş ödeme fatura ürün kargo adres telefon şehir İstanbul Ankara İzmir Isparta ışık ağaç öğle yemek kahve çay \
    hello thanks please meeting tomorrow project report update review ticket server deploy release branch merge build test failed \
    working great sure maybe later coffee lunch office customer order invoice payment address phone question answer weekend travel";
const ENDINGS: &str =
    "ler lar de da den dan le la miz niz im in i ı u ü e a yi yı ing ed s er est ly ness ment tion able";

/// Words, the most frequent first.
fn words(random: &mut Random) -> Vec<String> {
    let roots: Vec<&str> = ROOTS.split_whitespace().collect();
    let endings: Vec<&str> = ENDINGS.split_whitespace().collect();
    let mut words: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    while words.len() < WORDS {
        let root = roots[random.next() as usize % roots.len()];
        let mut word: String = root.chars().take(3 + random.next() as usize % 5).collect();
        for _ in 0..=random.next() % 3 {
            word.push_str(endings[random.next() as usize % endings.len()]);
        }
        words.push(word);
    }
    words
}

fn text(random: &mut Random, words: &[String], number: u64) -> String {
    let mut text = String::new();
    for _ in 0..4 + random.next() % 12 {
        // The frequency of a word falls with its rank.
        let unit = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = ((words.len() as f64).powf(unit) - 1.0) as usize;
        text.push_str(&words[rank.min(words.len() - 1)]);
        text.push(' ');
    }
    if number % 50_000 == 49_999 {
        text.push_str(&format!("zürafa{number}"));
    }
    text
}

fn indexer_cpu() -> Result<Duration> {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        if head.ends_with("(store-search") {
            let fields: Vec<&str> = tail.split_whitespace().collect();
            ticks +=
                fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
        }
    }
    Ok(Duration::from_millis(ticks * 10))
}

struct Filled {
    dir: tempfile::TempDir,
    store: DurableStore,
    channels: Vec<ChannelNo>,
}

fn fill(words: &[String], messages: u64, channels: u64, on: bool) -> Result<Filled> {
    let mut random = Random(0x5eed);
    let dir = common::scratch_dir()?;
    let search = SearchOptions { on, ..SearchOptions::default() };
    let (store, _) = DurableStore::open(StoreOptions { search, ..StoreOptions::new(dir.path()) })?;
    let mut made = Vec::new();
    for i in 0..channels {
        let channel = store.reserve_channel_no();
        let key = ChannelKey::named(&format!("bench-{i}"), ChannelType::Group)?;
        store.commit(&[Commit::from(Record::ChannelCreated { channel, key })], &mut |_| {})?;
        made.push(channel);
    }
    let from_uid = Uid::new("sender")?;
    let (mut lag, mut bytes) = (Duration::ZERO, 0);
    let started = Instant::now();
    let mut number = 0;
    while number < messages {
        let mut lot = Vec::with_capacity(LOT);
        for _ in 0..LOT.min((messages - number) as usize) {
            let text = text(&mut random, words, number);
            bytes += text.len();
            lot.push(Commit::from(Record::Message(MessageRecord {
                channel: made[(number % channels) as usize],
                message_seq: MessageSeq::new(number / channels + 1).context("a seq from 1")?,
                from_uid: from_uid.clone(),
                client_msg_no: ClientMsgNo::new(&format!("{number:032x}"))?,
                flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::from(serde_json::json!({ "type": 1, "content": text }).to_string()),
                extras: None,
            })));
            number += 1;
        }
        store.commit(&lot, &mut |_| {})?;
        lag = lag.max(store.search_stats().lag_max);
        let due = Duration::from_secs_f64(number as f64 / RATE as f64);
        if let Some(early) = due.checked_sub(started.elapsed()) {
            std::thread::park_timeout(early);
        }
    }
    let rate = messages as f64 / started.elapsed().as_secs_f64();
    if on {
        while store.search_stats().channels_waiting > 0 {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let stats = store.search_stats();
        let lag = lag.max(stats.lag_max);
        let per_message = indexer_cpu()?.as_secs_f64() * 1e6 / stats.messages_indexed.max(1) as f64;
        let disk: u64 = fs::read_dir(dir.path().join("search"))?
            .map(|entry| Ok(entry?.metadata()?.len()))
            .sum::<std::io::Result<u64>>()?;
        println!(
            "{channels} channels: {messages} messages of {} bytes at {rate:.0}/s; index: {} units, {:.1} bytes/message on disk, lag at \
             most {lag:?}, {per_message:.2} us CPU/message",
            bytes as u64 / messages,
            stats.units,
            disk as f64 / messages as f64,
        );
    }
    Ok(Filled { dir, store, channels: made })
}

/// Names of kinds with their patterns.
fn patterns(words: &[String], random: &mut Random) -> Vec<(&'static str, Vec<String>)> {
    let mut pick = |from: usize, to: usize| words[from + random.next() as usize % (to - from)].clone();
    let common = (0..200).map(|_| pick(0, 40)).collect();
    let middling = (0..200).map(|_| pick(500, 2_000)).collect();
    let rare = (0..200).map(|_| pick(WORDS - 5_000, WORDS)).collect();
    let pairs = (0..200).map(|_| format!("{} {}", pick(0, 2_000), pick(0, 2_000))).collect();
    let needles = (1..=20).map(|i| format!("zürafa{}", i * 50_000 - 1)).collect();
    let absent = (0..200).map(|i| format!("{}x{i}q", pick(0, 2_000))).collect();
    let joined = (0..200).map(|_| format!("{}{}", pick(0, 500), pick(0, 500))).collect();
    let short = vec!["a".into(), "zq".into(), "%".into(), "ış".into()];
    vec![
        ("common words", common),
        ("middling words", middling),
        ("rare words", rare),
        ("two words", pairs),
        ("once in 50,000", needles),
        ("absent, foreign", absent),
        ("absent, of frequent windows", joined),
        ("shorter than a window", short),
    ]
}

fn measure(filled: &Filled, kinds: &[(&'static str, Vec<String>)]) -> Result<()> {
    let mut all = Vec::new();
    let quantile = |times: &[f64], q: f64| times.get(((times.len() - 1) as f64 * q) as usize).copied().unwrap_or(0.0);
    for (kind, patterns) in kinds {
        let (mut times, mut found, mut resumed) = (Vec::new(), 0, 0);
        for (i, pattern) in patterns.iter().enumerate() {
            let channel = filled.channels[i * 7 % filled.channels.len()];
            let query =
                SearchQuery { pattern: fold(pattern), first: 1, last: u64::MAX, limit: LIMIT, scan_max: SCAN_MAX };
            let started = Instant::now();
            let answer = filled.store.search(channel, &query)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            found += answer.messages.len();
            resumed += usize::from(answer.messages.len() < LIMIT && answer.resume.is_some());
        }
        times.sort_by(f64::total_cmp);
        println!(
            "  {kind:<28} p50 {:>7.2} ms  p99 {:>7.2} ms  max {:>7.2} ms  {:.1} hits each, {resumed} of {} stopped at the bound",
            quantile(&times, 0.5),
            quantile(&times, 0.99),
            quantile(&times, 1.0),
            found as f64 / patterns.len() as f64,
            patterns.len(),
        );
        if patterns.len() > 4 {
            all.extend(times);
        }
    }
    all.sort_by(f64::total_cmp);
    ensure!(!all.is_empty(), "nothing was searched");
    println!(
        "  all but the short ones       p50 {:>7.2} ms  p99 {:>7.2} ms",
        quantile(&all, 0.5),
        quantile(&all, 0.99)
    );
    Ok(())
}

fn main() -> Result<()> {
    let Some(plan) = Plan::from_args(1, Duration::from_secs(1)) else { return Ok(()) };
    let quick = plan.cell < Duration::from_secs(1);
    let messages = if quick { MESSAGES / 10 } else { MESSAGES };
    let mut random = Random(0x5eed);
    let words = words(&mut random);
    let kinds = patterns(&words, &mut random);
    for channels in [1, CHANNELS_MANY] {
        let filled = fill(&words, messages, channels, true)?;
        measure(&filled, &kinds)?;
        let Filled { dir, store, .. } = filled;
        drop(store);
        let started = Instant::now();
        let (store, _) = DurableStore::open(StoreOptions::new(dir.path()))?;
        while !store.search_stats().ready {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        println!("  opened again, index in use after {:?}", started.elapsed());
    }
    Ok(())
}
