//! What proves who asks: minting, hashing and recognising credentials, and the two secret files of the data directory.
//!
//! Owns the pepper, the root key's file and the shapes of credentials. Refuses to know where a credential was found
//! (a header, a connect frame). Invariants: a credential itself is never stored, logged or shown again after it was made;
//! files with secrets are readable by their owner only.
//!
//! Credentials are stored as deterministic hashes keyed with the pepper, so that they can be looked up by hash. Who reads
//! the log or the view without the pepper can neither use nor test them; all minted ones carry 192 random bits, so the
//! hash needs no deliberate slowness. Comparing need not take constant time either: what is compared is the keyed hash,
//! and how much of it agrees says nothing about how to come closer.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::ids::Uid;

use crate::config::Auth;
use crate::domain::identity::{Identity, Scopes};
use crate::domain::refusal::Refusal;
use crate::hub::{ApiKey, CredentialHash, Hub, ROOT_KEY_ID};

/// Name of the root key's file in the data directory.
pub const ROOT_KEY_FILE: &str = "root.key";
/// Name of the pepper's file in the data directory.
pub const PEPPER_FILE: &str = "credentials.pepper";
/// Longest credential taken, in bytes. A JWT of some claims has about 1 KiB.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Reading, writing or randomness failed.
    #[error("{action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} does not hold {what}: restore it from a backup")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The pepper is gone while credentials made with it are stored.
    #[error("{path} is missing, and without it no stored credential can be recognised: restore it from a backup")]
    PepperLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The hub refused to store the root key.
    #[error("the root key cannot be stored: {0}")]
    Refused(Refusal),
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CredentialError + use<'a> {
    move |source| CredentialError::Io { action, path: path.to_owned(), source }
}

/// Where the root key in force came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKeySource {
    /// Made at this start and written to the file named.
    Made(PathBuf),
    /// Read from the file of the data directory.
    DataDir(PathBuf),
    /// Given by a file that the configuration names.
    ConfiguredFile(PathBuf),
    /// Given by the environment.
    Environment,
    /// Known by its stored hash only: the file was moved away, as careful operators do.
    StoredHashOnly,
}

impl RootKeySource {
    /// Whether this server may make a new root key: not when the configuration gives it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::ConfiguredFile(_) | Self::Environment)
    }
}

/// A new API key. The secret text is shown to its maker once.
#[derive(Debug, Clone)]
pub struct MintedKey {
    /// Public id.
    pub key_id: String,
    /// The credential.
    pub text: String,
}

/// Hashes credentials with this data directory's pepper.
#[derive(Clone)]
pub struct Credentials {
    pepper: [u8; 32],
    /// Whether the pepper was made just now.
    fresh: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads the pepper, or makes it at the first start. `data_dir` must exist.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not hold a pepper.
    pub fn open(data_dir: &Path) -> Result<Self, CredentialError> {
        let path = data_dir.join(PEPPER_FILE);
        if let Some(text) = read_secret(&path)? {
            let pepper = from_hex(&text).ok_or(CredentialError::Malformed { path, what: "64 hexadecimal digits" })?;
            return Ok(Self { pepper, fresh: false });
        }
        let pepper: [u8; 32] = random()?;
        write_secret(&path, &to_hex(&pepper))?;
        Ok(Self { pepper, fresh: true })
    }

    /// Uses a pepper of the caller: for tests and for stores that live in memory only.
    #[must_use]
    pub fn with_pepper(pepper: [u8; 32]) -> Self {
        Self { pepper, fresh: false }
    }

    /// The stored form of a credential.
    #[must_use]
    pub fn hash(&self, credential: &str) -> CredentialHash {
        *blake3::keyed_hash(&self.pepper, credential.as_bytes()).as_bytes()
    }

