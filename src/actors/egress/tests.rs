//! The actor over a proxy that is told what to do.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::actors::doubles::credentials::CredentialsDouble;
use crate::actors::doubles::parent::{Parent, Told, seat};
use crate::adapters::clock::PausedClock;
use crate::domain::credential::Credential;
use crate::domain::egress::EgressPicture;
use crate::domain::restart::Exit;

/// Serves until it is told to end; tells how often it was begun and how often it was cut off.
#[derive(Default)]
struct ProxyDouble {
    begun: Mutex<u64>,
    cut: Arc<Mutex<u64>>,
    end: Notify,
}

struct Cut(Arc<Mutex<u64>>);

impl Drop for Cut {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[async_trait]
impl EgressProxy for ProxyDouble {
    async fn serve(&self) {
        *self.begun.lock().unwrap() += 1;
        let _cut = Cut(Arc::clone(&self.cut));
        self.end.notified().await;
    }

    fn picture(&self) -> EgressPicture {
        EgressPicture { allowed: *self.begun.lock().unwrap(), ..EgressPicture::default() }
    }
}

fn start(proxy: &Arc<ProxyDouble>, parent: &Addr<Parent>) -> Addr<Egress> {
    Egress::new(deps(proxy, Arc::default()), seat(parent, "egress")).start()
}

fn deps(proxy: &Arc<ProxyDouble>, credentials: Arc<CredentialsDouble>) -> Deps {
    let log = Logger::root(slog::Discard, slog::o!());
    Deps { proxy: Arc::clone(proxy) as _, credentials, clock: Arc::new(PausedClock::start()), log }
}

#[actix::test]
async fn it_serves_beats_and_cuts_everything_when_it_is_drained() {
    tokio::time::pause();
    let (proxy, parent) = (Arc::new(ProxyDouble::default()), Parent::default().start());
    let egress = start(&proxy, &parent);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(egress.send(GetEgress).await.unwrap().allowed, 1);
    let told = parent.send(Told).await.unwrap();
    assert_eq!((told.beats, told.exits), (4, vec![]));
    egress.send(Drain { hurry: false }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(parent.send(Told).await.unwrap().exits, [Exit::Requested]);
    assert_eq!(*proxy.cut.lock().unwrap(), 1);
}

#[actix::test]
async fn a_proxy_that_ends_takes_its_owner_along_and_a_second_life_serves_again() {
    tokio::time::pause();
    let (proxy, parent) = (Arc::new(ProxyDouble::default()), Parent::default().start());
    let first = start(&proxy, &parent);
    tokio::time::sleep(Duration::from_millis(10)).await;
    proxy.end.notify_one();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!first.connected());
    assert_eq!(parent.send(Told).await.unwrap().exits, [Exit::Crashed]);
    let second = start(&proxy, &parent);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(second.send(GetEgress).await.unwrap().allowed, 2);
}

#[actix::test]
async fn secrets_are_kept_listed_and_forgotten_and_what_is_wrong_with_them_is_told() {
    tokio::time::pause();
    let (proxy, parent) = (Arc::new(ProxyDouble::default()), Parent::default().start());
    let credentials = Arc::new(CredentialsDouble::default());
    let egress = Egress::new(deps(&proxy, Arc::clone(&credentials)), seat(&parent, "egress")).start();
    let credential = Credential::new("KEY", &["a.example".to_owned()], "value".to_owned().into()).unwrap();
    let put = PutCredential { credential: credential.clone() };
    assert_eq!(egress.send(put).await.unwrap().unwrap().name, credential.name);
    assert_eq!(egress.send(GetCredentials).await.unwrap().len(), 1);
    let remove = || RemoveCredential { name: credential.name.clone() };
    assert_eq!(egress.send(remove()).await.unwrap(), Ok(()));
    assert_eq!(egress.send(remove()).await.unwrap(), Err(CredentialRefused::Absent(credential.name.clone())));
    *credentials.trouble.lock().unwrap() = Some("the key is gone".to_owned());
    let refused = egress.send(PutCredential { credential }).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "keeping the secret failed: the key is gone");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(parent.send(Told).await.unwrap().complaints, ["the key is gone"]);
}
