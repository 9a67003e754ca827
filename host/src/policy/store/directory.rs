//! A directory that only this user can write, and its files.
//!
//! Checks are made on open handles, and names are resolved against the directory's handle: a path that is
//! swapped between a check and a use is of no help to anybody.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};

use super::StoreError;

/// Bytes of a description: far more than one has.
const MAX_READ: u64 = 1 << 20;
/// Held while an entry is made. One for all entries: compiling takes a fraction of a second.
const LOCK: &str = "lock";
/// Behind the name of a file that is being written.
pub(super) const TEMPORARY: &str = ".new";

pub(super) struct Directory {
    handle: File,
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let error = |what| move |source| StoreError::Io { what, path: path.to_owned(), source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(error("create the directory"))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| error("open the directory")(errno.into()))?;
        let stat = rustix::fs::fstat(&handle)
            .map_err(|errno| error("look at the directory")(errno.into()))?;
        if let Some(reason) = unsafe_reason(&stat) {
            let user = rustix::process::geteuid().as_raw();
            return Err(StoreError::Unsafe { path: path.to_owned(), reason, user });
        }
        Ok(Self { handle: handle.into(), path: path.to_owned() })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// The file and its length; `None` when there is none.
    pub(super) fn open_file(&self, file: &str) -> io::Result<Option<(File, u64)>> {
        let flags = OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let handle = match rustix::fs::openat(&self.handle, file, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let stat = rustix::fs::fstat(&handle)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is not a regular file"));
        }
        if let Some(reason) = unsafe_reason(&stat) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(Some((handle.into(), u64::try_from(stat.st_size).unwrap_or(0))))
    }

    pub(super) fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        self.read_at_most(file, MAX_READ)
    }

    /// What is longer than `max` bytes is cut off.
    pub(super) fn read_at_most(&self, file: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((handle, _)) = self.open_file(file)? else { return Ok(None) };
        let mut bytes = Vec::new();
        handle.take(max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The names of what lies in the directory, sorted.
    pub(super) fn files(&self) -> Result<Vec<String>, StoreError> {
        let error = |source| StoreError::Io { what: "list", path: self.path.clone(), source };
        let entries = std::fs::read_dir(path_of(&self.handle)).map_err(error)?;
        let mut files = Vec::new();
        for entry in entries {
            // A name that is no text is none of ours.
            files.extend(entry.map_err(error)?.file_name().into_string().ok());
        }
        files.sort();
        Ok(files)
    }

    /// Call it under the lock. Who has the file mapped keeps it.
    pub(super) fn remove(&self, file: &str) -> Result<(), StoreError> {
        rustix::fs::unlinkat(&self.handle, file, AtFlags::empty()).map_err(|errno| StoreError::Io {
            what: "remove",
            path: self.path(file),
            source: errno.into(),
        })
    }

    /// Waits until no other process makes an entry. The lock ends with the file's handle.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let locked = rustix::fs::openat(&self.handle, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|handle| {
                rustix::fs::flock(&handle, FlockOperation::LockExclusive).map(|()| handle)
            });
        locked.map(File::from).map_err(|errno| StoreError::Io {
            what: "lock",
            path: self.path(LOCK),
            source: errno.into(),
        })
    }

    /// Puts a new file in the place of `file`, which others may have mapped. Call it under the lock.
    pub(super) fn replace(&self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{file}{TEMPORARY}");
        self.write(&temporary, bytes)
            .and_then(|()| {
                rustix::fs::renameat(&self.handle, temporary.as_str(), &self.handle, file)?;
                // The name as well must survive a crash, or an old description meets a new file.
                self.handle.sync_all()
            })
            .map_err(|source| StoreError::Io { what: "write", path: self.path(file), source })
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        // A rest of a process that was killed; its mode and owner are not to be trusted.
        match rustix::fs::unlinkat(&self.handle, file, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&self.handle, file, flags, Mode::RUSR | Mode::WUSR)?;
        let mut handle = File::from(handle);
        handle.write_all(bytes)?;
        handle.sync_all()
    }
}

/// A path to the very file that is open.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unsafe_reason(stat: &Stat) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Some(format!("belongs to user {}", stat.st_uid));
    }
    let mode = stat.st_mode & 0o7777;
    (mode & 0o022 != 0).then(|| format!("can be written by others (mode {mode:04o})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_directory_is_its_users_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        directory.replace("x", b"one").unwrap();
        directory.replace("x", b"two").unwrap();
        assert_eq!(directory.read("x").unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(path.join("x")).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(directory.read("y").unwrap().is_none());
        assert!(!path.join("x.new").exists());
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        let directory = Directory::open(&path).unwrap();
        directory.replace("x", b"one").unwrap();
        fs::set_permissions(path.join("x"), Permissions::from_mode(0o620)).unwrap();
        let error = directory.read("x").unwrap_err();
        assert_eq!(error.to_string(), "can be written by others (mode 0620)");
        fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
        let Err(StoreError::Unsafe { reason, .. }) = Directory::open(&path) else {
            panic!("refused")
        };
        assert_eq!(reason, "can be written by others (mode 0770)");
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        Directory::open(&path).unwrap();
        let mut stat = rustix::fs::stat(&path).unwrap();
        assert_eq!(unsafe_reason(&stat), None);
        stat.st_uid += 1;
        assert_eq!(unsafe_reason(&stat), Some(format!("belongs to user {}", stat.st_uid)));
    }

    #[test]
    fn links_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        let directory = Directory::open(&path).unwrap();
        fs::write(parent.path().join("elsewhere"), b"x").unwrap();
        std::os::unix::fs::symlink(parent.path().join("elsewhere"), path.join("x")).unwrap();
        assert!(directory.read("x").is_err());
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Directory::open(&link), Err(StoreError::Io { .. })));
    }
}