    /// Who holds this credential. `named_uid` is the user the request names, which tells apart the owners of a token that
    /// more than one user holds; that a user may only act as oneself is for the caller to check.
    ///
    /// # Errors
    /// `CredentialUnknown`; `Invalid` uid when a shared token needs one; `Forbidden` when the uid named is none of its
    /// owners; what the store refuses.
    pub fn identify(&self, hub: &Hub, credential: &str, named_uid: Option<&Uid>) -> Result<Identity, Refusal> {
        if credential.is_empty() || credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(Refusal::CredentialUnknown);
        }
        let hash = self.hash(credential);
        if let Some(key) = hub.api_key(&hash) {
            if key.revoked {
                return Err(Refusal::CredentialUnknown);
            }
            return Ok(Identity::Key { key_id: key.key_id, scopes: key.scopes, namespace: key.namespace });
        }
        let owners = hub.token_owners(&hash)?;
        let Some((first_uid, first_flag, first_level)) = owners.first() else {
            return Err(Refusal::CredentialUnknown);
        };
        if owners.iter().all(|(uid, ..)| uid == first_uid) {
            return Ok(Identity::User { uid: first_uid.clone(), device_flag: *first_flag, device_level: *first_level });
        }
        let Some(named) = named_uid else {
            return Err(Refusal::invalid("uid", "is needed: more than one user holds this token"));
        };
        match owners.iter().find(|(uid, ..)| uid == named) {
            Some((uid, device_flag, device_level)) => {
                Ok(Identity::User { uid: uid.clone(), device_flag: *device_flag, device_level: *device_level })
            }
            None => Err(Refusal::Forbidden { action: "act for this user" }),
        }
    }

    /// Makes sure that a root key opens this server: the one the configuration gives, else the data directory's, else the
    /// stored one, else a new one. Call it before anything listens.
    ///
    /// # Errors
    /// A secret file cannot be used, the pepper was lost, or the hub refuses to store the key.
    pub async fn ensure_root(&self, auth: &Auth, data_dir: &Path, hub: &Hub) -> Result<RootKeySource, CredentialError> {
        let stored = hub.api_keys();
        if self.fresh && !stored.is_empty() {
            // The fresh pepper is taken away again, or the next start would not notice the loss.
            let path = data_dir.join(PEPPER_FILE);
            std::fs::remove_file(&path).map_err(io_error("cannot remove", &path))?;
            return Err(CredentialError::PepperLost { path });
        }
        let (text, source) = match find_root_key(auth, data_dir)? {
            Some(found) => found,
            None if stored.iter().any(|key| key.key_id == ROOT_KEY_ID && !key.revoked) => {
                return Ok(RootKeySource::StoredHashOnly);
            }
            None => {
                let path = data_dir.join(ROOT_KEY_FILE);
                let text = mint_root_key()?;
                write_secret(&path, &text)?;
                (text, RootKeySource::Made(path))
            }
        };
        let root = self.root_key(&text);
        if !stored.contains(&root) {
            hub.put_key(root).await.map_err(CredentialError::Refused)?;
        }
        Ok(source)
    }

    /// The root key's record for this credential.
    #[must_use]
    pub fn root_key(&self, text: &str) -> ApiKey {
        ApiKey {
            key_id: ROOT_KEY_ID.to_owned(),
            name: "root".to_owned(),
            secret: self.hash(text),
            scopes: Scopes { admin: true, send: true, read: true },
            namespace: None,
            revoked: false,
        }
    }

    /// Makes a new root key, stores its hash and replaces the file of the data directory. Returns the new key.
    ///
    /// The file is replaced first: a crash in between is mended by the next start, which stores the file's hash.
    ///
    /// # Errors
    /// As [`Credentials::ensure_root`].
    pub async fn rotate_root(&self, data_dir: &Path, hub: &Hub) -> Result<String, CredentialError> {
        let text = replace_root_key_file(data_dir)?;
        hub.put_key(self.root_key(&text)).await.map_err(CredentialError::Refused)?;
        Ok(text)
    }
}

