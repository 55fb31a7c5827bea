//! kill -9 at any instant of a verb that writes: begun again it comes to the same end, and in between no server answers
//! from half of it.
//!
//! ```text
//! CHINWAG_CARE_KILLS=50 cargo test --test care kills        more rounds per verb (4 by default)
//! CHINWAG_CARE_SEED=N cargo test --test care kills          one seed again
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Server, assert_same, check, command, done, exported, filled, flip, last_segment, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn rounds() -> u64 {
    number("CHINWAG_CARE_KILLS").unwrap_or(4)
}

fn seeded(test: &str) -> StdRng {
    let seed = number("CHINWAG_CARE_SEED").unwrap_or_else(rand::random);
    println!("{test}: CHINWAG_CARE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Runs a verb and kills it after a random part of `whole`; `true`: it was killed, `false`: it was faster.
fn killed(rng: &mut StdRng, data: &Path, args: &[&str], whole: Duration) -> bool {
    let mut child = command(data, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let after = whole.mul_f64(rng.random_range(0.0..1.1));
    let begun = Instant::now();
    while begun.elapsed() < after {
        if child.try_wait().expect("waits").is_some() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(1).min(after.saturating_sub(begun.elapsed())));
    }
    child.kill().expect("killed");
    child.wait().expect("waits").code().is_none()
}

/// How long an undisturbed run takes.
fn timed(data: &Path, args: &[&str]) -> Duration {
    let begun = Instant::now();
    done(data, args);
    begun.elapsed()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let path = entry.expect("entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A filled data directory with a file in it, and what it holds.
async fn source(dir: &Path) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let data = filled(dir).await;
    let server = Server::start(&data);
    let token = server.token("alice").await;
    let file = server.upload(&token, vec![7; 3_000_000]).await;
    server.send_file(&token, "alice", &file).await;
    server.stop();
    let held = exported(&data, &dir.join("held"));
    (data, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_or_restore_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, held) = source(dir.path()).await;
    let mut rng = seeded("backup and restore");
    let undisturbed = dir.path().join("undisturbed");
    let backing = timed(&data, &["backup", text(&undisturbed)]);
    let restoring = timed(&dir.path().join("whole"), &["restore", text(&undisturbed)]);
    let mut kills = (0, 0);
    for round in 0..rounds() {
        let (backup, restored) = (dir.path().join(format!("b{round}")), dir.path().join(format!("r{round}")));
        for _ in 0..2 {
            kills.0 += u64::from(killed(&mut rng, &data, &["backup", text(&backup)], backing));
            // Whatever lies there: a whole backup or none.
            if backup.join("manifest.json").exists() {
                assert_eq!(check(&backup).0, 0, "round {round}");
            } else {
                let (code, out) = run(&restored, &["restore", text(&backup)]);
                assert!(code == 4 && out.contains("holds no backup"), "round {round}: {code} {out}");
            }
        }
        done(&data, &["backup", text(&backup)]);
        for _ in 0..2 {
            if !restored.exists() {
                kills.1 += u64::from(killed(&mut rng, &restored, &["restore", text(&backup)], restoring));
            }
        }
        if !restored.exists() {
            done(&restored, &["restore", text(&backup)]);
        }
        assert_eq!(check(&restored).0, 0, "round {round}");
        let target = dir.path().join(format!("e{round}"));
        assert_same(&held, &exported(&restored, &target), &format!("round {round}"));
        for done_with in [backup, restored, target] {
            std::fs::remove_dir_all(done_with).expect("removed");
        }
    }
    println!("killed: {} backups, {} restores", kills.0, kills.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_export_or_import_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, held) = source(dir.path()).await;
    let mut rng = seeded("export and import");
    let exporting = timed(&data, &["export", text(&dir.path().join("held"))]);
    let importing = timed(&dir.path().join("whole"), &["import", text(&dir.path().join("held"))]);
    let mut kills = (0, 0);
    for round in 0..rounds() {
        let (export, imported) = (dir.path().join(format!("x{round}")), dir.path().join(format!("i{round}")));
        for _ in 0..2 {
            kills.0 += u64::from(killed(&mut rng, &data, &["export", text(&export)], exporting));
            if !export.join("channels.ndjson").exists() {
                let (code, out) = run(&imported, &["import", text(&export)]);
                assert!(code == 4 && out.contains("not whole"), "round {round}: {code} {out}");
            }
        }
        assert_same(&held, &exported(&data, &export), &format!("export of round {round}"));
        for _ in 0..2 {
            if !imported.exists() {
                kills.1 += u64::from(killed(&mut rng, &imported, &["import", text(&export)], importing));
            }
        }
        if !imported.exists() {
            done(&imported, &["import", text(&export)]);
        }
        assert_eq!(check(&imported).0, 0, "round {round}");
        let target = dir.path().join(format!("e{round}"));
        assert_same(&held, &exported(&imported, &target), &format!("import of round {round}"));
        for done_with in [export, imported, target] {
            std::fs::remove_dir_all(done_with).expect("removed");
        }
    }
    println!("killed: {} exports, {} imports", kills.0, kills.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rebuild_or_repair_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, held) = source(dir.path()).await;
    let mut rng = seeded("rebuild and repair");
    let broken = dir.path().join("broken");
    copy_dir(&data, &broken);
    // A lot's header in the middle of the first segment: a repair cuts there.
    let segment = broken.join("log/0000000001.log");
    let whole = std::fs::read(&segment).expect("reads");
    let lot = whole.windows(8).skip(300_000).position(|bytes| bytes == &whole[128..136]).expect("a lot") + 300_000;
    flip(&segment, lot + 20);
    let repaired = dir.path().join("repaired");
    copy_dir(&broken, &repaired);
    let repairing = timed(&repaired, &["repair", "--accept-loss"]);
    let left = exported(&repaired, &dir.path().join("left"));
    let rebuilding = timed(&data, &["rebuild"]);
    let mut kills = (0, 0);
    for round in 0..rounds() {
        let work = dir.path().join(format!("w{round}"));
        copy_dir(&data, &work);
        kills.0 += u64::from(killed(&mut rng, &work, &["rebuild"], rebuilding));
        if round % 2 == 0 {
            done(&work, &["rebuild"]);
        } else {
            // A start makes what is missing.
            let server = Server::start(&work);
            assert_eq!(server.messages("one").await.len(), 234, "round {round}");
            server.stop();
        }
        assert_eq!(check(&work).0, 0, "round {round}");
        assert_same(&held, &exported(&work, &dir.path().join(format!("e{round}"))), &format!("rebuild {round}"));
        std::fs::remove_dir_all(&work).expect("removed");

        copy_dir(&broken, &work);
        let mut was_killed = false;
        for _ in 0..2 {
            was_killed = killed(&mut rng, &work, &["repair", "--accept-loss"], repairing);
            kills.1 += u64::from(was_killed);
            let format = std::fs::read_to_string(work.join("format")).expect("reads");
            // While it is not done no server starts, whatever part of the log is left.
            if was_killed && format.starts_with("repairing") {
                let (code, out) =
                    run(&work, &["serve", "--listen-socket", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
                assert_eq!(code, 4, "round {round}: {out}");
            }
        }
        let (code, out) = run(&work, &["repair", "--accept-loss"]);
        assert_eq!(code, 0, "round {round}, killed: {was_killed}: {out}");
        assert_eq!(check(&work).0, 0, "round {round}");
        let after = exported(&work, &dir.path().join(format!("f{round}")));
        assert_same(&left, &after, &format!("repair of round {round}"));
        assert!(last_segment(&work).exists());
        std::fs::remove_dir_all(&work).expect("removed");
    }
    println!("killed: {} rebuilds, {} repairs", kills.0, kills.1);
}
