//! The secret files: pepper, master key and the log's signing key, kept apart from the database.
//!
//! `KEYS/pepper.key`, `KEYS/master.key` and `KEYS/log.key` hold 32 random bytes each as base64url. The store
//! keeps their fingerprints, so that a server with the wrong files stops instead of writing nonsense.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_core::fact::RequestId;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::env::{Env, random};

/// Why a secret file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read or written.
    #[error("{path}: {error}; give --keys the directory that holds pepper.key, master.key and log.key")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It does not hold a key.
    #[error("{0}: not 32 bytes as base64url; restore the file from its backup")]
    Malformed(PathBuf),
    /// It is missing, but the store was made with one.
    #[error("{0} is missing, but the store was written with it; restore the file from its backup, or give --keys its directory")]
    Missing(PathBuf),
    /// It is not the file that the store was made with.
    #[error("{0} is not the file this store was written with; give --keys the right directory, or restore the file from its backup")]
    Wrong(PathBuf),
}

/// The secrets of one business.
pub struct Secrets {
    /// What lookup keys are derived from.
    pub pepper: Key,
    /// What wraps the vault's data keys.
    pub master: Key,
    /// What signs the log's checkpoints (the seed of RFC 8032).
    pub log: Key,
    /// What signed them before, if it still signs along.
    pub log_old: Option<Key>,
    tokens: hmac::Key,
}

/// The bytes of a secret file.
type Key = Zeroizing<[u8; 32]>;

/// The files, in the order of [`Secrets::fingerprints`].
const FILES: [&str; 3] = ["pepper.key", "master.key", "log.key"];

/// What the files of the log's former keys begin with; none is ever overwritten, since an older backup names one of them.
const FORMER: &str = "log.old-";
/// The log's next key, until the log says that it is the present one.
const NEXT: &str = "log.next.key";

/// What a store knows of the files that it is written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of `pepper.key`, `master.key` and `log.key`.
    pub files: [[u8; 32]; FILES.len()],
    /// Of the log's key before the present one, if it still signs along.
    pub log_old: Option<[u8; 32]>,
}

impl Secrets {
    /// Reads the files in `dir`. `expected` are the fingerprints that the store keeps; with none
    /// (an empty store) missing files are made.
    pub fn open(dir: &Path, expected: Option<&Fingerprints>, env: &dyn Env) -> Result<Self, SecretError> {
        if expected.is_none() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .and_then(|()| sync_name(dir))
                .map_err(|error| SecretError::Io { path: dir.to_owned(), error })?;
        }
        let mut keys = Vec::with_capacity(FILES.len());
        for (place, name) in FILES.iter().enumerate() {
            let mut path = dir.join(name);
            // The store of a backup names a former key, and one whose key just changed the next.
            if let Some(expected) = expected.filter(|_| *name == FILES[2]) {
                path = place_of_log_key(dir, &expected.files[place]).unwrap_or(path);
            }
            // A first start was cut off while it made the file: it holds nothing.
            if expected.is_none() && std::fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
                std::fs::remove_file(&path).map_err(|error| SecretError::Io { path: path.clone(), error })?;
            }
            let key = match read_key(&path) {
                Err(SecretError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => match expected {
                    Some(_) => return Err(SecretError::Missing(path)),
                    None => make_key(&path, env)?,
                },
                other => other?,
            };
            if expected.is_some_and(|expected| fingerprint(name, &key) != expected.files[place]) {
                return Err(SecretError::Wrong(path));
            }
            keys.push(key);
        }
        let mut next = || keys.pop().expect("three files were read");
        let (log, master, pepper) = (next(), next(), next());
        let log_old = match expected {
            Some(expected) => log_keys(dir, expected)?.1,
            None => None,
        };
        Ok(Self { log_old, ..Self::new(pepper, master, log) })
    }

    /// Secrets from their bytes.
    pub fn new(pepper: Key, master: Key, log: Key) -> Self {
        let mut tokens = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*master), b"desist/tokens/v1").as_ref().to_vec();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &tokens);
        tokens.zeroize();
        Self { pepper, master, log, log_old: None, tokens: key }
    }

    /// What the store keeps to know the files again: one-way, and of no use without them.
    pub fn fingerprints(&self) -> Fingerprints {
        Fingerprints {
            files: [fingerprint(FILES[0], &self.pepper), fingerprint(FILES[1], &self.master), log_fingerprint(&self.log)],
            log_old: self.log_old.as_ref().map(log_fingerprint),
        }
    }

    /// A keyed digest for one use, named by `label`.
    pub fn digest(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.tokens);
        for part in [label.as_bytes()].iter().chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    /// The receipt code of a request: 128 bits that nobody without the master key can tell from
    /// random. Derived, so that the same request answered twice has the same code while the store
    /// keeps only its hash.
    pub fn receipt_code(&self, request: RequestId) -> String {
        crockford(self.digest("receipt", &[&request.0])[..16].try_into().expect("16 of 32 bytes"))
    }

    /// An API key and its token (256 bits), derived from a random seed, so that a repeated request
    /// for a key can be answered again although the store keeps only hashes.
    pub fn credentials(&self, seed: &RequestId) -> (String, String) {
        let api_key = self.digest("api key", &[&seed.0]);
        let token = self.digest("token", &[&seed.0]);
        (format!("dk_{}", URL_SAFE_NO_PAD.encode(&api_key[..16])), format!("dt_{}", URL_SAFE_NO_PAD.encode(token)))
    }

    /// The token that confirms an opt-in, derived in the same way.
    pub fn confirm_token(&self, request: RequestId) -> String {
        URL_SAFE_NO_PAD.encode(&self.digest("confirm", &[&request.0])[..16])
    }
}