/// The root key as text, from where this configuration keeps it: environment, configured file, data directory.
///
/// # Errors
/// A file that is named or there cannot be read, or holds no key.
pub fn find_root_key(auth: &Auth, data_dir: &Path) -> Result<Option<(String, RootKeySource)>, CredentialError> {
    let checked = |text: String, path: &Path| {
        if text.len() < 24 {
            return Err(CredentialError::Malformed {
                path: path.to_owned(),
                what: "a root key of at least 24 characters",
            });
        }
        Ok(text)
    };
    if !auth.root_key.is_empty() {
        return Ok(Some((auth.root_key.clone(), RootKeySource::Environment)));
    }
    if let Some(path) = auth.root_key_file() {
        // Mode and owner are left alone: secret mounts of containers are often wider and read-only.
        let text = std::fs::read_to_string(path).map_err(io_error("cannot read", path))?;
        let text = checked(text.trim().to_owned(), path)?;
        return Ok(Some((text, RootKeySource::ConfiguredFile(path.to_owned()))));
    }
    let path = data_dir.join(ROOT_KEY_FILE);
    match read_secret(&path)? {
        Some(text) => Ok(Some((checked(text, &path)?, RootKeySource::DataDir(path)))),
        None => Ok(None),
    }
}

/// Makes a new root key and puts it into the data directory's file. The caller stores its hash.
///
/// # Errors
/// No randomness, or the file cannot be written.
pub fn replace_root_key_file(data_dir: &Path) -> Result<String, CredentialError> {
    let text = mint_root_key()?;
    write_secret(&data_dir.join(ROOT_KEY_FILE), &text)?;
    Ok(text)
}

/// A new root key: `cw_root_<random>`.
///
/// # Errors
/// No randomness.
pub fn mint_root_key() -> Result<String, CredentialError> {
    Ok(format!("cw_root_{}", to_hex(&random::<24>()?)))
}

/// A new API key: `cw_<id>_<random>`.
///
/// # Errors
/// No randomness.
pub fn mint_api_key() -> Result<MintedKey, CredentialError> {
    let key_id = to_hex(&random::<6>()?);
    Ok(MintedKey { text: mint_secret(&key_id)?, key_id })
}

/// A new secret for an API key that exists.
///
/// # Errors
/// No randomness.
pub fn mint_secret(key_id: &str) -> Result<String, CredentialError> {
    Ok(format!("cw_{key_id}_{}", to_hex(&random::<24>()?)))
}

/// A new user token: `cwu_<random>`.
///
/// # Errors
/// No randomness.
pub fn mint_user_token() -> Result<String, CredentialError> {
    Ok(format!("cwu_{}", to_hex(&random::<24>()?)))
}

fn random<const N: usize>() -> Result<[u8; N], CredentialError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(CredentialError::Randomness)?;
    Ok(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Reads a secret of the data directory; `None` when there is no such file. A mode that lets others read, as a careless
/// restore leaves it, is taken back.
fn read_secret(path: &Path) -> Result<Option<String>, CredentialError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("cannot read", path)(e)),
    };
    let mode = std::fs::metadata(path).map_err(io_error("cannot read the mode of", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others could read a secret file");
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(io_error("cannot set mode 0600 of", path))?;
    }
    Ok(Some(text.trim().to_owned()))
}

