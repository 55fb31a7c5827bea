//! Export and import through the real binary: what is in an export, beside a running server too, and that a server on the
//! import answers as the old one did.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, assert_same, check, done, exported, flip, run};

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("reads");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_every_change_of_every_channel() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.make("one").await;
    let first = server.send("one", "first").await;
    server.send("one", "second").await;
    let read = json!({"uid": "bob", "channel_id": "one", "channel_type": 2, "unread": 1});
    server.post("/conversations/setUnread", read).await;
    let target = dir.path().join("export");
    let beside = done(&data, &["export", text(&target)]);
    assert!(beside.starts_with("1 channels, 2 messages\n") && beside.contains("a server is running"), "{beside}");
    server.stop();
    for _ in 0..2 {
        let stopped = done(&data, &["export", text(&target)]);
        assert!(stopped.starts_with("1 channels, 2 messages\n") && !stopped.contains("running"), "{stopped}");
    }
    let index = lines(&target.join("channels.ndjson"));
    assert_eq!((index.len(), &index[0]["channel_id"], &index[0]["messages"]), (1, &json!("one"), &json!(2)));
    let all = lines(&target.join(index[0]["file"].as_str().expect("a name")));
    let of = |kind: &str| all.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((&all[0]["kind"], &all[0]["channel_id"]), (&json!("channel"), &json!("one")));
    assert_eq!((&of("read")[0]["uid"], &of("read")[0]["message_seq"]), (&json!("bob"), &json!(1)));
    assert_eq!(of("members_added")[0]["uids"], json!(["alice", "bob"]));
    let messages = of("message");
    assert_eq!(messages.len(), 2);
    assert_eq!((&messages[0]["message_id"], &messages[0]["client_msg_no"]), (&json!(first.1), &json!("first")));
    assert_eq!(messages[0]["from_uid"], "alice");
    assert!(messages[0]["payload"].as_str().is_some_and(|payload| payload.starts_with("cGF5bG9hZCBv")));
    assert_eq!(all.last().map(|line| (&line["kind"], &line["digest"])), Some((&json!("end"), &index[0]["digest"])));
    let left = std::fs::read_dir(&target).expect("readable").filter_map(Result::ok);
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| text(name.as_ref()).contains(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_an_import_answers_as_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, moved) = (dir.path().join("data"), dir.path().join("moved"));
    let server = Arc::new(Server::start(&data));
    let token = server.token("alice").await;
    server.token("bob").await;
    let content: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let file = server.upload(&token, content.clone()).await;
    server.send_file(&token, "bob", &file).await;
    for channel in ["one", "two"] {
        server.make(channel).await;
        for n in 0..40 {
            server.send(channel, &format!("n{n}")).await;
        }
    }
    // Beside a server at work: everything acked before it began is in it.
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                server.send("two", &format!("later{n}")).await;
                n += 1;
            }
        })
    };
    let (from, to) = (data.clone(), dir.path().join("live"));
    let taken = tokio::task::spawn_blocking(move || done(&from, &["export", text(&to)])).await.expect("it ends");
    stop.store(true, Ordering::Relaxed);
    sender.await.expect("it ends well");
    assert!(taken.contains("a server is running"), "{taken}");
    done(&dir.path().join("from-live"), &["import", text(&dir.path().join("live"))]);
    let live = Server::start(&dir.path().join("from-live"));
    let (one, two) = (live.messages("one").await, live.messages("two").await);
    assert_eq!(one, server.messages("one").await);
    let original = server.messages("two").await;
    assert!(two.len() >= 40 && two.iter().all(|(seq, message)| original.get(seq) == Some(message)), "{}", two.len());
    drop(live);

    let (one, seen) = (server.messages("one").await, original.values().map(|(id, _)| *id).max());
    Arc::into_inner(server).expect("the only one left").stop();
    let before = exported(&data, &dir.path().join("export"));
    let out = done(&moved, &["import", text(&dir.path().join("export"))]);
    assert!(out.contains("3 channels") && out.contains("sound\n"), "{out}");
    assert!(!dir.path().join("moved.importing").exists());
    assert_same(&before, &exported(&moved, &dir.path().join("again")), "after the import");
    let again = run(&moved, &["import", text(&dir.path().join("export"))]);
    assert!(again.0 == 4 && again.1.contains("not empty"), "{again:?}");
    assert_eq!(check(&moved).0, 0);

    let server = Server::start(&moved);
    assert_eq!((server.messages("one").await, server.messages("two").await), (one.clone(), original));
    assert_eq!(server.download(&token, &file).await, content, "tokens and files work on");
    // A retry gets its first outcome; what is new lies above everything; versions beyond the export are unknown.
    let (seq, (id, name)) = one.last_key_value().expect("messages");
    assert_eq!(server.send("one", name).await, (*seq, *id));
    assert!(server.send("one", "after").await.1 > seen.expect("messages"));
    let body = json!({"uid": "alice", "version": seen.expect("messages") + 3_600_000_000, "msg_count": 1});
    let (headers, _) = server.post("/conversation/sync", body).await;
    assert_eq!(headers.get("x-chinwag-reset").map(|value| value.as_bytes()), Some(&b"1"[..]), "{headers:?}");
    server.stop();

    // Without credentials: no secret in it, and the new server makes its own.
    let bare = dir.path().join("bare");
    done(&data, &["export", text(&bare), "--without-credentials"]);
    assert!(!bare.join("root.key").exists() && !bare.join("credentials.pepper").exists());
    assert_eq!(lines(&bare.join("credentials.ndjson")).len(), 1, "the line \"end\"");
    let target = dir.path().join("from-bare");
    let out = done(&target, &["import", text(&bare)]);
    assert!(out.contains("no credentials in it"), "{out}");
    assert_eq!(Server::start(&target).messages("one").await, one);
    // Hashes without their pepper are worth nothing, and do not keep a server from starting.
    std::fs::remove_file(dir.path().join("export/credentials.pepper")).expect("removed");
    let target = dir.path().join("no-pepper");
    done(&target, &["import", text(&dir.path().join("export"))]);
    assert_eq!(Server::start(&target).messages("one").await, one);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, export) = (dir.path().join("data"), dir.path().join("export"));
    let server = Server::start(&data);
    let token = server.token("alice").await;
    let file = server.upload(&token, b"a content".to_vec()).await;
    server.send_file(&token, "alice", &file).await;
    server.make("one").await;
    for n in 0..5 {
        server.send("one", &format!("n{n}")).await;
    }
    server.stop();
    done(&data, &["export", text(&export)]);
    let index = lines(&export.join("channels.ndjson"));
    let name = index.iter().find(|line| line["channel_id"] == "one").expect("listed")["file"].clone();
    let file = export.join(name.as_str().expect("a name"));
    let whole = std::fs::read_to_string(&file).expect("reads");
    let target = dir.path().join("target");
    let import = || run(&target, &["import", text(&export)]);
    // The second message is the fourth or so line: found by its seq.
    let at = whole.lines().position(|line| line.contains("\"message_seq\":2,")).expect("a line") + 1;
    let changed = |from: &str, to: &str| {
        let mut all: Vec<String> = whole.lines().map(str::to_owned).collect();
        assert!(all[at - 1].contains(from), "{}", all[at - 1]);
        all[at - 1] = all[at - 1].replace(from, to);
        all.join("\n") + "\n"
    };
    let line = format!("line {at}: ");
    let cases = [
        (
            changed("\"message_seq\":2,", "\"message_seq\":3,"),
            format!("{line}field \"message_seq\" is 3, after 1 it must be 2"),
        ),
        (changed("\"from_uid\":\"alice\"", "\"from_uid\":\"al#ice\""), format!("{line}field \"from_uid\"")),
        (changed("\"client_msg_no\"", "\"colour\""), format!("{line}field \"client_msg_no\" is missing")),
        (changed("\"message_id\":", "\"message_id\":1,\"x\":"), format!("{line}version 1 does not lie above")),
        (changed("{", ""), format!("{line}it is no line of an export")),
        (changed("cGF5", "cGF6"), "digest".to_owned()),
        (whole.lines().next().expect("a line").to_owned() + "\n", "line 2: it has no line \"end\"".to_owned()),
    ];
    for (text, said) in cases {
        std::fs::write(&file, text).expect("written");
        let (code, out) = import();
        assert!(code == 1 && out.contains(&said), "{code} {out} for {said}");
        assert!(out.contains(file.file_name().and_then(|name| name.to_str()).expect("text")), "{out}");
        assert!(!target.exists());
    }
    std::fs::write(&file, &whole).expect("written");
    // A content that is not what was uploaded, or not there; a channel's file; the list.
    let content = blake3::hash(b"a content").to_hex();
    let content = export.join("files").join(&content[..2]).join(content.as_str());
    flip(&content, 0);
    let (code, out) = import();
    assert!(code == 1 && out.contains("is not what was uploaded"), "{code} {out}");
    std::fs::remove_file(&content).expect("removed");
    let (code, out) = import();
    assert!(code == 1 && out.contains("content of a file is not there"), "{code} {out}");
    std::fs::write(&content, b"a content").expect("written");
    for (name, said) in [
        (text(&file).to_owned(), "which is no file beside it"),
        (text(&export.join("channels.ndjson")).to_owned(), "not whole"),
    ] {
        let kept = std::fs::read(&name).expect("reads");
        std::fs::remove_file(&name).expect("removed");
        let (code, out) = import();
        assert!([1, 4].contains(&code) && out.contains(said), "{code} {out}");
        std::fs::write(&name, kept).expect("written");
    }
    let (code, out) = import();
    assert!(code == 0, "what lies there from before does not matter: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_keeps_its_seq_through_export_and_import() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, export, moved) = (dir.path().join("data"), dir.path().join("export"), dir.path().join("moved"));
    let server = Server::start(&data);
    server.make("one").await;
    for n in 0..9 {
        server.send("one", &format!("n{n}")).await;
    }
    server.stop();
    let segment = data.join("log/0000000001.log");
    let bytes = std::fs::read(&segment).expect("reads");
    let payload = b"payload of a message payload";
    let fourth = bytes.windows(2).enumerate().filter(|(_, at)| at == b"n3").map(|(at, _)| at).next().expect("a name");
    let at = fourth + bytes[fourth..].windows(payload.len()).position(|at| at == payload).expect("a payload");
    flip(&segment, at);

    // A backup refuses to take it over what may be sound, unless told.
    let backup = dir.path().join("backup");
    let (code, out) = run(&data, &["backup", text(&backup)]);
    assert!(code == 1 && out.contains("damaged") && out.contains(text(&segment)), "{code} {out}");
    let (code, out) = run(&data, &["backup", text(&backup), "--accept-holes"]);
    assert!(code == 1 && out.contains("found:") && out.contains("holds everything up to"), "{code} {out}");
    let restored = dir.path().join("restored");
    let out = done(&restored, &["restore", text(&backup)]);
    assert!(out.contains("[hole]"), "{out}");

    let out = done(&data, &["export", text(&export)]);
    assert!(out.contains("1 messages are damaged"), "{out}");
    let out = done(&moved, &["import", text(&export)]);
    assert!(out.contains("1 messages were not in it"), "{out}");
    for (data, state) in [(&restored, "damaged"), (&moved, "expired")] {
        let server = Server::start(data);
        let body = json!({"login_uid": "alice", "channel_id": "one", "channel_type": 2, "start_message_seq": 1,
                          "end_message_seq": 0, "limit": 100, "pull_mode": 1});
        let (_, answer) = server.post("/channel/messagesync", body).await;
        let messages = answer["messages"].as_array().expect("messages");
        let seqs: Vec<_> = messages.iter().filter_map(|message| message["message_seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=9).collect::<Vec<_>>(), "{state}");
        assert!(messages[3].to_string().contains(state), "{}", messages[3]);
        assert_eq!(server.send("one", "after").await.0, 10);
        server.stop();
    }
    assert_eq!(check(&moved).0, 0);
    // And it can be moved on, the same.
    let before = exported(&moved, &dir.path().join("moved-export"));
    let on = dir.path().join("moved-on");
    done(&on, &["import", text(&dir.path().join("moved-export"))]);
    assert_same(&before, &exported(&on, &dir.path().join("moved-on-export")), "moved on");
}