/// SHA-256, the form in which codes and tokens are stored.
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A receipt code as people type it: case, spaces and hyphens do not matter, and letters that look
/// like digits are those digits (Crockford's base 32).
pub fn canonical_code(typed: &str) -> Option<String> {
    let code: String = typed
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        })
        .collect();
    (code.len() == 26 && code.bytes().all(|b| CROCKFORD.contains(&b))).then_some(code)
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// 128 bits as 26 digits of Crockford's base 32, the highest first.
fn crockford(bytes: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(bytes);
    (0..26).rev().map(|place| char::from(CROCKFORD[(bits >> (5 * place)) as usize & 31])).collect()
}

fn fingerprint(name: &str, key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"desist/fingerprint/v1\0").chain_update(name).chain_update(b"\0").chain_update(key).finalize().into()
}

/// What the store keeps of a key of the log, whichever file it is in.
pub(crate) fn log_fingerprint(key: &Key) -> [u8; 32] {
    fingerprint(FILES[2], key)
}

/// Writes a new key of the log beside the present one. It means nothing before the store knows it.
pub(crate) fn make_next(dir: &Path, env: &dyn Env) -> Result<Key, SecretError> {
    let path = dir.join(NEXT);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SecretError::Io { path, error }),
        // One that is there was made for a change that never happened.
        _ => make_key(&path, env),
    }
}

/// The store says which key is the present one: a change that was cut off is finished. Only for who has the store's lock.
pub(crate) fn finish_rotation(dir: &Path, present: &[u8; 32]) -> Result<(), SecretError> {
    let (next, log) = (dir.join(NEXT), dir.join(FILES[2]));
    let fingerprint_of = |path: &Path| read_key(path).ok().map(|key| log_fingerprint(&key));
    if fingerprint_of(&log) == Some(*present) || fingerprint_of(&next) != Some(*present) {
        return Ok(());
    }
    let rename = |from: &Path, to: &Path| {
        std::fs::rename(from, to)
            .and_then(|()| std::fs::File::open(dir)?.sync_all())
            .map_err(|error| SecretError::Io { path: to.to_owned(), error })
    };
    // It is gone if the change was cut off between the two.
    if let Some(former) = fingerprint_of(&log) {
        rename(&log, &former_log_key(dir, &former))?;
    }
    rename(&next, &log)
}

