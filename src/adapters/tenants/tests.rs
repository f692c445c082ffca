//! Tokens and changes over a store in memory: what holds at once, what survives, and what a failing store leaves.

use futures_util::FutureExt as _;

use super::*;
use crate::domain::quota::{Charge, Quota};
use crate::domain::tenant::{Scope, TokenOrder};
use crate::domain::time::WallTime;
use crate::ports::tenant_store::Holding;
use crate::ports::tenants::{TenantDesk, TenantsError};

/// A store in memory that can be down. Its futures are ready at once.
#[derive(Default)]
pub struct TenantStoreDouble {
    tenants: Mutex<BTreeMap<TenantName, Tenant>>,
    tokens: Mutex<BTreeMap<TokenId, (Token, TokenDigest)>>,
    cpu: Mutex<Vec<Charge>>,
    down: Mutex<bool>,
}

impl TenantStoreDouble {
    fn answer(&self) -> Result<(), StoreError> {
        if *self.down.lock().unwrap() {
            return Err(StoreError::Query { action: "answer", source: "it is down".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl TenantStore for TenantStoreDouble {
    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.answer()?;
        Ok(self.tenants.lock().unwrap().values().cloned().collect())
    }
    async fn write_tenant(&self, tenant: &Tenant) -> Result<(), StoreError> {
        self.answer()?;
        self.tenants.lock().unwrap().insert(tenant.name.clone(), tenant.clone());
        Ok(())
    }
    async fn tokens(&self) -> Result<Vec<(Token, TokenDigest)>, StoreError> {
        self.answer()?;
        Ok(self.tokens.lock().unwrap().values().cloned().collect())
    }
    async fn insert_token(&self, token: &Token, digest: &TokenDigest) -> Result<(), StoreError> {
        self.answer()?;
        self.tokens.lock().unwrap().insert(token.id.clone(), (token.clone(), *digest));
        Ok(())
    }
    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        self.answer()?;
        Ok(self.tokens.lock().unwrap().remove(id).is_some())
    }
    async fn cpu_of(&self, day: i64) -> Result<Vec<Charge>, StoreError> {
        Ok(self.cpu.lock().unwrap().iter().filter(|charge| charge.day == day).cloned().collect())
    }
    async fn add_cpu(&self, charges: &[Charge]) -> Result<(), StoreError> {
        self.answer()?;
        self.cpu.lock().unwrap().extend_from_slice(charges);
        Ok(())
    }
    async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        self.answer()?;
        Ok(vec![Holding { tenant: TenantName::operator(), environments: 2, bytes: 8192 }])
    }
}

/// A clock that goes when it is told to.
#[derive(Default)]
pub struct HandClock(Mutex<u64>);

impl Clock for HandClock {
    fn uptime(&self) -> Duration {
        Duration::from_millis(*self.0.lock().unwrap())
    }
    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + i64::try_from(*self.0.lock().unwrap()).unwrap())
    }
}

/// A registry over a store in memory, for the doors' tests.
pub fn registry(store: Arc<TenantStoreDouble>, clock: Arc<HandClock>) -> TenantRegistry {
    let log = Logger::root(slog::Discard, slog::o!());
    let opening = TenantRegistry::open(store, clock, Allowance::default(), log);
    opening.now_or_never().expect("ready at once").unwrap()
}

struct Desk {
    store: Arc<TenantStoreDouble>,
    clock: Arc<HandClock>,
    registry: TenantRegistry,
}

fn desk() -> Desk {
    let (store, clock) = (Arc::<TenantStoreDouble>::default(), Arc::<HandClock>::default());
    let registry = registry(store.clone(), clock.clone());
    Desk { store, clock, registry }
}

impl Desk {
    /// The same store under a new life of the daemon.
    fn restarted(&self) -> TenantRegistry {
        registry(self.store.clone(), self.clock.clone())
    }
}

fn acme() -> TenantName {
    "acme".parse().unwrap()
}

fn order(lives: Option<u64>) -> TokenOrder {
    let lives = lives.map(Duration::from_secs);
    TokenOrder { tenant: acme(), scopes: "execute,jobs:read".parse().unwrap(), lives }
}

#[tokio::test]
async fn a_token_opens_at_once_and_after_a_restart_until_it_is_revoked() {
    let desk = desk();
    let refused = desk.registry.make_token(order(None)).await.map(|made| made.text).unwrap_err();
    assert_eq!(refused.to_string(), "there is no tenant acme: make it with `cloister tenants set acme`");
    desk.registry.set_tenant(acme(), Allowance::default(), false).await.unwrap();
    let made = desk.registry.make_token(order(None)).await.unwrap();
    assert!(made.text.starts_with("clo_") && made.text.len() == 4 + 12 + 1 + 43, "{}", made.text);
    let caller = desk.registry.caller(&made.text).unwrap();
    assert_eq!((caller.tenant, caller.token), (acme(), Some(made.token.id.clone())));
    assert!(caller.scopes.hold(Scope::Execute) && !caller.scopes.hold(Scope::JobsSubmit));
    assert!(desk.restarted().caller(&made.text).is_some());
    let kept = desk.store.tokens.lock().unwrap()[&made.token.id].1;
    assert!(!made.text.as_bytes().windows(32).any(|part| part == kept), "its digest only is kept");

    assert!(desk.registry.revoke_token(&made.token.id).await.unwrap());
    assert!(desk.registry.caller(&made.text).is_none() && desk.restarted().caller(&made.text).is_none());
    assert!(!desk.registry.revoke_token(&made.token.id).await.unwrap());
}

