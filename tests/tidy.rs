//! Keeps what no compiler sees: who may name whom, no unbounded channels, files of a size that fits a head, documents that
//! name files which exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines from which on a file usually holds a second noun.
const LINES_MAX: usize = 900;
/// Larger files and why they stay whole.
const LARGE: &[(&str, &str)] = &[];

/// What a room of the server may name of the others, besides itself. `tests.rs` and `mod tests` may name what they test with.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("domain", &[]),
    // Bugs on purpose, in no build but that of their test.
    ("seeded", &["clock"]),
    ("store", &["clock", "domain", "seeded"]),
    ("metrics", &["domain", "store"]),
    ("proxies", &[]),
    ("config", &["domain", "proxies"]),
    ("hub", &["clock", "domain", "metrics", "seeded", "store"]),
    ("credentials", &["config", "domain", "hub"]),
    ("voices", &["domain"]),
    ("gateway", &["clock", "credentials", "domain", "hub", "metrics", "proxies", "voices"]),
    ("webhook", &["clock", "config", "domain", "hub", "metrics"]),
    ("http", &["clock", "config", "credentials", "domain", "hub", "metrics", "proxies", "voices", "webhook"]),
    (
        "app",
        &[
            "clock",
            "config",
            "credentials",
            "domain",
            "gateway",
            "http",
            "hub",
            "metrics",
            "proxies",
            "store",
            "webhook",
        ],
    ),
    ("cli", &["app", "clock", "config", "credentials", "domain", "http", "hub", "metrics", "store"]),
];

/// Crates only these files may name.
const CRATES: &[(&str, &[&str])] = &[
    ("sled", &["src/store/view/"]),
    ("axum", &["src/http/"]),
    ("utoipa", &["src/http/"]),
    ("tokio_tungstenite", &["src/gateway/", "src/cli/"]),
    ("clap", &["src/cli/"]),
    ("figment", &["src/config"]),
    (
        "tokio",
        &["src/app.rs", "src/cli/", "src/gateway/", "src/http/", "src/hub/", "src/webhook/", "src/credentials.rs"],
    ),
    ("hyper_rustls", &["src/cli/", "src/webhook/call.rs"]),
    ("hmac", &["src/webhook/call.rs"]),
    ("ipnet", &["src/proxies"]),
    ("ppp", &["src/proxies"]),
    ("rmp_serde", &["protocol/src/native/", "src/http/"]),
];

/// Inside the hub names go down this list; files of one line do not name each other but where they say so.
const HUB_LAYERS: &[&[&str]] = &[
    &["mod"],
    &["chats", "commands", "files", "follow", "groups", "listings", "lookups", "messages", "people", "traffic"],
    &["shard"],
    &["sequencer"],
    &["committer"],
    &["drafts"],
    &["administration", "conversations", "broker", "delivery", "inbox", "outbox", "sessions"],
];
/// Names up the list, with the reason.
const HUB_UPWARD: &[(&str, &str, &str)] =
    &[("committer", "shard", "the events it posts into the shards' inboxes are theirs to define")];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/") || self.path.ends_with("testing.rs")
    }

    /// Lines of code before the file's own tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate();
        lines
            .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).expect("readable").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in dirs.iter().map(|dir| root().join(dir)).filter(|dir| dir.is_dir()) {
        walk(&dir, &mut paths);
    }
    let rust = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| Source {
        text: fs::read_to_string(&path).expect("text"),
        path: path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned(),
    })
    .collect()
}

/// The room of a path below `src/`.
fn room(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    Some(rest.split(['/', '.']).next().unwrap_or(rest)).filter(|room| !matches!(*room, "lib" | "main"))
}

/// Words behind each occurrence of `prefix` at a word's beginning.
fn named<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(at, _)| {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            return None;
        }
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(&rest[..end])
    })
}

fn complain(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn rooms_name_only_what_is_below_them() {
    let mut faults = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test()) {
        let Some(here) = room(&source.path) else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == here) else {
            faults.push(format!("{}: room {here} is not in the list of tests/tidy.rs", source.path));
            continue;
        };
        for (line, code) in source.code() {
            for there in named(code, "crate::").filter(|there| !there.is_empty() && *there != here) {
                let is_room = ROOMS.iter().any(|(name, _)| *name == there);
                if is_room && !allowed.contains(&there) {
                    faults.push(format!("{}:{line}: {here} may not name {there}", source.path));
                }
            }
            if code.contains("use crate::{") {
                faults.push(format!("{}:{line}: one room per use line, so that this test can read it", source.path));
            }
        }
    }
    complain(&faults);
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut faults = Vec::new();
    for source in sources(&["src", "protocol/src"]).iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            for (name, places) in CRATES {
                let path = format!("{name}::");
                let uses = named(code, &path).next().is_some() || code.trim() == format!("use {name};");
                if uses && !places.iter().any(|place| source.path.starts_with(place)) {
                    faults.push(format!("{}:{line}: {name} is named outside {places:?}", source.path));
                }
            }
        }
    }
    complain(&faults);
}

