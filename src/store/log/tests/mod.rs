//! Tests of the log. `append`: writing, rolling, failing, reading. `drawn`: the bytes against docs/storage.md. `recovery`: torn ends, flips, marks.

mod append;
mod drawn;
mod recovery;

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use protocol::ids::{ClientMsgNo, MessageSeq, Uid};

use super::seam::{FileFaults, FileOp};
use super::*;
use crate::domain::message::MessageFlags;
use crate::store::{Commit, MessageRecord, StoreError};

/// The clock of tests: microseconds, far below the versions' end.
const NOW: u64 = 1_700_000_000_000_000;

fn text(channel: u32, seq: u64, payload: &[u8]) -> Record {
    Record::Message(MessageRecord {
        extras: None,
        channel: ChannelNo(channel),
        message_seq: MessageSeq::new(seq).expect("from 1"),
        from_uid: Uid::from_stored("alice"),
        client_msg_no: ClientMsgNo::from_stored(&format!("no-{channel}-{seq}")),
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: bytes::Bytes::copy_from_slice(payload),
    })
}

fn user(name: &str) -> Record {
    Record::UserCreated { uid: Uid::from_stored(name) }
}

fn lot(records: impl IntoIterator<Item = Record>) -> Vec<Commit> {
    records.into_iter().map(Commit::from).collect()
}

/// Options of tests that look at what files say, not at the disk.
fn unsynced() -> LogOptions {
    LogOptions { faults: Some(std::sync::Arc::new(NoSyncs)), ..LogOptions::default() }
}

#[derive(Debug)]
struct NoSyncs;

impl FileFaults for NoSyncs {
    fn check(&self, _op: FileOp, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn skips_syncs(&self) -> bool {
        true
    }
}

fn open(dir: &Path) -> (Log, OpenReport) {
    Log::open(dir, unsynced(), None).expect("open")
}

fn append(log: &mut Log, records: impl IntoIterator<Item = Record>) -> SealedLot {
    let sealed = log.seal(&lot(records), NOW);
    log.write(&sealed).expect("write");
    sealed
}

fn lots(log: &Log) -> Vec<LotView> {
    log.reader().scan(LogPosition::default()).map(|lot| lot.expect("sound lot")).collect()
}

/// The records of a log without holes, with versions and places.
fn records(log: &Log) -> Vec<(Version, Place, Record)> {
    let entries = lots(log).into_iter().flat_map(|lot| lot.records);
    entries
        .map(|entry| match entry {
            LotEntry::Record { version, place, record } => (version, place, record),
            LotEntry::DamagedMessage { channel, seq, .. } => panic!("hole in {channel:?} at {seq}"),
        })
        .collect()
}

/// What stopped a start.
fn finding(error: &StoreError) -> &Finding {
    error.source.as_ref().and_then(|source| source.downcast_ref()).unwrap_or_else(|| panic!("no finding in {error:?}"))
}

fn refused(dir: &Path, known: Option<&LogMark>) -> Finding {
    match Log::open(dir, unsynced(), known) {
        Ok((_, report)) => panic!("opened: {report:?}"),
        Err(error) => finding(&error).clone(),
    }
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(files::segment_name(number))
}

fn copy_dir(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("temporary directory");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copy");
    }
    to
}

/// Makes the n-th operation of a kind fail, and counts them.
#[derive(Debug, Default)]
struct FailOn {
    plan: Mutex<Vec<(FileOp, u32)>>,
}

impl FailOn {
    /// The operation fails after `after` more of its kind went well.
    fn plan(&self, op: FileOp, after: u32) {
        self.plan.lock().push((op, after));
    }
}

impl FileFaults for FailOn {
    fn check(&self, op: FileOp, _path: &Path) -> io::Result<()> {
        let mut plan = self.plan.lock();
        for i in 0..plan.len() {
            if plan[i].0 == op {
                if plan[i].1 == 0 {
                    plan.remove(i);
                    return Err(io::Error::other("planned"));
                }
                plan[i].1 -= 1;
            }
        }
        Ok(())
    }
}