#[tokio::test]
async fn whatever_differs_from_a_token_is_none() {
    let desk = desk();
    desk.registry.set_tenant(acme(), Allowance::default(), false).await.unwrap();
    let [one, other] = [desk.registry.make_token(order(None)).await, desk.registry.make_token(order(None)).await]
        .map(|made| made.unwrap().text);
    assert_ne!(one, other);
    let mixed = format!("{}{}", &one[..17], &other[17..]);
    let mut changed = one.clone();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.push(last);
    for wrong in [mixed, changed, one[..one.len() - 1].to_owned(), format!("{one}x"), one.to_uppercase(), String::new()]
    {
        assert_eq!(desk.registry.caller(&wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn a_token_ends_by_itself_and_not_later_than_ten_years_on() {
    let desk = desk();
    desk.registry.set_tenant(acme(), Allowance::default(), false).await.unwrap();
    let made = desk.registry.make_token(order(Some(60))).await.unwrap();
    *desk.clock.0.lock().unwrap() = 59_999;
    assert!(desk.registry.caller(&made.text).is_some());
    *desk.clock.0.lock().unwrap() = 60_000;
    assert!(desk.registry.caller(&made.text).is_none());
    assert_eq!(desk.registry.tokens().len(), 1, "it is still listed");
    let forever = desk.registry.make_token(order(Some(u64::MAX))).await.map(|made| made.text);
    assert!(matches!(forever, Err(TenantsError::LivesTooLong)));
}

#[tokio::test]
async fn what_the_store_does_not_take_is_not_in_force() {
    let desk = desk();
    desk.registry.set_tenant(acme(), Allowance::default(), false).await.unwrap();
    let made = desk.registry.make_token(order(None)).await.unwrap();
    *desk.store.down.lock().unwrap() = true;
    let given = Allowance { concurrency: Some(1), ..Allowance::default() };
    assert!(desk.registry.set_tenant(acme(), given, false).await.is_err());
    assert_eq!(desk.registry.quotas(&acme()), Quotas::default());
    assert!(desk.registry.make_token(order(None)).await.is_err());
    assert!(desk.registry.revoke_token(&made.token.id).await.is_err());
    assert!(desk.registry.caller(&made.text).is_some(), "a restart would bring it back: the error says that it stands");
    desk.registry.charge(&acme(), Duration::from_secs(1));
    assert!(desk.registry.write_charges().await.is_err());
    *desk.store.down.lock().unwrap() = false;
    desk.registry.write_charges().await.unwrap();
    desk.registry.write_charges().await.unwrap();
    assert_eq!(desk.store.cpu.lock().unwrap().len(), 1, "kept, and written once");
}

#[tokio::test]
async fn an_allowance_is_changed_in_part_or_set_anew_and_holds_for_what_comes_next() {
    let desk = desk();
    let some = Allowance { concurrency: Some(1), cpu_seconds: Some(5), ..Allowance::default() };
    desk.registry.set_tenant(acme(), some, false).await.unwrap();
    let more = Allowance { environments: Some(3), cpu_seconds: Some(0), ..Allowance::default() };
    let view = desk.registry.set_tenant(acme(), more, false).await.unwrap();
    assert_eq!(view.quotas, Quotas { environments: Some(3), concurrency: Some(1), ..Quotas::default() });
    let pass = desk.registry.admit(&acme(), Work::Call).ok().unwrap();
    let refused = desk.registry.admit(&acme(), Work::QueuedCall).err().unwrap();
    assert_eq!(refused.quota, Quota::Concurrency);
    let counts = desk.registry.picture().counts;
    assert_eq!((counts.calls, counts.refused_concurrency), (1, 1));
    drop(pass);
    assert_eq!(desk.registry.picture().counts.calls, 0);
    assert!(desk.registry.admit(&acme(), Work::QueuedCall).is_ok());
    let view = desk.registry.set_tenant(acme(), Allowance::default(), true).await.unwrap();
    assert_eq!((view.quotas, view.tenant.allowance), (Quotas::default(), Allowance::default()));
    let wrong = Allowance { rate: Some(1e9), ..Allowance::default() };
    assert!(matches!(desk.registry.set_tenant(acme(), wrong, false).await, Err(TenantsError::Rate(_))));
}

#[tokio::test]
async fn a_days_cpu_time_is_known_after_a_restart() {
    let desk = desk();
    let given = Allowance { cpu_seconds: Some(2), ..Allowance::default() };
    desk.registry.set_tenant(acme(), given, false).await.unwrap();
    desk.registry.charge(&acme(), Duration::from_millis(1_500));
    desk.registry.write_charges().await.unwrap();
    desk.registry.charge(&acme(), Duration::from_millis(600));
    desk.registry.write_charges().await.unwrap();
    let next_life = desk.restarted();
    assert_eq!(next_life.admit(&acme(), Work::Call).err().unwrap().quota, Quota::Cpu);
    let views = next_life.tenants().await.unwrap();
    let names: Vec<&str> = views.iter().map(|view| view.tenant.name.as_str()).collect();
    assert_eq!((names, views[0].usage.cpu), (vec!["acme", "default"], Duration::from_millis(2_100)));
    assert_eq!((views[1].usage.environments, views[1].usage.storage_bytes), (2, 8192));
}
