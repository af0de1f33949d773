//! Secrets that `desist.toml` needs: the file says where they are, and never what they are.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::{ENV_NAME_BYTES_MAX, SECRET_BYTES_MAX};

/// Where a secret is: `{ env = "NAME" }`, a variable of the server's environment, or `{ file = "PATH" }`, a file of at most 4096
/// bytes; white space around it does not count. It is read at start and at `desist reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline, with = "std::collections::BTreeMap<String, String>")]
pub enum SecretSource {
    /// The name of a variable of the environment.
    Env(String),
    /// The path of a file. A relative one starts at the configuration file's directory.
    File(PathBuf),
}

/// Why a secret is not there. It says where it should be, and nothing of what is there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {problem}")]
pub struct SecretMissing {
    place: String,
    problem: String,
}

impl SecretSource {
    /// The secret.
    pub fn read(&self) -> Result<Zeroizing<String>, SecretMissing> {
        let bytes = match self {
            Self::Env(name) => match std::env::var_os(name).map(|value| Zeroizing::new(value.into_encoded_bytes())) {
                Some(bytes) => bytes,
                None => return Err(self.missing("is not set in the environment of the server")),
            },
            Self::File(path) => {
                // Room for all of it, so that no shorter copy is left behind in freed memory.
                let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
                let read = File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
                match read {
                    Ok(_) => bytes,
                    Err(error) => return Err(self.missing(&format!("cannot be read: {error}"))),
                }
            }
        };
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(self.missing(&format!("is longer than {SECRET_BYTES_MAX} bytes")));
        }
        match std::str::from_utf8(&bytes).map(str::trim) {
            Ok("") => Err(self.missing("is empty")),
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(self.missing("is not UTF-8")),
        }
    }

    /// An error about what is there.
    pub fn missing(&self, problem: &str) -> SecretMissing {
        let place = match self {
            Self::Env(name) => format!("the variable {name}"),
            Self::File(path) => format!("the file {}", path.display()),
        };
        SecretMissing { place, problem: problem.to_owned() }
    }

    /// Makes a relative path start at this directory.
    pub(super) fn start_at(&mut self, dir: &Path) {
        if let Self::File(path) = self {
            *path = dir.join(&path);
        }
    }

    /// What is wrong with the place. Somebody may have put the secret there, so it is not shown.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        match self {
            Self::Env(name) if name.is_empty() || name.len() > ENV_NAME_BYTES_MAX || !name.bytes().all(allowed) => {
                Some("env is not the name of a variable, which has 1 to 128 of A-Z 0-9 _")
            }
            Self::File(path) if path.as_os_str().is_empty() => Some("file is empty"),
            Self::File(path) if path.to_string_lossy().contains("whsec_") => Some("file is not the path of a file"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_whole_trimmed_and_bounded_and_no_error_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let source = SecretSource::File(path.clone());
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            source.read().map(|text| text.to_string()).map_err(|error| error.to_string().replace(&path.display().to_string(), "F"))
        };
        assert_eq!(read(b"\n whsec_abc \r\n"), Ok("whsec_abc".to_owned()));
        assert_eq!(read(&b"x".repeat(SECRET_BYTES_MAX)), Ok("x".repeat(SECRET_BYTES_MAX)));
        assert_eq!(read(&b"x".repeat(SECRET_BYTES_MAX + 1)), Err("the file F is longer than 4096 bytes".to_owned()));
        assert_eq!(read(b" \n"), Err("the file F is empty".to_owned()));
        assert_eq!(read(b"se\xffcret"), Err("the file F is not UTF-8".to_owned()));
        std::fs::remove_file(&path).unwrap();
        assert!(source.read().unwrap_err().to_string().contains("cannot be read: No such file"));
        // Something endless is left after the bound.
        assert!(SecretSource::File("/dev/zero".into()).read().unwrap_err().to_string().contains("longer than"));
        let env = |name: &str| SecretSource::Env(name.to_owned());
        assert_eq!(env("PATH").read().unwrap().as_str(), std::env::var("PATH").unwrap());
        let unset = env("DESIST_TEST_NOT_SET").read().unwrap_err().to_string();
        assert_eq!(unset, "the variable DESIST_TEST_NOT_SET is not set in the environment of the server");
        assert_eq!(env(&"A".repeat(ENV_NAME_BYTES_MAX)).problem(), None);
        assert!(env(&"A".repeat(ENV_NAME_BYTES_MAX + 1)).problem().is_some());
    }
}
