//! Webhook endpoints and how far each was told: small files beside the log, which a backup takes along as they are.
//!
//! Each is replaced as a whole by its owner, so whatever is read was once true. A position that is newer than the copied log
//! is one that the restored server takes back to its log's end.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::{make_dir, write_file};
use crate::store::{Result, StoreError};

/// The directory of the files, in a data directory and in a backup.
const DIRECTORY: &str = "webhooks";

/// Makes the files below `to` those below `from`.
///
/// # Errors
/// I/O.
pub(super) fn copy_webhooks(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.join(DIRECTORY), to.join(DIRECTORY));
    let there = names(&from)?;
    for gone in names(&to)?.iter().filter(|name| !there.contains(name)) {
        let file = to.join(gone);
        fs::remove_file(&file).map_err(|error| StoreError::io("remove", file.display(), error))?;
    }
    if there.is_empty() {
        return Ok(());
    }
    make_dir(&to)?;
    for name in there {
        match fs::read(from.join(&name)) {
            Ok(bytes) => write_file(&to.join(&name), &bytes)?,
            // Its endpoint was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("copy", from.join(&name).display(), error)),
        }
    }
    Ok(())
}

/// The files that are in place; not what is being written beside them.
fn names(dir: &Path) -> Result<Vec<String>> {
    let fail = |error| StoreError::io("list", dir.display(), error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(fail)?.file_name().into_string().ok().filter(|name| name.ends_with(".json")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_has_the_files_of_the_original_and_no_others() {
        let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        copy_webhooks(from.path(), to.path()).expect("nothing to copy");
        assert!(!to.path().join("webhooks").exists());
        for (dir, name, text) in [
            (&from, "a.msg.notify.json", "1"),
            (&from, "a.msg.notify.new", "half"),
            (&to, "a.msg.notify.json", "0"),
            (&to, "removed.msg.notify.json", "0"),
        ] {
            fs::create_dir_all(dir.path().join("webhooks")).expect("made");
            fs::write(dir.path().join("webhooks").join(name), text).expect("written");
        }
        copy_webhooks(from.path(), to.path()).expect("copied");
        assert_eq!(names(&to.path().join("webhooks")).expect("listed"), ["a.msg.notify.json"]);
        assert_eq!(fs::read(to.path().join("webhooks/a.msg.notify.json")).expect("there"), b"1");
        assert!(!to.path().join("webhooks/a.msg.notify.new").exists());
    }
}
