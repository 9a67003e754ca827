//! Sessions that outlive a stage's process: a file each in the state directory, mode 0600, replaced by rename.
//!
//! Only credentials with an end are kept. A file's modification time is that end, so that old ones are found
//! and removed without being read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::secret::Secret;

/// How long a process waits for another's call to STS before it makes its own.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// STS sessions last 12 hours at most; a lock file that old is nobody's.
const OLDEST_LOCK: Duration = Duration::from_secs(13 * 3600);

/// Where one session is kept.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    access_key_id: Secret<String>,
    secret_access_key: Secret<String>,
    session_token: Option<Secret<String>>,
    /// Unix seconds.
    expires: u64,
}

impl Cache {
    /// The place of the session that `key` tells from all others.
    pub(super) fn new(state: &Path, key: &str) -> Self {
        let digest = Sha256::digest(key);
        let name = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { directory: state.join("sessions"), name }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.name))
    }

    /// What is kept, expired or not; `None` for anything that this user has not written alone.
    pub(super) fn read(&self) -> Option<Credentials> {
        let path = self.path();
        let metadata = fs::symlink_metadata(&path).ok()?;
        let own = rustix::process::geteuid().as_raw();
        if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the kept session is open to others and not used");
            return None;
        }
        let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        Some(Credentials::new(
            kept.access_key_id.reveal(),
            kept.secret_access_key.reveal(),
            kept.session_token.map(|token| token.reveal().to_owned()),
            Some(UNIX_EPOCH.checked_add(Duration::from_secs(kept.expires))?),
            "kept session",
        ))
    }

    /// Keeps `credentials`, unless they have no end: those are written down elsewhere already.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written; what was there stays.
    pub(super) fn write(&self, credentials: &Credentials) -> io::Result<()> {
        let Some(expiry) = credentials.expiry() else { return Ok(()) };
        let kept = Kept {
            access_key_id: Secret::new(credentials.access_key_id().to_owned()),
            secret_access_key: Secret::new(credentials.secret_access_key().to_owned()),
            session_token: credentials.session_token().map(|token| Secret::new(token.to_owned())),
            expires: expiry.duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs(),
        };
        self.make_directory()?;
        // `tempfile` opens with mode 0600. Not synchronised: what a crash loses costs one call.
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&serde_json::to_vec(&kept)?)?;
        file.as_file().set_modified(expiry)?;
        file.persist(self.path())?;
        self.remove_ended();
        Ok(())
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// Sessions of jobs would pile up.
    fn remove_ended(&self) {
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let is_lock = entry.path().extension().is_some_and(|extension| extension == "lock");
            let limit = if is_lock { now - OLDEST_LOCK } else { now };
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            // Another process may have been faster. Files in the making are of this moment.
            if modified.is_ok_and(|modified| modified + Duration::from_secs(60) < limit) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Waits its turn to make the session; the turn ends with the value. `None` after [`LOCK_TIMEOUT`], or where
    /// files cannot be locked: then the session is made all the same.
    pub(super) async fn lock(&self) -> Option<File> {
        self.make_directory().ok()?;
        let path = self.directory.join(format!("{}.lock", self.name));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .ok()?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn credentials(seconds: Option<u64>) -> Credentials {
        let end = seconds.map(|seconds| {
            UNIX_EPOCH
                + Duration::from_secs(
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds,
                )
        });
        Credentials::new("ASIA", "secret", Some("token".into()), end, "test")
    }

    #[test]
    fn a_session_is_kept_for_its_key_and_for_this_user_alone() {
        let state = tempfile::tempdir().unwrap();
        let cache = Cache::new(state.path(), "one");
        cache.write(&credentials(Some(900))).unwrap();
        let read = cache.read().unwrap();
        assert_eq!(read.access_key_id(), "ASIA");
        assert_eq!(read.secret_access_key(), "secret");
        assert_eq!(read.session_token(), Some("token"));
        assert_eq!(read.expiry(), credentials(Some(900)).expiry());
        assert!(Cache::new(state.path(), "two").read().is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.path()), 0o600);
        assert_eq!(mode(&cache.directory), 0o700);

        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(cache.read().is_none());
        fs::write(cache.path(), "half a fil").unwrap();
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cache.read().is_none());
    }

    #[test]
    fn static_credentials_are_never_kept() {
        let state = tempfile::tempdir().unwrap();
        let cache = Cache::new(state.path(), "one");
        cache.write(&credentials(None)).unwrap();
        assert!(!cache.directory.exists());
    }

    #[test]
    fn sessions_that_have_ended_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let old = Cache::new(state.path(), "old");
        old.write(&credentials(Some(900))).unwrap();
        let hours_ago = SystemTime::now() - Duration::from_secs(7200);
        File::options().write(true).open(old.path()).unwrap().set_modified(hours_ago).unwrap();
        Cache::new(state.path(), "new").write(&credentials(Some(900))).unwrap();
        assert_eq!(fs::read_dir(&old.directory).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn one_makes_the_session_while_the_others_wait() {
        let state = tempfile::tempdir().unwrap();
        let cache = Cache::new(state.path(), "one");
        let first = cache.lock().await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(60), cache.lock());
        assert!(waiting.await.is_err());
        drop(first);
        assert!(cache.lock().await.is_some());
    }
}
