//! `SQLite`: the default back end, one file `desist.db` in a directory of its own.
//!
//! Invariant: whoever holds [`DirLock`] has the only connection that writes. Readers are
//! connections of their own in WAL mode, so they never wait for the writer nor it for them.

mod session;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use sha2::{Digest, Sha256};

use crate::{Read, Readers, SCHEMA_VERSION, Store, StoreError, Work};
use session::Session;

/// The database's name in its directory.
pub const FILE: &str = "desist.db";
/// The schema, one file for each version; applied in order and never backwards.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [include_str!("sqlite/schema/0001.sql")];
/// How long one connection waits for another's lock before [`StoreError::Busy`].
const BUSY: Duration = Duration::from_secs(2);
/// Reading connections.
const READERS: usize = 4;
/// Page cache of the writer in KiB: the upper levels of the index of lookup keys for some ten
/// million identifiers, whose random inserts are what a commit costs.
const WRITER_CACHE_KIB: i32 = 128 * 1024;
/// Page cache of each reader in KiB.
const READER_CACHE_KIB: i32 = 8 * 1024;
/// Pages in the WAL before they are copied into the database: more make throughput higher and the
/// rare slow commits slower; this is 64 MiB.
const CHECKPOINT_PAGES: i32 = 16_384;
/// Bytes of shredded data may stay in the WAL for this long while writes go on.
const SCRUB: Duration = Duration::from_secs(10);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
                ErrorCode::DiskFull => Self::Full,
                // The WAL index is grown by allocating, which fails for want of room alone.
                _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged(error.to_string()),
                _ => Self::Database(error.to_string()),
            },
            E::FromSqlConversionFailure(..) | E::InvalidColumnType(..) | E::IntegralValueOutOfRange(..) | E::QueryReturnedNoRows => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Database(error.to_string()),
        }
    }
}

/// An error of the file system on `path`.
fn io(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Database(format!("{}: {error}", path.display())),
    }
}

/// The right to write in a directory: at most one process has it, and it ends with the process.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is just being started has the file open too.
        let _ = self.file.unlock();
    }
}

impl DirLock {
    /// Takes the lock, making the directory (0700) and the lock file (0600) if they are missing.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| io(dir, &error))?;
        let path = dir.join("lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(|error| io(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.display().to_string())),
            Err(TryLockError::Error(error)) => Err(io(&path, &error)),
        }
    }
}

/// The writer of a `SQLite` store.
#[derive(Debug)]
pub struct SqliteStore {
    // Before the connection: the last one to close empties the WAL, which readers cannot.
    pool: Arc<Pool>,
    connection: Connection,
    /// Hours that have an idempotency table; `None` until read, and again after a roll-back.
    hours: Option<BTreeSet<i64>>,
    /// Something was shredded whose old pages may still be in the WAL.
    shredded: bool,
    scrubbed: Option<Instant>,
    migrated: Option<(u32, u32, PathBuf)>,
    // Last, so that it outlives the connection.
    _lock: DirLock,
}

impl SqliteStore {
    /// Takes the directory's lock and opens its database, made or migrated as needed.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, &MIGRATIONS)
    }

    fn open_with(dir: &Path, migrations: &[&str]) -> Result<Self, StoreError> {
        let lock = DirLock::acquire(dir)?;
        let path = dir.join(FILE);
        // SQLite gives the WAL the permissions of the database. An existing file is not opened
        // here: closing it again would end the locks that readers of this process hold on it.
        match create_private(&path) {
            Ok(()) => sync_names(&path)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(&path, &error)),
        }
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Database(format!("{} cannot use a WAL here (journal mode {mode})", path.display())));
        }
        let migrated = migrate(&mut connection, &path, migrations)?;
        Ok(Self { connection, pool: Arc::new(Pool::new(path)), hours: None, shredded: false, scrubbed: None, migrated, _lock: lock })
    }

    /// The version found, the version now and the backup made before, if opening migrated the store.
    pub fn migrated(&self) -> Option<&(u32, u32, PathBuf)> {
        self.migrated.as_ref()
    }

    /// Empties the WAL once after something was shredded: `secure_delete` overwrites the database
    /// alone. Not an error if readers are in the way, a later transaction tries again.
    fn scrub(&mut self) {
        if !self.shredded {
            return;
        }
        let done = self
            .connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)));
        self.shredded = done != Ok(0);
        self.scrubbed = Some(Instant::now());
        // Cannot fail on an open connection; at worst the next lock is not waited for.
        let _ = self.connection.busy_timeout(BUSY);
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.scrub();
    }
}

