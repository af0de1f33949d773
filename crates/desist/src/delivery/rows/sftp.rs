//! Files on another machine, by SFTP. The machine proves with the key that the operator pinned who it is, before it learns anything.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use desist_connector::{Instance, Secret};
use desist_core::lane::Failure;
use futures_util::StreamExt as _;
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::{Error, Sftp as Session, SftpOptions};
use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Disconnect, Preferred};

use super::{Fault, Options};
use crate::limits::{OUTGOING_CONNECT_TIMEOUT, SFTP_KEEPALIVE};
use crate::outgoing::dial;

/// A directory of another machine.
pub(super) struct Sftp {
    host: String,
    port: u16,
    host_key: PublicKey,
    username: String,
    credentials: Credentials,
    directory: PathBuf,
    allow_private: bool,
    // Taken out while it is used, and put back if nothing went wrong: what was given up half way is closed.
    kept: Mutex<Option<Connected>>,
}

enum Credentials {
    Key(Arc<PrivateKey>),
    Password(Secret),
}

/// A session, and the connection that carries it.
struct Connected {
    session: Session,
    _connection: Handle<Pinned>,
}

/// Who may answer.
struct Pinned {
    key: PublicKey,
    is_other: Arc<AtomicBool>,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let is_same = matches!(shown, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.key.key_data());
        self.is_other.store(!is_same, Ordering::Release);
        Ok(is_same)
    }
}

impl Sftp {
    pub(super) fn new(instance: &Instance, options: &Options) -> Result<Self, String> {
        let text = |name: &str| instance.text(name).map(str::to_owned).ok_or_else(|| format!("the setting {name} is missing"));
        let port = instance.number("port").and_then(|port| u16::try_from(port).ok()).ok_or("the setting port is not a port")?;
        let host_key = PublicKey::from_openssh(&text("host_key")?)
            .map_err(|_| "the setting host_key is not a public key, such as ssh-ed25519 AAAA...")?;
        let credentials = match (instance.secret("private_key"), instance.secret("password")) {
            (Some(key), None) => {
                let key = PrivateKey::from_openssh(key.expose()).map_err(|_| "the setting private_key is not a private key of OpenSSH")?;
                if key.is_encrypted() {
                    return Err("the setting private_key has a passphrase, which nobody is there to type".to_owned());
                }
                Credentials::Key(Arc::new(key))
            }
            (None, Some(password)) => Credentials::Password(password.clone()),
            _ => return Err("give either private_key or password".to_owned()),
        };
        let (username, directory) = (text("username")?, PathBuf::from(text("directory")?));
        let (host, allow_private) = (text("host")?, options.allow_private);
        Ok(Self { host, port, host_key, username, credentials, directory, allow_private, kept: Mutex::new(None) })
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let (temporary, path) = (self.directory.join(format!(".{name}.tmp")), self.directory.join(name));
        let connected = self.connected().await?;
        if let Err(error) = write(&connected.session, &temporary, &bytes).await {
            let _ = connected.session.fs().remove_file(&temporary).await;
            return Err(fault(&error));
        }
        // Where the server has posix-rename@openssh.com that is what is used.
        if let Err(error) = connected.session.fs().rename(&temporary, &path).await {
            let fault = fault(&error);
            return Err(if fault.is(Failure::Connect) { Fault::new(Failure::Ambiguous, fault.problem) } else { fault });
        }
        match connected.session.fs().metadata(&path).await {
            Ok(found) if found.len().is_none_or(|len| len == bytes.len() as u64) => {
                self.keep(connected);
                Ok(())
            }
            Ok(_) => Err(Fault::new(Failure::Server, "the file is not as long as what was written")),
            // A receiver may have taken it away.
            Err(Error::SftpError(SftpErrorKind::NoSuchFile, _)) => {
                self.keep(connected);
                Ok(())
            }
            Err(error) => Err(Fault::new(Failure::Ambiguous, fault(&error).problem)),
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<String>, Fault> {
        let connected = self.connected().await?;
        let directory = connected.session.fs().open_dir(&self.directory).await.map_err(|error| fault(&error))?;
        let (mut entries, mut names) = (Box::pin(directory.read_dir()), Vec::new());
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| fault(&error))?;
            // What is no text is not ours.
            names.extend(entry.filename().to_str().map(str::to_owned));
        }
        drop(entries);
        self.keep(connected);
        Ok(names)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), Fault> {
        let connected = self.connected().await?;
        match connected.session.fs().remove_file(self.directory.join(name)).await {
            // A receiver may have taken it away.
            Ok(()) | Err(Error::SftpError(SftpErrorKind::NoSuchFile, _)) => {}
            Err(error) => return Err(fault(&error)),
        }
        self.keep(connected);
        Ok(())
    }

