//! What a backup says it holds: the last file written, and the only one a restore believes.
//!
//! ```text
//! BACKUP/manifest.json      this
//! BACKUP/format             as in a data directory
//! BACKUP/log/               segments; of the last one at least the bytes the manifest names; a watermark
//! BACKUP/files/             contents, by their hash
//! BACKUP/credentials.pepper, BACKUP/root.key    secrets, mode 0600
//! ```
//! So a backup is laid out as a data directory without a view, and `chinwag check` can read it.

use std::path::Path;

use protocol::ids::Version;
use serde::{Deserialize, Serialize};

use super::{refused, write_file};
use crate::store::log::{LogMark, LogPosition};
use crate::store::{Result, StoreError};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// One segment of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSegment {
    /// Its number.
    pub number: u32,
    /// Bytes of the file that count.
    pub bytes: u64,
    /// BLAKE3 of those bytes.
    pub blake3: String,
    /// Nothing is ever added to it.
    pub closed: bool,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// When it was taken, Unix milliseconds.
    pub taken_ms: u64,
    log_id: String,
    segment: u32,
    offset: u32,
    version: u64,
    chain: String,
    /// Segments from 1 on, without a gap.
    pub segments: Vec<HeldSegment>,
}

/// The manifest with a checksum over its own JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    manifest: Manifest,
    blake3: String,
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let value = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(value.to_be_bytes())
}

impl Manifest {
    /// A manifest of a prefix and its segments.
    pub fn new(end: &LogMark, taken_ms: u64, segments: Vec<HeldSegment>) -> Self {
        Self {
            format: FORMAT,
            taken_ms,
            log_id: hex(&end.log_id),
            segment: end.position.segment,
            offset: end.position.offset,
            version: end.version.get(),
            chain: hex(&end.chain),
            segments,
        }
    }

    /// The prefix it holds.
    ///
    /// # Errors
    /// It is not what was written.
    pub fn end(&self) -> Result<LogMark> {
        match (from_hex(&self.log_id), from_hex(&self.chain)) {
            (Some(log_id), Some(chain)) => Ok(LogMark {
                log_id,
                position: LogPosition { segment: self.segment, offset: self.offset },
                version: Version::new(self.version),
                chain,
            }),
            _ => Err(StoreError::damaged("read manifest", "its numbers cannot be")),
        }
    }

    fn sealed(self) -> Result<Sealed> {
        let text = serde_json::to_string(&self).map_err(|e| StoreError::damaged("write manifest", e))?;
        Ok(Sealed { manifest: self, blake3: blake3::hash(text.as_bytes()).to_hex().to_string() })
    }

    /// Writes it durably: from now on the backup is what it says.
    ///
    /// # Errors
    /// I/O.
    pub fn write(self, backup: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.sealed()?);
        let text = text.map_err(|e| StoreError::damaged("write manifest", e))?;
        write_file(&backup.join(MANIFEST), text.as_bytes())
    }

    /// Reads the manifest of a backup; `None`: there is none.
    ///
    /// # Errors
    /// I/O; it is damaged or of a newer build.
    pub fn read(backup: &Path) -> Result<Option<Self>> {
        let path = backup.join(MANIFEST);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read manifest", path.display(), error)),
        };
        let damaged = |what: &str| StoreError::damaged("read manifest", format_args!("{}: {what}", path.display()));
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| damaged("it is no manifest"))?;
        if json["manifest"]["format"].as_u64().is_some_and(|format| format > u64::from(FORMAT)) {
            return Err(refused("read manifest", format_args!("{} was made by a newer build", path.display())));
        }
        let Sealed { manifest, blake3 } = serde_json::from_value(json).map_err(|_| damaged("it is no manifest"))?;
        let sealed = manifest.sealed()?;
        let manifest = sealed.manifest;
        let in_row = manifest.segments.iter().zip(1..).all(|(held, number)| held.number == number);
        let last = manifest.segments.last().map(|held| held.number);
        if sealed.blake3 != blake3 || !in_row || last != Some(manifest.segment) {
            return Err(damaged("it is not what was written"));
        }
        Ok(Some(manifest))
    }
}