#[test]
fn the_log_knows_no_view() {
    let mut faults = Vec::new();
    for source in sources(&["src/store/log"]).iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            if code.contains("store::view") || code.contains("super::view") || code.contains("store::durable") {
                faults.push(format!("{}:{line}: {}", source.path, code.trim()));
            }
        }
    }
    for source in sources(&["src/store"]).iter().filter(|source| !source.is_test()) {
        // The model is plain maps; only the durable store joins log and view.
        if source.path.starts_with("src/store/memory") {
            for (line, code) in source.code() {
                if code.contains("::log") || code.contains("::view") {
                    faults.push(format!("{}:{line}: {}", source.path, code.trim()));
                }
            }
        }
    }
    complain(&faults);
}

#[test]
fn names_inside_the_hub_go_down() {
    let layer = |file: &str| HUB_LAYERS.iter().position(|layer| layer.contains(&file));
    let mut faults = Vec::new();
    for source in sources(&["src/hub"]).iter().filter(|source| !source.is_test()) {
        let file = source.path.trim_start_matches("src/hub/").split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(here) = layer(&file) else {
            faults.push(format!("{}: not in the layers of tests/tidy.rs", source.path));
            continue;
        };
        for (line, code) in
            source.code().filter(|(_, code)| code.contains("use super::") || code.contains("use crate::hub::"))
        {
            for there in named(code, "super::").chain(named(code, "crate::hub::")) {
                let Some(depth) = layer(there) else { continue };
                let excused = HUB_UPWARD.iter().any(|(from, to, _)| *from == file && *to == there);
                if file != "mod" && depth < here && !excused {
                    faults.push(format!("{}:{line}: {file} names {there}, which is above it", source.path));
                }
            }
        }
    }
    complain(&faults);
}

#[test]
fn every_queue_has_a_bound() {
    let mut faults = Vec::new();
    for source in sources(&["src", "protocol/src"]).iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            for word in ["unbounded_channel", "mpsc::channel()", "UnboundedSender", "UnboundedReceiver", "unbounded()"]
            {
                if code.contains(word) {
                    faults.push(format!("{}:{line}: {word}", source.path));
                }
            }
        }
    }
    complain(&faults);
}

#[test]
fn no_file_holds_two_nouns() {
    let mut faults = Vec::new();
    let all = sources(&["src", "protocol/src", "protocol/tests", "tests", "benches", "examples"]);
    for source in &all {
        let lines = source.text.lines().count();
        let excused = LARGE.iter().any(|(path, _)| *path == source.path);
        if lines > LINES_MAX && !excused {
            faults.push(format!("{} has {lines} lines, more than {LINES_MAX}", source.path));
        } else if lines <= LINES_MAX && excused {
            faults.push(format!("{} needs its entry in tests/tidy.rs no more", source.path));
        }
    }
    complain(&faults);
}

#[test]
fn every_file_says_what_it_is() {
    let mut faults = Vec::new();
    for source in sources(&["src", "protocol/src", "tests"]) {
        if !source.text.starts_with("//!") && !source.is_test() {
            faults.push(format!("{} has no head", source.path));
        }
    }
    complain(&faults);
}

#[test]
fn documents_name_files_that_exist() {
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CHANGELOG.md")];
    walk(&root().join("docs"), &mut documents);
    let mut faults = Vec::new();
    for path in documents.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let shown = path.strip_prefix(root()).expect("below the root").display().to_string();
        let mut missing = BTreeSet::new();
        for word in text.split(|c: char| c.is_whitespace() || "`()[]{},;\"'|".contains(c)) {
            let word = word.trim_end_matches(['.', ':']);
            let is_ours = ["src/", "protocol/", "tests/", "benches/", "examples/", "docs/", "fuzz/", "web/", ".ci/"];
            let is_path = is_ours.iter().any(|dir| word.starts_with(dir)) && !word.contains(['*', '<', '…', '=']);
            // A link is relative to the page; every other name to the root.
            let linked = path.parent().is_some_and(|dir| dir.join(word).exists());
            let without_symbol = word.split("::").next().unwrap_or(word);
            let names = [word.to_owned(), without_symbol.to_owned(), format!("{word}.rs")];
            if is_path && !linked && !names.iter().any(|name| root().join(name).exists()) {
                missing.insert(word.to_owned());
            }
        }
        faults.extend(missing.into_iter().map(|word| format!("{shown} names {word}, which does not exist")));
    }
    complain(&faults);
}

#[test]
fn the_readers_of_this_test_see_what_they_look_for() {
    assert_eq!(named("use crate::store::{A, B};", "crate::").collect::<Vec<_>>(), ["store"]);
    assert_eq!(named("a(crate::hub::X, crate::gateway::Y)", "crate::").collect::<Vec<_>>(), ["hub", "gateway"]);
    assert_eq!(named("mycrate::store", "crate::").count(), 0);
    assert_eq!(named("super::shard::Z", "super::").collect::<Vec<_>>(), ["shard"]);
    assert_eq!(room("src/gateway/native.rs"), Some("gateway"));
    assert_eq!(room("src/app.rs"), Some("app"));
    assert_eq!(room("src/main.rs"), None);
}
