//! The watermark: how far lots were acked, in two slots overwritten in turn, in place.
//!
//! A slot that fails its checksum is absent; the other one is older by one lot. Slots are written without a sync after each
//! lot (the lot is durable by then) and synced when the caller says.

use super::files::{Files, LogFile, WATERMARK_NAME};
use super::layout::{self, Fault, SLOT};
use super::{Finding, FindingKind, LogMark};

/// Slots lie this far apart, so that one torn page cannot take both.
const SLOT_STEP: u64 = 4_096;
const FILE_BYTES: usize = 2 * SLOT_STEP as usize;

/// The open watermark file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: LogFile,
    next: u64,
    unsynced: bool,
}

impl Watermark {
    /// Makes an empty one.
    pub(super) fn create(files: &Files) -> std::io::Result<Self> {
        let file = files.create(WATERMARK_NAME, &[0; FILE_BYTES])?;
        Ok(Self { file, next: 0, unsynced: false })
    }

    /// Opens it and returns the marks of its sound slots.
    ///
    /// # Errors
    /// The disk, or a slot of a later format.
    pub(super) fn open(files: &Files) -> Result<(Self, Vec<LogMark>), Finding> {
        let path = files.path(WATERMARK_NAME);
        let io =
            |error: std::io::Error| Finding::new(FindingKind::Io, &path, 0, format_args!("it cannot be read: {error}"));
        let file = files.open(WATERMARK_NAME).map_err(io)?;
        let mut slots = [None, None];
        for (slot, at) in slots.iter_mut().zip([0, SLOT_STEP]) {
            let mut bytes = [0; SLOT];
            let filled = file.read_at(&mut bytes, at).map_err(io)?;
            match layout::decode_slot(&bytes[..filled]) {
                Ok(mark) => *slot = Some(mark),
                Err(Fault::Bad(_)) => {}
                Err(Fault::Newer(what)) => {
                    let detail = format_args!("newer data format: {what}");
                    return Err(Finding::new(FindingKind::NewerFormat, &path, at, detail));
                }
            }
        }
        // The next write goes over the absent or the older slot.
        let next = match slots {
            [Some(first), Some(second)] => u64::from(first.position > second.position),
            [Some(_), None] => 1,
            [None, _] => 0,
        };
        Ok((Self { file, next, unsynced: false }, slots.into_iter().flatten().collect()))
    }

    /// Overwrites the older slot; not synced.
    pub(super) fn write(&mut self, mark: &LogMark) -> std::io::Result<()> {
        self.unsynced = true;
        self.file.write_at(&layout::encode_slot(mark), self.next * SLOT_STEP)?;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Makes what was written durable; free when nothing was.
    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        if self.unsynced {
            self.file.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }
}