impl Store for SqliteStore {
    fn transact(&mut self, work: Work<'_>) -> Result<(), StoreError> {
        // Rolls back when dropped.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut session = Session::new(&transaction, self.hours.take());
        work(&mut session)?;
        let (hours, shredded) = session.end();
        transaction.commit()?;
        self.hours = hours;
        self.shredded |= shredded;
        if self.scrubbed.is_none_or(|last| last.elapsed() >= SCRUB) {
            self.scrub();
        }
        Ok(())
    }

    fn readers(&self) -> Box<dyn Readers> {
        Box::new(SqliteReaders { pool: Arc::clone(&self.pool) })
    }
}

/// Reading connections to a `SQLite` store.
#[derive(Clone, Debug)]
pub struct SqliteReaders {
    pool: Arc<Pool>,
}

impl SqliteReaders {
    /// Opens an existing store for reading alone, beside a process that may be writing it.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Err(StoreError::Database(format!("{} does not exist", path.display())));
        }
        let pool = Pool::new(path);
        let reader = pool.take()?;
        let found = version(reader.connection())?;
        fits(found, SCHEMA_VERSION)?;
        if found < SCHEMA_VERSION {
            return Err(StoreError::Version {
                found,
                known: SCHEMA_VERSION,
                fix: "start the server once with this version, which migrates it",
            });
        }
        drop(reader);
        Ok(Self { pool: Arc::new(pool) })
    }
}

impl Readers for SqliteReaders {
    fn read(&self, work: &mut dyn FnMut(&mut dyn Read) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let reader = self.pool.take()?;
        let transaction = reader.connection().unchecked_transaction()?;
        work(&mut Session::new(&transaction, None))
    }

    fn backup(&self, to: &Path) -> Result<(), StoreError> {
        // A connection of its own: a long copy keeps no reader waiting.
        copy(&connect(&self.pool.path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?, to)
    }
}

/// A few connections; a slot is `None` until first used.
#[derive(Debug)]
struct Pool {
    path: PathBuf,
    free: Mutex<Vec<Option<Connection>>>,
    returned: Condvar,
}

impl Pool {
    fn new(path: PathBuf) -> Self {
        Self { path, free: Mutex::new((0..READERS).map(|_| None).collect()), returned: Condvar::new() }
    }

    fn take(&self) -> Result<Reader<'_>, StoreError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let mut reader = Reader { pool: self, connection: free.pop().expect("waited for one") };
        drop(free);
        if reader.connection.is_none() {
            reader.connection = Some(connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?);
        }
        Ok(reader)
    }
}

/// A connection that goes back to its pool.
struct Reader<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
}

impl Reader<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("connected when taken")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // One that is stuck in a transaction is not used again.
        let connection = self.connection.take().filter(Connection::is_autocommit);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        self.pool.returned.notify_one();
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn connect(path: &Path, mode: OpenFlags, cache_kib: i32) -> Result<Connection, StoreError> {
    // No mutex: Rust already sees to it that one thread at a time uses a connection.
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
    ))?;
    // Else SQLite looks at the values that it is given, and compiles a statement again for others (its "query planner stability guarantee").
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Room for every statement, with two for each hour that answers are remembered.
    connection.set_prepared_statement_cache_capacity(192);
    Ok(connection)
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn fits(found: u32, known: u32) -> Result<(), StoreError> {
    if found > known {
        return Err(StoreError::Version { found, known, fix: "run the version of desist that wrote it, or a later one" });
    }
    Ok(())
}

