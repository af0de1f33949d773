//! Files in a directory of this machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use desist_connector::Instance;
use desist_core::lane::Failure;

use super::{Fault, Options};

/// A directory.
pub(super) struct Local {
    directory: PathBuf,
}

impl Local {
    pub(super) fn new(instance: &Instance, _: &Options) -> Result<Self, String> {
        let directory = PathBuf::from(instance.text("directory").ok_or("the setting directory is missing")?);
        if directory.is_absolute() { Ok(Self { directory }) } else { Err("the setting directory is not an absolute path".to_owned()) }
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let (directory, name) = (self.directory.clone(), name.to_owned());
        blocking(move || put(&directory, &name, &bytes)).await
    }

    pub(super) async fn list(&self) -> Result<Vec<String>, Fault> {
        let directory = self.directory.clone();
        blocking(move || list(&directory).map_err(|error| fault(&error))).await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), Fault> {
        let path = self.directory.join(name);
        blocking(move || fs::remove_file(path).map_err(|error| fault(&error))).await
    }

    pub(super) async fn probe(&self) -> Result<(), Fault> {
        let directory = self.directory.clone();
        blocking(move || {
            let path = directory.join(".desist-probe.tmp");
            let probe = || {
                create(&path)?.write_all(b"probe")?;
                fs::remove_file(&path)
            };
            probe().map_err(|error| fault(&error))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Fault::new(Failure::Ambiguous, "the writing was given up")))
}

fn create(path: &Path) -> io::Result<File> {
    // The receiver may be of the group; nobody else is to read who opted out.
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
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

/// The names of what is there. What a crash left half written is removed: nobody else begins a name so.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with(".desist-") && name.ends_with(".tmp") {
            let _ = fs::remove_file(directory.join(&name));
        } else {
            names.push(name);
        }
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
