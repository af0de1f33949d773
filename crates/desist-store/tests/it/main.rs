//! The contract on `SQLite`, and what only `SQLite` promises.

mod check;
mod sqlite;

use std::path::{Path, PathBuf};
use std::process::Command;

use desist_store::contract::Harness;
use desist_store::sqlite::{FILE, SqliteStore};
use desist_store::{Store, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;

/// A store in a temporary directory.
struct Temporary {
    dir: TempDir,
    files: u32,
}

impl Temporary {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), files: 0 }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A connection past all that guards the store.
    fn raw(&self) -> Connection {
        Connection::open(self.home().join(FILE)).expect("opens")
    }
}

impl Harness for Temporary {
    fn open(&mut self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::open(&self.home())?))
    }

    fn new_file(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.path().join(format!("backup-{}", self.files))
    }

    fn open_backup(&mut self, backup: &Path) -> Result<Box<dyn Store>, StoreError> {
        let dir = backup.with_extension("dir");
        std::fs::create_dir(&dir).expect("makes a directory");
        std::fs::copy(backup, dir.join(FILE)).expect("copies");
        Ok(Box::new(SqliteStore::open(&dir)?))
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Another process reads: closing a file here would end the locks that SQLite holds on it.
        let output = Command::new("sh").args(["-c", "cat \"$0\"/desist.db*"]).arg(self.home()).output().expect("runs");
        assert!(output.status.success());
        output.stdout
    }

    fn set_version(&mut self, version: u32) {
        self.raw().pragma_update(None, "user_version", version).expect("writes");
    }
}

desist_store::contract!(Temporary::new);