/// Puts a secret in place, whole or not at all, on disk when this returns, readable by its owner only from the beginning.
fn write_secret(path: &Path, text: &str) -> Result<(), CredentialError> {
    let next = path.with_extension("new");
    match std::fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("cannot remove", &next)(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)
        .map_err(io_error("cannot make", &next))?;
    file.write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io_error("cannot write", &next))?;
    std::fs::rename(&next, path).map_err(io_error("cannot put in place", path))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|d| d.sync_all()).map_err(io_error("cannot sync", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::testing::hub_over_memory;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn hex_goes_both_ways() {
        let bytes: [u8; 4] = [0, 1, 0xab, 0xff];
        assert_eq!(to_hex(&bytes), "0001abff");
        assert_eq!(from_hex("0001abff"), Some(bytes));
        for bad in ["0001abf", "0001abfg", "", "0001abff00", "+001abff"] {
            assert_eq!(from_hex::<4>(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_pepper_stays_and_is_the_owners() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Credentials::open(dir.path()).expect("made");
        let second = Credentials::open(dir.path()).expect("read");
        assert_eq!(first.hash("x"), second.hash("x"));
        assert_ne!(first.hash("x"), first.hash("y"));
        assert_ne!(first.hash("x"), Credentials::with_pepper([0; 32]).hash("x"));
        let path = dir.path().join(PEPPER_FILE);
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        Credentials::open(dir.path()).expect("read");
        assert_eq!(mode(&path), 0o600);
        std::fs::write(&path, "not hex").expect("written");
        assert!(matches!(Credentials::open(dir.path()), Err(CredentialError::Malformed { .. })));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_root_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (hub, auth) = (hub_over_memory(), Config::default().auth);
        let credentials = Credentials::open(dir.path()).expect("made");
        let path = dir.path().join(ROOT_KEY_FILE);
        let source = credentials.ensure_root(&auth, dir.path(), &hub).await.expect("made");
        assert_eq!(source, RootKeySource::Made(path.clone()));
        assert_eq!(mode(&path), 0o600);
        let text = std::fs::read_to_string(&path).expect("there").trim().to_owned();
        assert!(text.starts_with("cw_root_") && text.len() == 8 + 48, "{text}");
        let identity = credentials.identify(&hub, &text, None).expect("known");
        assert!(matches!(identity, Identity::Key { scopes: Scopes { admin: true, .. }, .. }));

        // As after a restart: only then is a pepper that is there no fresh one.
        let credentials = Credentials::open(dir.path()).expect("read");
        let again = credentials.ensure_root(&auth, dir.path(), &hub).await.expect("found");
        assert_eq!(again, RootKeySource::DataDir(path.clone()));
        assert_eq!(hub.api_keys().len(), 1);

        std::fs::remove_file(&path).expect("moved away");
        let again = credentials.ensure_root(&auth, dir.path(), &hub).await.expect("known by hash");
        assert_eq!(again, RootKeySource::StoredHashOnly);
        assert!(credentials.identify(&hub, &text, None).is_ok());
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_root_key_given_from_outside_replaces_the_stored_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = hub_over_memory();
        let mut auth = Config::default().auth;
        let credentials = Credentials::open(dir.path()).expect("made");
        credentials.ensure_root(&auth, dir.path(), &hub).await.expect("made");
        let (old, _) = find_root_key(&auth, dir.path()).expect("read").expect("there");
        let credentials = Credentials::open(dir.path()).expect("read");

        auth.root_key = "given-by-the-environment-0123".into();
        assert_eq!(credentials.ensure_root(&auth, dir.path(), &hub).await.expect("set"), RootKeySource::Environment);
        assert!(credentials.identify(&hub, &auth.root_key, None).is_ok());
        assert_eq!(credentials.identify(&hub, &old, None), Err(Refusal::CredentialUnknown));

        let file = dir.path().join("given");
        std::fs::write(&file, "given-by-a-file-0123456789\n").expect("written");
        auth = Auth { root_key: String::new(), root_key_file: file.clone() };
        let source = credentials.ensure_root(&auth, dir.path(), &hub).await.expect("set");
        assert_eq!(source, RootKeySource::ConfiguredFile(file));
        assert!(credentials.identify(&hub, "given-by-a-file-0123456789", None).is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_lost_pepper_is_named_and_not_papered_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let (hub, auth) = (hub_over_memory(), Config::default().auth);
        let credentials = Credentials::open(dir.path()).expect("made");
        credentials.ensure_root(&auth, dir.path(), &hub).await.expect("made");
        std::fs::remove_file(dir.path().join(PEPPER_FILE)).expect("lost");
        for _ in 0..2 {
            let credentials = Credentials::open(dir.path()).expect("made anew");
            let error = credentials.ensure_root(&auth, dir.path(), &hub).await.expect_err("must be refused");
            assert!(matches!(error, CredentialError::PepperLost { .. }), "{error}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn revoked_empty_and_endless_credentials_open_nothing() {
        let hub = hub_over_memory();
        let credentials = Credentials::with_pepper([7; 32]);
        let minted = mint_api_key().expect("random");
        let mut key = credentials.root_key(&minted.text);
        key.key_id.clone_from(&minted.key_id);
        hub.put_key(key.clone()).await.expect("stored");
        assert!(credentials.identify(&hub, &minted.text, None).is_ok());
        key.revoked = true;
        hub.put_key(key).await.expect("stored");
        let endless = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
        for text in [minted.text.as_str(), "", "cw_", endless.as_str()] {
            assert_eq!(credentials.identify(&hub, text, None), Err(Refusal::CredentialUnknown));
        }
    }
}
