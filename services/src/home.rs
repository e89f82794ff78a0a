//! The folder that holds what is installed and what runs in the background, and the locks that let
//! several processes use it at once.
//!
//! | in it | what |
//! |---|---|
//! | `kafka-VERSION` and so on | installed files; such a folder is complete or absent |
//! | `background/NAME` | settings, log, pid and data of a server that runs in the background |
//! | `NAME.lock` | empty; held while something of that name is made |

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// `$MARQUEE_SERVICES_HOME`, or `~/.cache/marquee-services`.
pub fn home() -> Result<PathBuf> {
    let is_set = |value: &std::ffi::OsString| !value.is_empty();
    let chosen = std::env::var_os("MARQUEE_SERVICES_HOME").filter(is_set).map(PathBuf::from);
    let home = chosen.or_else(|| {
        let user = std::env::var_os("HOME").filter(is_set)?;
        Some(Path::new(&user).join(".cache/marquee-services"))
    });
    let home = home.context("neither MARQUEE_SERVICES_HOME nor HOME is set: set one")?;
    std::path::absolute(&home).with_context(|| format!("{} is no path", home.display()))
}

/// Waits for the lock of a name in a folder, and holds it until the file is dropped. Servers do not
/// inherit it.
pub(crate) fn lock(home: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    let path = home.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The folder `name` in `home`; `make` fills it, if it is not there. It appears under its name when it
/// is complete, and only one of several processes makes it.
pub(crate) fn folder(
    home: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = home.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let _lock = lock(home, name)?;
    if path.is_dir() {
        return Ok(path);
    }
    // In the same folder, hence on the same file system: the rename below is atomic.
    let new = tempfile::Builder::new().prefix(&format!("{name}.new-")).tempdir_in(home)?;
    make(new.path())?;
    fs::rename(new.keep(), &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_folder_is_made_once_by_many_and_is_whole_or_absent() {
        let home = tempfile::tempdir().expect("a folder");
        let failed = folder(home.path(), "x", |new| {
            fs::write(new.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(failed.is_err());
        assert!(!home.path().join("x").exists());

        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let path = folder(home.path(), "x", |new| {
                        made.fetch_add(1, Ordering::Relaxed);
                        Ok(fs::write(new.join("whole"), "yes")?)
                    });
                    let text = fs::read_to_string(path.expect("it is made").join("whole"));
                    assert_eq!(text.expect("it is whole"), "yes");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        // The folder, its lock, and nothing that was half made.
        assert_eq!(fs::read_dir(home.path()).expect("it is there").count(), 2);
    }
}
