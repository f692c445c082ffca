//! Secrets over a store in memory and a key in a directory of the test's own.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::domain::credential::CredentialInvalid;
use crate::domain::secret::Secret as Bytes;

const VALUE: &str = r#"sk-canary-0c3f "quoted" \ too"#;

/// A store whose records can be tampered with.
#[derive(Default)]
struct Records {
    kept: Mutex<BTreeMap<CredentialName, SealedCredential>>,
    broken: Mutex<bool>,
}

impl Records {
    fn refuse(&self) -> Result<(), StoreError> {
        let corrupt = StoreError::Corrupt { what: "test", found: String::new() };
        if *self.broken.lock().unwrap() { Err(corrupt) } else { Ok(()) }
    }
}

#[async_trait]
impl SealedCredentials for Records {
    async fn sealed_credentials(&self) -> Result<Vec<SealedCredential>, StoreError> {
        Ok(self.kept.lock().unwrap().values().cloned().collect())
    }

    async fn keep_credential(&self, sealed: &SealedCredential) -> Result<(), StoreError> {
        self.refuse()?;
        self.kept.lock().unwrap().insert(sealed.facts.name.clone(), sealed.clone());
        Ok(())
    }

    async fn forget_credential(&self, name: &CredentialName) -> Result<bool, StoreError> {
        self.refuse()?;
        Ok(self.kept.lock().unwrap().remove(name).is_some())
    }
}

fn credential(name: &str, value: &str) -> Credential {
    made(name, &["a.example", "*.b.example:8443"], value).unwrap()
}

fn made(name: &str, hosts: &[&str], value: &str) -> Result<Credential, CredentialInvalid> {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    Credential::new(name, &hosts, Bytes::from(value.to_owned()))
}

fn sources(dir: &Path) -> KeySources {
    KeySources { file: None, credentials: None, own: dir.join("secrets.key") }
}

async fn open(records: &Arc<Records>, sources: &KeySources) -> HostCredentials {
    let log = Logger::root(slog::Discard, slog::o!());
    HostCredentials::open(records.clone(), sources, &log).await.unwrap()
}

#[tokio::test]
async fn what_is_put_is_opened_again_after_a_restart_and_is_in_clear_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    let first = open(&records, &sources(dir.path())).await;
    let facts = first.put(credential("KEY", VALUE), WallTime(1)).await.unwrap();
    assert_eq!((facts.created_at, facts.updated_at), (WallTime(1), WallTime(1)));
    let key = std::fs::metadata(dir.path().join("secrets.key")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);
    let second = open(&records, &sources(dir.path())).await;
    assert_eq!(second.open(&facts.name), Some(credential("KEY", VALUE)));
    assert_eq!((second.trouble(), second.list()), (None, vec![facts.clone()]));
    let changed = second.put(credential("KEY", "other"), WallTime(2)).await.unwrap();
    assert_eq!((changed.created_at, changed.updated_at), (WallTime(1), WallTime(2)));
    assert_eq!(second.open(&facts.name).unwrap().value.text(), Some("other"));
    let sealed = first.put(credential("KEY", VALUE), WallTime(3)).await.map(|_| records.kept.lock().unwrap().clone());
    let told = format!("{:?} {:?}", sealed.unwrap(), credential("KEY", VALUE));
    assert!(!told.contains(VALUE), "{told}");
    let bytes = records.kept.lock().unwrap()[&facts.name].sealed.clone();
    assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
    assert!(second.remove(&facts.name).await.unwrap() && !second.remove(&facts.name).await.unwrap());
    assert_eq!((second.open(&facts.name), second.hosts(&facts.name)), (None, None));
}

#[tokio::test]
async fn a_record_that_was_changed_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    let safe = open(&records, &sources(dir.path())).await;
    let name = safe.put(credential("KEY", VALUE), WallTime(1)).await.unwrap().name;
    let other = safe.put(credential("OTHER", VALUE), WallTime(1)).await.unwrap().name;
    let tampering: [&dyn Fn(&mut SealedCredential); 5] = [
        &|sealed| sealed.facts.hosts.push("evil.example".parse().unwrap()),
        &|sealed| *sealed.sealed.last_mut().unwrap() ^= 1,
        &|sealed| sealed.sealed[0] = 2,
        &|sealed| sealed.sealed.truncate(30),
        &|sealed| sealed.facts.name = "THIRD".parse().unwrap(),
    ];
    let whole = records.kept.lock().unwrap().clone();
    for tamper in tampering {
        let mut changed = whole.clone();
        tamper(changed.get_mut(&name).unwrap());
        *records.kept.lock().unwrap() = changed;
        let safe = open(&records, &sources(dir.path())).await;
        let opened = [&name, &"THIRD".parse().unwrap()].map(|name| safe.open(name));
        assert_eq!(opened, [None, None]);
        assert!(safe.open(&other).is_some() && safe.trouble().unwrap().starts_with("1 secrets cannot be opened"));
    }
}

#[tokio::test]
async fn a_lost_or_public_key_is_told_and_no_other_is_made_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    let place = sources(dir.path());
    let name = open(&records, &place).await.put(credential("KEY", VALUE), WallTime(1)).await.unwrap().name;
    std::fs::set_permissions(&place.own, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open(&records, &place).await.trouble().unwrap().contains("chmod o="));
    std::fs::write(&place.own, "short").unwrap();
    std::fs::set_permissions(&place.own, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&records, &place).await.trouble().unwrap().contains("holds no key"));
    std::fs::remove_file(&place.own).unwrap();
    let safe = open(&records, &place).await;
    assert!(safe.trouble().unwrap().contains("is gone") && !place.own.exists());
    assert_eq!((safe.open(&name), safe.list().len()), (None, 1));
    let refused = safe.put(credential("NEW", VALUE), WallTime(2)).await;
    assert!(matches!(refused, Err(CredentialsError::NoKey(_))), "{refused:?}");
    assert!(safe.remove(&name).await.unwrap());
    assert_eq!(open(&records, &place).await.trouble(), None, "with nothing kept, a new key is made");
}

#[tokio::test]
async fn a_given_key_comes_first_and_what_the_store_does_not_take_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = crate::domain::base64::encode(&[7; 32]);
    std::fs::write(dir.path().join("secrets-key"), text).unwrap();
    let given = KeySources { credentials: Some(dir.path().to_owned()), ..sources(dir.path()) };
    let records = Arc::new(Records::default());
    let safe = open(&records, &given).await;
    assert!(safe.trouble().is_none() && !given.own.exists());
    let name = safe.put(credential("KEY", VALUE), WallTime(1)).await.unwrap().name;
    *records.broken.lock().unwrap() = true;
    assert!(safe.put(credential("KEY", "other"), WallTime(2)).await.is_err());
    assert!(safe.remove(&name).await.is_err());
    assert_eq!(safe.open(&name).unwrap().value.text(), Some(VALUE));
    let absent = KeySources { file: Some(dir.path().join("nowhere")), ..given };
    assert!(open(&Arc::default(), &absent).await.trouble().unwrap().contains("is gone"), "a named file is never made");
}

#[tokio::test]
async fn there_is_an_end_to_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let safe = open(&Arc::default(), &sources(dir.path())).await;
    for n in 0..MOST {
        safe.put(credential(&format!("K{n}"), "v"), WallTime(1)).await.unwrap();
    }
    assert!(matches!(safe.put(credential("MORE", "v"), WallTime(1)).await, Err(CredentialsError::Full(_))));
    assert!(safe.put(credential("K0", "w"), WallTime(1)).await.is_ok(), "a change needs no room");
}
