//! Files in a directory of this machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desist_connector::Instance;
use desist_core::lane::Failure;
use tokio::sync::Mutex;

use super::Fault;

/// A directory.
pub(super) struct Local {
    directory: PathBuf,
    // Held until the work ends, also if nobody waits for it any more: a disk that hangs holds up one thread.
    one: Arc<Mutex<()>>,
}

impl Local {
    pub(super) fn new(instance: &Instance) -> Result<Self, String> {
        let directory = PathBuf::from(instance.text("directory").ok_or("the setting directory is missing")?);
        if !directory.is_absolute() {
            return Err("the setting directory is not an absolute path".to_owned());
        }
        Ok(Self { directory, one: Arc::default() })
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let name = name.to_owned();
        self.blocking(move |directory| put(directory, &name, &bytes)).await
    }

    pub(super) async fn list(&self) -> Result<Vec<String>, Fault> {
        self.blocking(|directory| list(directory).map_err(|error| fault(&error))).await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.blocking(move |directory| match fs::remove_file(directory.join(name)) {
            // A receiver may have taken it away.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(fault(&error)),
            _ => Ok(()),
        })
        .await
    }

    pub(super) async fn probe(&self) -> Result<(), Fault> {
        self.blocking(|directory| {
            let path = directory.join(".desist-probe.tmp");
            let probe = || {
                create(&path)?.write_all(b"probe")?;
                fs::remove_file(&path)
            };
            probe().map_err(|error| fault(&error))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
        let (one, directory) = (Arc::clone(&self.one).lock_owned().await, self.directory.clone());
        let work = move || {
            let _one = one;
            work(&directory)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Fault::new(Failure::Ambiguous, "the writing was given up")))
    }
}

fn create(path: &Path) -> io::Result<File> {
    // Made anew, so that a link which a receiver put there leads nowhere.
    let _ = fs::remove_file(path);
    // The receiver may be of the group; nobody else is to read who opted out.
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let (temporary, path) = (directory.join(format!(".{name}.tmp")), directory.join(name));
    let write = || {
        let mut file = create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Err(io::Error::other("the file is not as long as what was written"));
        }
        fs::rename(&temporary, &path)
    };
    if let Err(error) = write() {
        // If that fails too it stays behind with a name that no receiver takes.
        let _ = fs::remove_file(&temporary);
        return Err(fault(&error));
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Fault::new(Failure::Ambiguous, format!("the directory cannot be made durable: {error}")))
}

fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // What is no text is not ours.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn fault(error: &io::Error) -> Fault {
    let failure = match error.kind() {
        ErrorKind::PermissionDenied => Failure::Credentials,
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::Connect,
        _ => Failure::Server,
    };
    Fault::new(failure, format!("the directory: {error}"))
}
