//! The preloaded disk (`disk.c`) from the outside: made with the machine's C compiler, and what a power cut leaves of a data
//! directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The shim, when there is a compiler.
pub fn shim(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/disk.c");
    let made = dir.join("disk.so");
    let built = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&made).arg(source).arg("-ldl").status();
    match built {
        Ok(status) if status.success() => Some(made),
        other => {
            eprintln!("SKIPPED: no shim to preload, `cc` says {other:?}");
            None
        }
    }
}

/// Makes a directory of what the shadow says was synced. A name whose file never was is an empty file.
pub fn restore(shadow: &Path, inode: u64, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    let Ok(names) = std::fs::read_to_string(shadow.join(format!("d-{inode}"))) else { return Ok(()) };
    for line in names.lines() {
        let mut parts = line.splitn(3, ' ');
        let (kind, inode, name) =
            (parts.next(), parts.next().context("inode")?.parse()?, parts.next().context("name")?);
        let to = to.join(name);
        match kind {
            Some("d") => restore(shadow, inode, &to)?,
            _ => {
                let synced = shadow.join(format!("f-{inode}"));
                if synced.exists() { std::fs::copy(&synced, &to).map(drop)? } else { std::fs::write(&to, b"")? }
            }
        }
    }
    Ok(())
}

/// Makes the shadow of a directory whose files are all synced.
pub fn take_in(dir: &Path, shadow: &Path) -> Result<()> {
    use std::fmt::Write as _;
    use std::os::unix::fs::MetadataExt;
    let mut names = String::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, inode) = (entry.path(), entry.metadata()?.ino());
        let kind = if path.is_dir() { 'd' } else { 'f' };
        writeln!(names, "{kind} {inode} {}", entry.file_name().to_string_lossy())?;
        if path.is_dir() {
            take_in(&path, shadow)?;
        } else {
            std::fs::copy(&path, shadow.join(format!("f-{inode}")))?;
        }
    }
    std::fs::write(shadow.join(format!("d-{}", std::fs::metadata(dir)?.ino())), names)?;
    Ok(())
}
