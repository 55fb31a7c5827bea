//! What `token` and `key` do on a data directory that no server has open.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use protocol::ids::{DeviceFlag, Uid};

use crate::config::Config;
use crate::credentials::{Credentials, RootKeySource, find_root_key, mint_api_key, mint_secret};
use crate::http::admin::{KEYS_MAX, KeyBody, KeyMade, check_new_key, listed};
use crate::store::{ApiKey, Commit, ROOT_KEY_ID, Record, Store};

/// An opened data directory.
pub(super) struct Directory {
    store: Arc<dyn Store>,
    credentials: Credentials,
    data_dir: PathBuf,
    /// Whether the configuration gives the root key, so that it cannot be rotated here.
    root_is_given: bool,
}

impl Directory {
    /// Opens what the configuration names; another server on it is a clear error.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let dir = config.data_dir.display();
        if !config.data_dir.is_dir() {
            bail!("no server answers at {} and there is no directory {dir}: start the server once", config.listen.http);
        }
        let source = find_root_key(&config.auth, &config.data_dir)?.map(|(_, source)| source);
        let store = crate::app::open_store(config).with_context(|| match &source {
            Some(_) => format!("no server answers at {}", config.listen.http),
            None => format!("no root key in {dir} to ask a server with (CHINWAG_AUTH_ROOT_KEY gives one)"),
        })?;
        let credentials = Credentials::open(&config.data_dir)?;
        let root_is_given = source.is_some_and(|source: RootKeySource| !source.is_ours());
        Ok(Self { store: Arc::new(store), credentials, data_dir: config.data_dir.clone(), root_is_given })
    }

    fn commit(&self, record: Record) -> anyhow::Result<()> {
        self.store.commit(&[Commit::from(record)], &mut |_| {}).context("cannot write to the log")?;
        self.store.checkpoint().context("cannot take a checkpoint")
    }

    pub(super) fn set_token(&self, uid: &str, device_flag: u8, device_level: u8, token: &str) -> anyhow::Result<()> {
        let uid = Uid::new(uid).map_err(|e| anyhow::anyhow!("uid {e}"))?;
        let token = Some(self.credentials.hash(token));
        self.commit(Record::UserToken { uid, device_flag: DeviceFlag(device_flag), device_level, token })
    }

    pub(super) fn keys(&self) -> Vec<KeyBody> {
        let mut keys: Vec<KeyBody> = self.store.api_keys().iter().map(listed).collect();
        keys.sort_by(|a, b| (a.key_id != ROOT_KEY_ID, &a.key_id).cmp(&(b.key_id != ROOT_KEY_ID, &b.key_id)));
        keys
    }

    pub(super) fn create_key(&self, name: &str, scopes: &[String], namespace: Option<&str>) -> anyhow::Result<KeyMade> {
        let scopes = check_new_key(name, scopes, namespace)?;
        if self.store.api_keys().len() >= KEYS_MAX {
            bail!("there are {KEYS_MAX} keys already");
        }
        let minted = mint_api_key()?;
        let key = ApiKey {
            secret: self.credentials.hash(&minted.text),
            key_id: minted.key_id,
            name: name.to_owned(),
            scopes,
            namespace: namespace.map(str::to_owned),
            revoked: false,
        };
        let made = KeyMade { status: 200, listed: listed(&key), key: minted.text };
        self.commit(Record::ApiKey(key))?;
        Ok(made)
    }

    fn existing(&self, id: &str) -> anyhow::Result<ApiKey> {
        self.store.api_keys().into_iter().find(|key| key.key_id == id).with_context(|| format!("no such key: {id}"))
    }

    pub(super) fn rotate_key(&self, id: &str) -> anyhow::Result<KeyMade> {
        let mut key = self.existing(id)?;
        if key.revoked {
            bail!("key {id} is revoked: make a new one");
        }
        let text = if id == ROOT_KEY_ID {
            if self.root_is_given {
                bail!("the configuration gives the root key: change it there");
            }
            crate::credentials::replace_root_key_file(&self.data_dir)?
        } else {
            mint_secret(id)?
        };
        key.secret = self.credentials.hash(&text);
        let made = KeyMade { status: 200, listed: listed(&key), key: text };
        self.commit(Record::ApiKey(key))?;
        Ok(made)
    }

    pub(super) fn revoke_key(&self, id: &str) -> anyhow::Result<()> {
        if id == ROOT_KEY_ID {
            bail!("the root key can only be rotated");
        }
        let key = ApiKey { revoked: true, ..self.existing(id)? };
        self.commit(Record::ApiKey(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn keys_and_tokens_are_made_without_a_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = Directory {
            store: Arc::new(MemoryStore::new()),
            credentials: Credentials::with_pepper([3; 32]),
            data_dir: dir.path().to_owned(),
            root_is_given: false,
        };
        directory.set_token("alice", 1, 0, "secret").expect("set");
        let owners = directory.store.token_owners(&directory.credentials.hash("secret")).expect("read");
        assert_eq!(owners, [(Uid::from_stored("alice"), DeviceFlag(1), 0)]);

        let made = directory.create_key("shop", &["send".into(), "read".into()], None).expect("made");
        assert!(made.key.starts_with(&format!("cw_{}_", made.listed.key_id)));
        let rotated = directory.rotate_key(&made.listed.key_id).expect("rotated");
        assert_ne!(rotated.key, made.key);
        let stored = directory.existing(&made.listed.key_id).expect("there");
        assert_eq!(stored.secret, directory.credentials.hash(&rotated.key));
        directory.revoke_key(&made.listed.key_id).expect("revoked");
        assert!(directory.rotate_key(&made.listed.key_id).is_err());
        assert!(directory.keys()[0].revoked);

        assert!(directory.create_key("shop", &["all".into()], None).is_err());
        assert!(directory.create_key("", &["send".into()], None).is_err());
        assert!(directory.revoke_key(ROOT_KEY_ID).is_err());
        assert!(directory.rotate_key("nosuch").is_err());
        assert!(directory.set_token("a@b", 0, 0, "x").is_err());
    }
}
