//! What was read so far: the directory `NEW.wukongim`, where a download goes on after an interruption.
//!
//! ```text
//! source                 the address it was read from
//! people.ndjson          a line per user whose conversations were read in this round
//! channels/<hash>.ndjson messages of a channel, lines of the export format, appended page by page
//! export/                made of the above when everything was read
//! ```
//! Owns the files. A last line without its end is what an interruption left: it is cut away and read again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use protocol::ids::ChannelKey;
use serde::{Deserialize, Serialize};

/// What a user's conversations said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Person {
    pub uid: String,
    /// As many as the server shows at most: there may be more.
    pub is_cut: bool,
    pub rows: Vec<Seen>,
    /// Who is on the user's own lists.
    pub lists: Lists,
    /// Whether the system user ever wrote to the user.
    pub has_system: bool,
}

/// Who is on a channel's lists, or a user's.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Lists {
    pub denied: Vec<String>,
    pub allowed: Vec<String>,
}

/// A channel in a user's conversations: its canonical id.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    pub id: String,
    #[serde(rename = "type")]
    pub channel_type: u8,
    /// Read up to here.
    pub read: u64,
}

/// The directory, locked.
pub(super) struct Staging {
    pub dir: PathBuf,
    _lock: File,
}

/// A file that only grows.
pub(super) struct Growing {
    file: File,
    path: PathBuf,
}

fn make(dir: &Path) -> anyhow::Result<()> {
    // Everybody's messages.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))
}

impl Staging {
    /// Opens the directory beside `data_dir`, made when it is not there.
    pub(super) fn open(data_dir: &Path, from: &str) -> anyhow::Result<Self> {
        let mut name = data_dir.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(".wukongim");
        let dir = data_dir.with_file_name(name);
        make(&dir.join("channels"))?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.with_context(|| format!("cannot lock {}", dir.display()))?;
        if lock.try_lock().is_err() {
            bail!("{} is in use by another chinwag process", dir.display());
        }
        let source = dir.join("source");
        match fs::read_to_string(&source) {
            Ok(found) if found.trim() == from => {}
            Ok(found) => {
                bail!("{} was read from {}: remove it, or name another --data-dir", dir.display(), found.trim())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::write(&source, format!("{from}\n"))
                    .with_context(|| format!("cannot write {}", source.display()))?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", source.display())),
        }
        Ok(Self { dir, _lock: lock })
    }

    /// What was read of users in this round.
    pub(super) fn people(&self) -> anyhow::Result<(Vec<Person>, Growing)> {
        let (growing, _) = Growing::open(&self.dir.join("people.ndjson"))?;
        let text = fs::read_to_string(&growing.path)?;
        let person = |(number, line): (usize, &str)| {
            let read = serde_json::from_str(line);
            read.with_context(|| format!("{}: line {}: remove this file", growing.path.display(), number + 1))
        };
        let people = text.lines().enumerate().map(person).collect::<anyhow::Result<_>>()?;
        Ok((people, growing))
    }

    /// Ends a round: the next one asks about everybody again.
    pub(super) fn end_round(&self) -> anyhow::Result<()> {
        fs::remove_file(self.dir.join("people.ndjson")).context("cannot end the round")
    }

    /// The messages of a channel read so far, and the last line of them.
    pub(super) fn channel(&self, key: &ChannelKey) -> anyhow::Result<(Growing, Option<String>)> {
        Growing::open(&self.channel_path(key))
    }

    pub(super) fn channel_path(&self, key: &ChannelKey) -> PathBuf {
        let name = format!("{}:{}", key.channel_type().to_wire(), key.channel_id());
        self.dir.join("channels").join(format!("{}.ndjson", &blake3::hash(name.as_bytes()).to_hex()[..32]))
    }

    /// An empty directory for the export.
    pub(super) fn export(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join("export");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
        make(&dir)?;
        Ok(dir)
    }
}

impl Growing {
    /// Opens a file, cuts what follows its last line and returns that line.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Option<String>)> {
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        let last = last_line(&mut file).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((Self { file, path: path.to_owned() }, last))
    }

    /// Appends whole lines, in one write.
    pub(super) fn append(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(lines).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Reads a file's last whole line from behind, and cuts what follows it.
fn last_line(file: &mut File) -> anyhow::Result<Option<String>> {
    let whole = file.metadata()?.len();
    let mut wanted = 64 << 10;
    loop {
        let tail = whole.min(wanted);
        let mut bytes = vec![0; usize::try_from(tail)?];
        file.seek(SeekFrom::Start(whole - tail))?;
        file.read_exact(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let begin = end.and_then(|end| bytes[..end].iter().rposition(|byte| *byte == b'\n'));
        if begin.is_none() && tail < whole {
            wanted *= 8;
            continue;
        }
        let Some(end) = end else {
            file.set_len(0)?;
            return Ok(None);
        };
        file.set_len(whole - tail + end as u64 + 1)?;
        return Ok(Some(String::from_utf8(bytes[begin.map_or(0, |at| at + 1)..end].to_vec())?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interruption_left_is_cut_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let long = "x".repeat(300_000);
        for (text, last, kept) in [
            ("", None, ""),
            ("half", None, ""),
            ("one\n", Some("one"), "one\n"),
            ("one\ntwo\nha", Some("two"), "one\ntwo\n"),
            (&format!("one\n{long}\nha"), Some(long.as_str()), &format!("one\n{long}\n")),
            (&format!("one\n{long}"), Some("one"), "one\n"),
        ] {
            fs::write(&path, text).expect("written");
            let (mut growing, found) = Growing::open(&path).expect("opened");
            assert_eq!(found.as_deref(), last);
            growing.append(b"more\n").expect("appended");
            assert_eq!(fs::read_to_string(&path).expect("reads"), format!("{kept}more\n"));
        }
    }
}