    pub(super) async fn probe(&self) -> Result<(), Fault> {
        let connected = self.connected().await?;
        let path = self.directory.join(".desist-probe.tmp");
        write(&connected.session, &path, b"probe").await.map_err(|error| fault(&error))?;
        connected.session.fs().remove_file(&path).await.map_err(|error| fault(&error))?;
        self.keep(connected);
        Ok(())
    }

    fn keep(&self, connected: Connected) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected);
    }

    /// The session that was kept, if it still answers, or a new one. Nobody waits for another's: a snapshot takes long.
    async fn connected(&self) -> Result<Connected, Fault> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kept) = kept {
            let alive = tokio::time::timeout(OUTGOING_CONNECT_TIMEOUT, kept.session.fs().metadata(&self.directory)).await;
            if matches!(alive, Ok(Ok(_))) {
                return Ok(kept);
            }
        }
        match tokio::time::timeout(OUTGOING_CONNECT_TIMEOUT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(Fault::new(Failure::Connect, "the server does not answer")),
        }
    }

    async fn connect(&self) -> Result<Connected, Fault> {
        let down = |error: &dyn std::fmt::Display| Fault::new(Failure::Connect, format!("no connection: {error}"));
        let stream = dial(&self.host, self.port, self.allow_private).await.map_err(|error| down(&error))?;
        let config = client::Config {
            // A server with several keys is to show the one that is pinned.
            preferred: Preferred { key: Cow::Owned(vec![self.host_key.algorithm()]), ..Preferred::DEFAULT },
            keepalive_interval: Some(SFTP_KEEPALIVE),
            nodelay: true,
            ..client::Config::default()
        };
        let is_other = Arc::new(AtomicBool::new(false));
        let pinned = Pinned { key: self.host_key.clone(), is_other: Arc::clone(&is_other) };
        let mut connection = match client::connect_stream(Arc::new(config), stream, pinned).await {
            Ok(connection) => connection,
            Err(_) if is_other.load(Ordering::Acquire) => {
                return Err(Fault::new(Failure::Connect, "the server shows another key than host_key; nothing was sent"));
            }
            Err(error) => return Err(down(&error)),
        };
        let answer = match &self.credentials {
            Credentials::Key(key) => {
                connection.authenticate_publickey(&self.username, PrivateKeyWithHashAlg::new(Arc::clone(key), None)).await
            }
            Credentials::Password(password) => connection.authenticate_password(&self.username, password.expose()).await,
        };
        if !answer.map_err(|error| down(&error))?.success() {
            let _ = connection.disconnect(Disconnect::ByApplication, "", "").await;
            return Err(Fault::new(Failure::Credentials, "the server does not accept the user"));
        }
        let channel = connection.channel_open_session().await.map_err(|error| down(&error))?;
        channel.request_subsystem(true, "sftp").await.map_err(|error| down(&error))?;
        let (read, write) = tokio::io::split(channel.into_stream());
        let session = Session::new(write, read, SftpOptions::new()).await.map_err(|error| down(&error))?;
        Ok(Connected { session, _connection: connection })
    }
}

async fn write(session: &Session, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = session.options().write(true).create(true).truncate(true).open(path).await?;
    file.write_all(bytes).await?;
    if session.support_fsync() {
        file.sync_all().await?;
    }
    file.close().await
}

fn fault(error: &Error) -> Fault {
    let (failure, what) = match error {
        Error::SftpError(SftpErrorKind::PermDenied, _) => (Failure::Credentials, "the server does not let the user write there"),
        Error::SftpError(SftpErrorKind::NoSuchFile, _) => (Failure::Server, "the directory is not there"),
        // The one word of this version of the protocol for a full disk and much else.
        Error::SftpError(..) => (Failure::Server, "the server failed to write"),
        _ => (Failure::Connect, "the connection was lost"),
    };
    Fault::new(failure, what)
}
