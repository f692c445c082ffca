//! Secrets in memory, in clear.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::domain::credential::{Credential, CredentialFacts, CredentialName};
use crate::domain::egress::Rule;
use crate::domain::secret::Secret;
use crate::domain::time::WallTime;
use crate::ports::credentials::{Credentials, CredentialsError};

#[derive(Default)]
pub struct CredentialsDouble {
    kept: Mutex<BTreeMap<CredentialName, Credential>>,
    /// What is told as trouble; then nothing is put.
    pub trouble: Mutex<Option<String>>,
}

impl CredentialsDouble {
    /// Keeps a secret.
    pub fn keep(&self, name: &str, hosts: &[&str], value: &str) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let credential = Credential::new(name, &hosts, Secret::from(value.to_owned())).unwrap();
        self.kept.lock().unwrap().insert(credential.name.clone(), credential);
    }

    /// Forgets one.
    pub fn forget(&self, name: &str) {
        self.kept.lock().unwrap().remove(&name.parse().unwrap());
    }
}

fn facts(credential: &Credential) -> CredentialFacts {
    let Credential { name, hosts, .. } = credential.clone();
    CredentialFacts { name, hosts, created_at: WallTime(0), updated_at: WallTime(0) }
}

#[async_trait]
impl Credentials for CredentialsDouble {
    fn hosts(&self, name: &CredentialName) -> Option<Vec<Rule>> {
        self.open(name).map(|credential| credential.hosts)
    }

    fn open(&self, name: &CredentialName) -> Option<Credential> {
        self.kept.lock().unwrap().get(name).cloned()
    }

    fn list(&self) -> Vec<CredentialFacts> {
        self.kept.lock().unwrap().values().map(facts).collect()
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap().clone()
    }

    async fn put(&self, credential: Credential, _: WallTime) -> Result<CredentialFacts, CredentialsError> {
        match self.trouble() {
            Some(trouble) => Err(CredentialsError::NoKey(trouble)),
            None => {
                self.kept.lock().unwrap().insert(credential.name.clone(), credential.clone());
                Ok(facts(&credential))
            }
        }
    }

    async fn remove(&self, name: &CredentialName) -> Result<bool, CredentialsError> {
        Ok(self.kept.lock().unwrap().remove(name).is_some())
    }
}