/// Where a former key of the log is kept.
fn former_log_key(dir: &Path, fingerprint: &[u8; 32]) -> PathBuf {
    let id = fingerprint[..4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    dir.join(format!("{FORMER}{id:08x}.key"))
}

/// Every file that may hold a key of the log, the present one first.
fn log_key_files(dir: &Path) -> Vec<PathBuf> {
    let is_former = |name: &str| name.strip_prefix(FORMER).is_some_and(|rest| rest.strip_suffix(".key").is_some());
    let former = std::fs::read_dir(dir).into_iter().flatten().filter_map(|file| file.ok()?.file_name().into_string().ok());
    let former = former.filter(|name| is_former(name)).map(|name| dir.join(name));
    [dir.join(FILES[2]), dir.join(NEXT)].into_iter().chain(former).collect()
}

/// The file that holds this key of the log.
fn place_of_log_key(dir: &Path, expected: &[u8; 32]) -> Option<PathBuf> {
    log_key_files(dir).into_iter().find(|path| read_key(path).is_ok_and(|key| log_fingerprint(&key) == *expected))
}

/// The keys of the log that a store names: the present one, and the one before if it still signs along.
pub(crate) fn log_keys(dir: &Path, expected: &Fingerprints) -> Result<(Key, Option<Key>), SecretError> {
    let read = |expected: &[u8; 32], missing: PathBuf| match place_of_log_key(dir, expected) {
        Some(path) => read_key(&path),
        None => Err(SecretError::Missing(missing)),
    };
    let old = expected.log_old.map(|old| read(&old, former_log_key(dir, &old))).transpose()?;
    Ok((read(&expected.files[2], dir.join(FILES[2]))?, old))
}

/// Every key that the log has or had in this directory.
pub(crate) fn all_log_keys(dir: &Path) -> Vec<Key> {
    log_key_files(dir).iter().filter_map(|path| read_key(path).ok()).collect()
}

fn read_key(path: &Path) -> Result<Key, SecretError> {
    let text = Zeroizing::new(std::fs::read(path).map_err(|error| SecretError::Io { path: path.to_owned(), error })?);
    let malformed = || SecretError::Malformed(path.to_owned());
    let text = std::str::from_utf8(&text).map_err(|_| malformed())?.trim_ascii();
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?);
    Ok(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| malformed())?))
}

fn make_key(path: &Path, env: &dyn Env) -> Result<Key, SecretError> {
    let key = Zeroizing::new(random::<32>(env));
    let text = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(*key)));
    write_secret(path, text.as_bytes()).map_err(|error| SecretError::Io { path: path.to_owned(), error })?;
    Ok(key)
}

/// Makes the name of a new directory durable, before a store relies on the files in it. What is above
/// may not be ours to open; then somebody else made the directory.
fn sync_name(dir: &Path) -> std::io::Result<()> {
    match dir.canonicalize()?.parent().map(std::fs::File::open) {
        Some(Ok(above)) => above.sync_all(),
        _ => Ok(()),
    }
}

/// Writes a new file that only its owner can read, and syncs it with its directory.
pub fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_being_typed_by_a_person() {
        let secrets = Secrets::new(Zeroizing::new([1; 32]), Zeroizing::new([2; 32]), Zeroizing::new([3; 32]));
        let code = secrets.receipt_code(RequestId([3; 16]));
        assert_eq!(canonical_code(&code).as_deref(), Some(code.as_str()));
        let typed = format!("{}-{}", &code[..13].to_lowercase(), &code[13..].replace('1', "l").replace('0', "o"));
        assert_eq!(canonical_code(&typed).as_deref(), Some(code.as_str()));
        assert_eq!(canonical_code(&code[1..]), None);
        assert_eq!(canonical_code(&code.replace(&code[..1], "U")), None);
    }

    #[test]
    fn crockford_has_the_digits_of_the_number() {
        assert_eq!(crockford([0; 16]), "0".repeat(26));
        assert_eq!(crockford([255; 16]), format!("7{}", "Z".repeat(25)));
    }
}
