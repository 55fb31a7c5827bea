//! What an operator does to a data directory, through the real binary: check, rebuild, backup under load, restore.
//!
//! A server is filled over HTTP with small segments; what was answered is kept and compared with what comes back. Nothing
//! here waits for time to pass but for a condition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use harness::{CHANNELS, PATIENCE, Server, check, done, files_of, filled, flip, last_segment, run};

mod exchange;
mod harness;
mod kills;
#[path = "../process/mod.rs"]
mod process;
mod wukongim;

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_read_only_and_names_what_it_finds() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = filled(dir.path()).await;
    let mut before = BTreeMap::new();
    files_of(&data, &mut before);
    let (code, report) = check(&data);
    assert_eq!((code, &report["sound"], &report["messages"]), (0, &json!(true), &json!(700)), "{report}");
    assert_eq!((&report["channels"], &report["view_compared"]), (&json!(3), &json!(true)), "{report}");
    assert!(report["view_pages"].as_u64() > Some(9), "{report}");
    let mut after = BTreeMap::new();
    files_of(&data, &mut after);
    assert!(before == after, "a check changed the data directory");

    // A message's payload: a hole, named with its channel and seq.
    let segment = data.join("log/0000000001.log");
    let whole = std::fs::read(&segment).expect("reads");
    let payload = b"payload of a message payload";
    let at = whole.windows(payload.len()).position(|bytes| bytes == payload).expect("a payload") + 5;
    flip(&segment, at);
    let (code, report) = check(&data);
    let found = &report["findings"][0];
    assert_eq!((code, report["findings"].as_array().map(Vec::len)), (1, Some(1)), "{report}");
    assert_eq!((&found["severity"], &found["messages"][0]["channel"]), (&json!("hole"), &json!("one:2")), "{report}");
    assert_eq!(found["messages"][0]["first_seq"], 1);
    flip(&segment, at);

    // The header of a lot in the middle: everything behind it is still gone through.
    let lot = whole.windows(8).skip(300_000).position(|bytes| bytes == &whole[128..136]).expect("a lot") + 300_000;
    flip(&segment, lot + 20);
    let (code, report) = check(&data);
    assert_eq!((code, &report["findings"][0]["severity"]), (1, &json!("damage")), "{report}");
    let named: Vec<&Value> = report["findings"].as_array().expect("findings").iter().map(|f| &f["offset"]).collect();
    assert!(named.contains(&&json!(lot)), "{report}");
    assert!(report["messages"].as_u64() > Some(690), "the rest was read: {report}");
    flip(&segment, lot + 20);

    // The footer, the watermark, a segment that is gone.
    flip(&segment, whole.len() - 10);
    let (code, report) = check(&data);
    assert_eq!((code, &report["findings"][0]["severity"]), (1, &json!("derived")), "{report}");
    flip(&segment, whole.len() - 10);
    std::fs::rename(&segment, dir.path().join("kept")).expect("moved");
    assert_eq!(check(&data).0, 1);
    std::fs::rename(dir.path().join("kept"), &segment).expect("moved back");

    // The log cut short below the watermark.
    let last = last_segment(&data);
    let bytes = std::fs::read(&last).expect("reads");
    std::fs::write(&last, &bytes[..bytes.len() - 5_000]).expect("writes");
    let (code, report) = check(&data);
    assert_eq!(code, 1);
    assert!(report.to_string().contains("acked data is gone"), "{report}");
    std::fs::write(&last, &bytes).expect("writes");
    assert_eq!(check(&data).0, 0);

    // What cannot be checked is told apart from what was found.
    let server = Server::start(&data);
    let (code, text) = check(&data);
    assert!(code == 2 && text.to_string().contains("in use by a running server"), "{code} {text}");
    drop(server);
    assert_eq!(check(&dir.path().join("nothing")).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_makes_the_view_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = filled(dir.path()).await;
    // Rubbish in sled's file: found by the check, mended by the rebuild.
    let db = data.join("view/db");
    let mut bytes = std::fs::read(&db).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&db, bytes).expect("writes");
    let (code, report) = check(&data);
    assert_eq!((code, &report["view_compared"]), (1, &json!(false)), "{report}");
    let text = done(&data, &["rebuild"]);
    assert!(text.contains("view.bad-1") && text.contains("700 messages") && text.ends_with("sound\n"), "{text}");
    assert_eq!(check(&data).0, 0);
    // Again is fine, and the server goes on.
    done(&data, &["rebuild"]);
    let server = Server::start(&data);
    assert_eq!(server.messages("one").await.len(), 234);
    assert_eq!(server.send("one", "later").await.0, 235);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_to_what_was_acked() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, backup, restored) = (dir.path().join("data"), dir.path().join("backup"), dir.path().join("restored"));
    let server = Arc::new(Server::start(&data));
    for channel in CHANNELS {
        server.make(channel).await;
    }
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = CHANNELS
        .into_iter()
        .map(|channel| {
            let (server, stop, sent) = (server.clone(), stop.clone(), sent.clone());
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    server.send(channel, &format!("{channel}{n}")).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            })
        })
        .collect();
    let reached = async |count: u64| {
        let begun = Instant::now();
        while sent.load(Ordering::Relaxed) < count {
            assert!(begun.elapsed() < PATIENCE, "the senders stand still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let take = async || {
        let (data, backup) = (data.clone(), backup.clone());
        let taken = move || done(&data, &["backup", backup.to_str().expect("text")]);
        tokio::task::spawn_blocking(taken).await.expect("it ends")
    };
    reached(100).await;
    take().await;
    reached(600).await;
    let first = take().await;
    reached(1_100).await;
    let acked = sent.load(Ordering::Relaxed);
    let second = take().await;
    reached(sent.load(Ordering::Relaxed) + 9).await;
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("it ends well");
    }
    assert!(first.contains("secrets (credentials.pepper, root.key)"), "{first}");
    // Segments are copied once: the second run copies those behind the first only.
    let figures = |text: &str| -> Vec<u64> {
        let words = text.split(|c: char| !c.is_ascii_digit()).filter(|w| !w.is_empty());
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let (one, two) = (figures(&first), figures(&second));
    assert!(two[0] > one[0] && two[1] < two[0], "{first}{second}");
    // A backup is checked like a data directory.
    let (code, report) = check(&backup);
    assert_eq!(code, 0, "{report}");
    assert!(report["messages"].as_u64() >= Some(acked), "{acked} were acked before it began: {report}");

    let original: Vec<_> = {
        let mut all = Vec::new();
        for channel in CHANNELS {
            all.push(server.messages(channel).await);
        }
        all
    };
    drop(Arc::into_inner(server).expect("the only one left"));
    let text = done(&restored, &["restore", backup.to_str().expect("text")]);
    assert!(text.contains("sound"), "{text}");
    assert!(!dir.path().join("restored.restoring").exists());
    let again = run(&restored, &["restore", backup.to_str().expect("text")]);
    assert!(again.0 == 4 && again.1.contains("not empty"), "{again:?}");

    let server = Server::start(&restored);
    let mut kept = 0;
    for (channel, original) in CHANNELS.iter().zip(&original) {
        let found = server.messages(channel).await;
        kept += found.len() as u64;
        assert!(
            !found.is_empty() && found.iter().all(|(seq, message)| original.get(seq) == Some(message)),
            "{channel}"
        );
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), (1..=found.len() as u64).collect::<Vec<_>>());
    }
    assert_eq!(report["messages"].as_u64(), Some(kept));
    // A version the old server gave beyond what was kept is unknown now, and none is given again.
    let seen = original.iter().filter_map(|all| all.values().map(|(id, _)| *id).max()).max().expect("messages");
    assert!(server.send("one", "after").await.1 > seen);
    let body = json!({"uid": "alice", "version": seen, "msg_count": 1});
    let (headers, _) = server.post("/conversation/sync", body).await;
    assert_eq!(headers.get("x-chinwag-reset").map(|value| value.as_bytes()), Some(&b"1"[..]), "{headers:?}");
    server.stop();
    assert_eq!(check(&restored).0, 0);
    // The restored server's history is another one: its backup needs a directory of its own.
    let other = run(&data, &["backup", backup.to_str().expect("text")]);
    assert_eq!(other.0, 0, "the old server's still is: {other:?}");
    let other = run(&restored, &["backup", backup.to_str().expect("text")]);
    assert!(other.0 == 4 && other.1.contains("another history"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_version_keeps_exactly_what_was_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.make("one").await;
    let mut ids = Vec::new();
    for n in 0..400 {
        ids.push(server.send("one", &format!("n{n}")).await.1);
    }
    server.stop();
    let backup = dir.path().join("backup");
    done(&data, &["backup", backup.to_str().expect("text")]);
    for kept in [1_usize, 200, 399, 400] {
        let target = dir.path().join(format!("to-{kept}"));
        let until = ids[kept - 1].to_string();
        done(&target, &["restore", backup.to_str().expect("text"), "--until-version", &until]);
        let server = Server::start(&target);
        let found = server.messages("one").await;
        assert_eq!(found.len(), kept);
        assert_eq!(found.values().map(|(id, _)| *id).collect::<Vec<_>>(), ids[..kept]);
        assert_eq!(server.send("one", "next").await.0, kept as u64 + 1);
    }
    // A backup that is not what was written restores nothing.
    flip(&backup.join("log/0000000001.log"), 200_000);
    let target = dir.path().join("bad");
    let (code, text) = run(&target, &["restore", backup.to_str().expect("text")]);
    assert!(code != 0 && text.contains("not what the manifest says"), "{text}");
    assert!(!target.exists());
    flip(&backup.join("log/0000000001.log"), 200_000);
    // Begun again, it goes on where it was.
    done(&target, &["restore", backup.to_str().expect("text")]);
    assert_eq!(check(&target).0, 0);
    // Damage in the source is refused by name, and the backup is what it was.
    let (segment, manifest) = (last_segment(&data), std::fs::read(backup.join("manifest.json")).expect("reads"));
    let server = Server::start(&data);
    server.send("one", "more").await;
    server.stop();
    flip(&segment, 200);
    let (code, text) = run(&data, &["backup", backup.to_str().expect("text")]);
    assert!(code == 1 && text.contains(&segment.display().to_string()), "{code} {text}");
    assert_eq!(std::fs::read(backup.join("manifest.json")).expect("reads"), manifest);
    assert_eq!(check(&backup).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_cuts_only_when_told_and_keeps_what_it_cuts() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = filled(dir.path()).await;
    assert!(done(&data, &["repair", "--accept-loss"]).contains("nothing to repair"));
    let segment = data.join("log/0000000001.log");
    let whole = std::fs::read(&segment).expect("reads");
    let lot = whole.windows(8).skip(300_000).position(|bytes| bytes == &whole[128..136]).expect("a lot") + 300_000;
    flip(&segment, lot + 20);
    // sled's rollback must not matter, so the whole view goes.
    std::fs::remove_dir_all(data.join("view")).expect("removed");
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    files_of(&data, &mut before);
    let (code, text) = run(&data, &["repair"]);
    assert!(code == 1 && text.contains("lost: all of segment 2") && text.contains("nothing was changed"), "{text}");
    files_of(&data, &mut after);
    assert!(before == after, "it only looked");
    let (code, text) = run(&data, &["repair", "--accept-loss"]);
    assert!(code == 0 && text.contains("lost: channel number 0 seq") && text.ends_with("sound\n"), "{text}");
    let aside = data.join("lost-1");
    assert!(aside.join("0000000002.log").exists() && aside.join("watermark").exists());
    let mut kept = std::fs::read(aside.join(format!("0000000001.log.from-{lot}"))).expect("the tail");
    kept[20] ^= 0x10;
    assert!(kept == whole[lot..], "what was cut is kept as it was");

    let server = Server::start(&data);
    let found = server.messages("one").await;
    assert!(found.len() > 30 && found.len() < 234, "{}", found.len());
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (1..=found.len() as u64).collect::<Vec<_>>());
    assert_eq!(server.send("one", "after").await.0, found.len() as u64 + 1);
    // A version from the lost part is answered with reset.
    let seen = found.last_key_value().map(|(_, (id, _))| id + 1_000);
    let (headers, _) =
        server.post("/conversation/sync", json!({"uid": "alice", "version": seen, "msg_count": 1})).await;
    assert_eq!(headers.get("x-chinwag-reset").map(|value| value.as_bytes()), Some(&b"1"[..]));
    server.stop();
    assert_eq!(check(&data).0, 0);

    // Acked lots that are gone: refused until it is accepted.
    let last = last_segment(&data);
    let bytes = std::fs::read(&last).expect("reads");
    std::fs::write(&last, &bytes[..bytes.len() - 1_000]).expect("writes");
    assert_eq!(run(&data, &["serve", "--listen-socket", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]).0, 4);
    let (code, text) = run(&data, &["repair", "--accept-loss"]);
    assert!(code == 0 && text.contains("acked data is gone"), "{text}");
    let server = Server::start(&data);
    assert_eq!(server.messages("one").await.len(), found.len());
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_names_what_a_missing_or_unreadable_segment_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = filled(dir.path()).await;
    let server = Server::start(&data);
    for n in 700..1_100 {
        server.send(CHANNELS[n % 3], &format!("n{n}")).await;
    }
    server.stop();
    assert!(data.join("log/0000000003.log").exists(), "three segments");
    let second = data.join("log/0000000002.log");
    let whole = std::fs::read(&second).expect("reads");
    let serve = || run(&data, &["serve", "--listen-socket", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
    let heads = |text: &str| -> Vec<(u64, u64)> {
        let lost = text.lines().filter(|line| line.starts_with("lost: channel number "));
        lost.map(|line| {
            let word = |n: usize| line.split_whitespace().nth(n).and_then(|word| word.parse().ok());
            assert!(CHANNELS.iter().any(|name| line.ends_with(&format!("({name}:2)"))), "it is named: {line}");
            (word(5).expect("a first seq"), word(7).expect("a last seq"))
        })
        .collect()
    };
    let mut told = Vec::new();
    for damage in ["missing", "header"] {
        match damage {
            "missing" => std::fs::remove_file(&second).expect("removed"),
            _ => {
                std::fs::write(&second, &whole).expect("written");
                flip(&second, 40);
            }
        }
        let (code, out) = serve();
        assert!(code == 4 && out.contains("0000000002.log"), "{damage}: {code} {out}");
        let (code, out) = run(&data, &["repair"]);
        assert!(code == 1 && out.contains("nothing was changed"), "{damage}: {code} {out}");
        assert!(out.contains("kept: up to version") && out.contains("lost: all of segment 3"), "{damage}: {out}");
        assert_eq!(out.contains("lost: all of segment 2"), damage == "header", "{out}");
        let lost = heads(&out);
        assert_eq!(lost.iter().map(|(_, last)| *last).collect::<Vec<_>>(), [367, 367, 366], "{damage}: {out}");
        assert!(lost.iter().all(|(first, _)| *first > 50), "{damage}: what segment 1 has is not lost: {out}");
        told.push(lost);
    }
    assert_eq!(told[0], told[1], "the view tells what nobody can read");
    let (code, out) = run(&data, &["repair", "--accept-loss"]);
    assert!(code == 0 && heads(&out) == told[0] && out.ends_with("sound\n"), "{code} {out}");
    assert!(data.join("lost-1/0000000002.log").exists() && data.join("lost-1/0000000003.log").exists());
    let server = Server::start(&data);
    for (channel, (first, _)) in CHANNELS.iter().zip(&told[0]) {
        assert_eq!(server.messages(channel).await.len() as u64, first - 1, "{channel}");
        assert_eq!(server.send(channel, "after").await.0, *first);
    }
    server.stop();
    assert_eq!(check(&data).0, 0);
    // The first segment's header: nothing can be kept, and what was there is named as far as its lots tell.
    flip(&data.join("log/0000000001.log"), 20);
    let (code, out) = run(&data, &["repair", "--accept-loss"]);
    assert!(code == 1 && out.contains("nothing was changed: restore a backup"), "{code} {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_log_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.make("one").await;
    for n in 0..20 {
        server.send("one", &format!("n{n}")).await;
    }
    server.stop();
    let older = dir.path().join("older");
    std::fs::create_dir(&older).expect("made");
    let mut files = BTreeMap::new();
    files_of(&data.join("log"), &mut files);
    for (path, bytes) in &files {
        std::fs::write(older.join(path.file_name().expect("a name")), bytes).expect("written");
    }
    let server = Server::start(&data);
    for n in 20..30 {
        server.send("one", &format!("n{n}")).await;
    }
    server.stop();
    // The whole directory `log` as it was: its own watermark fits it, the view's mark does not.
    std::fs::rename(data.join("log"), dir.path().join("newer")).expect("moved");
    std::fs::rename(&older, data.join("log")).expect("moved");
    let (code, out) = run(&data, &["serve", "--listen-socket", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
    assert!(code == 4 && out.contains("acked") && out.contains("gone"), "{code} {out}");
    let (code, report) = check(&data);
    assert!(code == 1 && report.to_string().contains("acked data is gone"), "{report}");
    // What a repair would lose is told: the view knows the seqs.
    let (code, out) = run(&data, &["repair"]);
    assert!(code == 1 && out.contains("lost: channel number 0 seq 21 to 30 (one:2)"), "{code} {out}");
    // Without the view nothing outside the log remembers; put back, everything is there.
    std::fs::rename(data.join("log"), &older).expect("moved");
    std::fs::rename(dir.path().join("newer"), data.join("log")).expect("moved");
    let server = Server::start(&data);
    assert_eq!(server.messages("one").await.len(), 30);
    server.stop();
}
