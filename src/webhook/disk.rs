//! What webhooks keep on disk, in one directory of the data directory.
//!
//! Owns the files. Each is replaced as a whole: written beside, synced, renamed, the directory synced; so after a crash it is
//! the old one or the new one. Readable by its owner only: signing keys are among them.
//!
//! ```text
//! DATA/webhooks/endpoints.json        endpoints made by the admin API
//! DATA/webhooks/NAME.EVENT.json       how far an endpoint was told, and whether it is paused
//! DATA/webhooks/NAME.EVENT.dead.json  what was parked
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::ids::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::endpoint::{EndpointSpec, Event};

/// The format of all files; a reader refuses a higher one.
const FORMAT: u32 = 1;

/// What stands in a file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", file.display())]
pub struct DiskError {
    file: PathBuf,
    source: io::Error,
}

/// A message that was parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its message_id, which is its version in the log.
    pub message_id: u64,
    /// Its channel.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Its seq there.
    pub message_seq: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one did not count.
    pub error: String,
    /// When, Unix milliseconds.
    pub parked_at_ms: u64,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Everything up to here was told, or needs no telling.
    pub position: Version,
    /// An operator stopped it.
    pub paused: bool,
}

#[derive(Serialize, Deserialize)]
struct Framed<T> {
    format: u32,
    #[serde(flatten)]
    value: T,
}

#[derive(Serialize, Deserialize)]
struct Endpoints {
    endpoints: Vec<EndpointSpec>,
}

#[derive(Serialize, Deserialize)]
struct Position {
    position: u64,
    paused: bool,
}

#[derive(Serialize, Deserialize)]
struct Dead {
    dead: Vec<DeadLetter>,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// The directory in a data directory; made when something is written.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("webhooks") }
    }

    fn position_file(&self, name: &str, event: Event) -> PathBuf {
        self.dir.join(format!("{name}.{}.json", event.name()))
    }

    fn dead_file(&self, name: &str, event: Event) -> PathBuf {
        self.dir.join(format!("{name}.{}.dead.json", event.name()))
    }

    /// Endpoints made by the admin API.
    ///
    /// # Errors
    /// The file is there and cannot be used.
    pub fn endpoints(&self) -> Result<Vec<EndpointSpec>, DiskError> {
        let found: Option<Endpoints> = read(&self.dir.join("endpoints.json"))?;
        Ok(found.map(|found| found.endpoints).unwrap_or_default())
    }

    /// Replaces the endpoints.
    ///
    /// # Errors
    /// I/O.
    pub fn put_endpoints(&self, endpoints: Vec<EndpointSpec>) -> Result<(), DiskError> {
        write(&self.dir, &self.dir.join("endpoints.json"), Endpoints { endpoints })
    }

    /// How far a stream is; `None`: it is new.
    ///
    /// # Errors
    /// The file is there and cannot be used.
    pub fn kept(&self, name: &str, event: Event) -> Result<Option<Kept>, DiskError> {
        let found: Option<Position> = read(&self.position_file(name, event))?;
        Ok(found.map(|found| Kept { position: Version::new(found.position), paused: found.paused }))
    }

    /// Keeps how far a stream is.
    ///
    /// # Errors
    /// I/O.
    pub fn keep(&self, name: &str, event: Event, kept: Kept) -> Result<(), DiskError> {
        let value = Position { position: kept.position.get(), paused: kept.paused };
        write(&self.dir, &self.position_file(name, event), value)
    }

    /// What was parked, oldest first.
    ///
    /// # Errors
    /// The file is there and cannot be used.
    pub fn dead(&self, name: &str, event: Event) -> Result<Vec<DeadLetter>, DiskError> {
        let found: Option<Dead> = read(&self.dead_file(name, event))?;
        Ok(found.map(|found| found.dead).unwrap_or_default())
    }

    /// Replaces what was parked.
    ///
    /// # Errors
    /// I/O.
    pub fn put_dead(&self, name: &str, event: Event, dead: Vec<DeadLetter>) -> Result<(), DiskError> {
        write(&self.dir, &self.dead_file(name, event), Dead { dead })
    }

    /// Removes everything of an endpoint but its entry among the endpoints.
    ///
    /// # Errors
    /// I/O.
    pub fn forget(&self, name: &str) -> Result<(), DiskError> {
        self.forget_events(name, &Event::ALL)
    }

    /// Removes what is kept of some of an endpoint's events.
    ///
    /// # Errors
    /// I/O.
    pub fn forget_events(&self, name: &str, events: &[Event]) -> Result<(), DiskError> {
        for event in events.iter().copied() {
            for file in [self.position_file(name, event), self.dead_file(name, event)] {
                match fs::remove_file(&file) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(DiskError { file, source }),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, DiskError> {
    let fail = |source| DiskError { file: file.to_owned(), source };
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let invalid = |why: String| fail(io::Error::new(io::ErrorKind::InvalidData, why));
    let framed: Framed<serde_json::Value> =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if framed.format > FORMAT {
        return Err(invalid(format!("newer data format: {}", framed.format)));
    }
    serde_json::from_value(framed.value).map(Some).map_err(|error| invalid(error.to_string()))
}

fn write<T: Serialize>(dir: &Path, file: &Path, value: T) -> Result<(), DiskError> {
    let fail = |source| DiskError { file: file.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let mut text = serde_json::to_vec(&Framed { format: FORMAT, value }).map_err(|error| fail(error.into()))?;
    text.push(b'\n');
    let next = file.with_extension("new");
    let put = || {
        let mut beside = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        beside.write_all(&text)?;
        beside.sync_all()?;
        fs::rename(&next, file)?;
        File::open(dir)?.sync_all()
    };
    put().map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_belongs_to_its_owner() {
        let dir = tempfile::tempdir().expect("dir");
        let disk = Disk::new(dir.path());
        assert_eq!(disk.kept("a", Event::Notify).expect("nothing"), None);
        assert!(disk.endpoints().expect("nothing").is_empty());
        let kept = Kept { position: Version::new(7), paused: true };
        disk.keep("a", Event::Notify, kept).expect("kept");
        assert_eq!(disk.kept("a", Event::Notify).expect("there"), Some(kept));
        assert_eq!(disk.kept("a", Event::Offline).expect("nothing"), None);
        let letter = DeadLetter {
            message_id: 7,
            channel_id: "g".into(),
            channel_type: 2,
            message_seq: 1,
            attempts: 3,
            error: "answered 500, not 200".into(),
            parked_at_ms: 1,
        };
        disk.put_dead("a", Event::Notify, vec![letter.clone()]).expect("kept");
        assert_eq!(disk.dead("a", Event::Notify).expect("there"), [letter]);
        let file = dir.path().join("webhooks/a.msg.notify.json");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).expect("text"), "{\"format\":1,\"position\":7,\"paused\":true}\n");
        disk.forget("a").expect("removed");
        assert_eq!(disk.kept("a", Event::Notify).expect("nothing"), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let disk = Disk::new(dir.path());
        disk.keep("a", Event::Notify, Kept { position: Version::new(7), paused: false }).expect("kept");
        let file = dir.path().join("webhooks/a.msg.notify.json");
        for (text, why) in [("", "EOF"), ("{\"format\":2,\"position\":7,\"paused\":false}", "newer data format: 2")] {
            fs::write(&file, text).expect("written");
            let error = disk.kept("a", Event::Notify).expect_err("damaged").to_string();
            assert!(error.contains(why) && error.contains("a.msg.notify.json"), "{error}");
        }
    }
}