/// Brings the schema up to date, after a backup of what was there.
fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<Option<(u32, u32, PathBuf)>, StoreError> {
    let (found, known) = (version(connection)?, migrations.len() as u32);
    fits(found, known)?;
    if found == 0 {
        let foreign: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
        if foreign {
            return Err(StoreError::Damaged(format!("{} is another program's database", path.display())));
        }
    }
    let (applied, missing) = migrations.split_at(found as usize);
    for (version, sql) in (1_u32..).zip(applied) {
        let kept: bool =
            connection
                .query_row("SELECT sha256 = lower(hex(?)) FROM migration WHERE version = ?", (checksum(sql), version), |row| row.get(0))?;
        if !kept {
            return Err(StoreError::Damaged(format!("schema {version} is not the one of this build")));
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let mut backup = None;
    if found > 0 {
        // An earlier attempt may have left one; it is not overwritten.
        let name = |n| path.with_file_name(format!("{FILE}.v{found}.{n}.backup"));
        let mut n = 1;
        while name(n).exists() {
            n += 1;
        }
        copy(connection, &name(n))?;
        backup = Some((found, known, name(n)));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (version, sql) in (found + 1..).zip(missing) {
        transaction.execute_batch(sql)?;
        transaction.execute("INSERT INTO migration VALUES (?, lower(hex(?)))", (version, checksum(sql)))?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(backup)
}

/// Stored in hexadecimal, as `sha256sum` prints it.
fn checksum(sql: &str) -> [u8; 32] {
    Sha256::digest(sql).into()
}

/// Copies a database as of one moment into a new file, durably.
fn copy(from: &Connection, to: &Path) -> Result<(), StoreError> {
    create_private(to).map_err(|error| io(to, &error))?;
    let copied = (|| {
        let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // A torn copy is removed, so it needs no journal; one sync at the end makes it durable.
        target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        // All pages in one step: no writer can come between two of them and make it start again.
        if Backup::new(from, &mut target)?.step(-1)? != StepResult::Done {
            return Err(StoreError::Busy);
        }
        target.close().map_err(|(_, error)| error)?;
        sync(to)?;
        sync_names(to)
    })();
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| io(path, &error))
}

/// Makes a new file's name durable, and that of its directory, which may be new as well.
fn sync_names(file: &Path) -> Result<(), StoreError> {
    let full = file.canonicalize().map_err(|error| io(file, &error))?;
    let mut dirs = full.ancestors().skip(1);
    dirs.next().map_or(Ok(()), sync)?;
    // What is above may not be ours to open; then somebody else made the directory.
    let _ = dirs.next().map(sync);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{STEPS, step};

    fn filled(dir: &Path) -> SqliteStore {
        let mut store = SqliteStore::open(dir).expect("opens");
        for number in 1..=STEPS {
            store.transact(&mut |write| step(number, write)).expect("commits");
        }
        store
    }

    #[test]
    fn an_older_store_is_backed_up_and_migrated() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(filled(dir.path()).migrated(), None);
        let newer = [MIGRATIONS[0], "CREATE TABLE later (x INTEGER) STRICT;", "INSERT INTO later SELECT count(*) FROM entry;"];
        let known = SCHEMA_VERSION + 2;
        // A migration that fails half-way leaves the old store, and its backup is not overwritten.
        let failed = SqliteStore::open_with(dir.path(), &[newer[0], newer[1], "INSERT INTO nowhere VALUES (1)"]);
        assert!(matches!(failed, Err(StoreError::Database(_))));
        assert_eq!(SqliteStore::open(dir.path()).expect("opens").migrated(), None);

        let store = SqliteStore::open_with(dir.path(), &newer).expect("migrates");
        let (found, now, backup) = store.migrated().expect("migrated").clone();
        assert_eq!((found, now), (SCHEMA_VERSION, known));
        assert_eq!(backup, dir.path().join("desist.db.v1.2.backup"));
        let later: i64 = store.connection.query_row("SELECT x FROM later", [], |row| row.get(0)).expect("reads");
        assert!(later > 0);
        drop(store);
        assert_eq!(SqliteStore::open_with(dir.path(), &newer).expect("opens").migrated(), None);
        assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Version { .. })), "an older program refuses");
        let edited = [newer[0], newer[1], "SELECT 1;"];
        assert!(matches!(SqliteStore::open_with(dir.path(), &edited), Err(StoreError::Damaged(_))), "a released file was edited");

        let old = tempfile::tempdir().expect("a directory");
        std::fs::copy(backup, old.path().join(FILE)).expect("copies");
        assert_eq!(SqliteStore::open(old.path()).expect("opens").migrated(), None);
    }

    #[test]
    fn a_full_disk_writes_nothing_and_passes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = filled(dir.path());
        let pages: u32 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("reads");
        store.connection.pragma_update(None, "max_page_count", pages + 2).expect("sets");
        let big = vec![1; 100_000];
        let full = store.transact(&mut |write| write.put_meta("a", &[1]).and_then(|()| write.put_meta("b", &big)));
        assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
        let mut found = Some(Vec::new());
        store.readers().read(&mut |read| read.meta("a").map(|value| found = value)).expect("reads");
        assert_eq!(found, None);
        drop(store);
        let mut store = SqliteStore::open(dir.path()).expect("opens");
        store.transact(&mut |write| write.put_meta("b", &big)).expect("commits");
    }

    #[test]
    fn the_pragmas_are_set() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(dir.path()).expect("opens");
        for (name, expected) in
            [("journal_mode", "wal"), ("synchronous", "2"), ("secure_delete", "1"), ("mmap_size", "0"), ("wal_autocheckpoint", "16384")]
        {
            let value: rusqlite::types::Value = store.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).expect("reads");
            let text = match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            };
            assert_eq!(text, expected, "{name}");
        }
    }
}
