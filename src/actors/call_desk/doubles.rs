//! A book in memory, a pool that answers by script, and a teller that remembers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::domain::desk::{Claimed, Fingerprint, HookState, HookView, Subject};
use crate::domain::execution::{Call, ExecutionRecord, Start};
use crate::domain::id::EnvironmentId;
use crate::domain::quota::Work;
use crate::domain::tenant::TenantName;
use crate::domain::webhook::Webhook;
use crate::ports::call_book::{AcceptedCall, CallEnd, DueHook, Unended};
use crate::ports::webhook::WebhookError;

/// What the book has of a call.
#[derive(Clone)]
pub struct Row {
    pub accepted: AcceptedCall,
    pub end: Option<CallEnd>,
    pub hook: Option<(HookState, u32, Option<WallTime>)>,
}

#[derive(Default)]
pub struct BookDouble {
    pub calls: Mutex<BTreeMap<ExecutionId, Row>>,
    /// As the pool would have written them.
    pub records: Mutex<BTreeMap<ExecutionId, ExecutionRecord>>,
    pub keys: Mutex<BTreeMap<KeyId, (Fingerprint, Subject, bool)>>,
    pub answers: Mutex<BTreeMap<ExecutionId, Answer>>,
    pub ready: Mutex<Vec<EnvironmentId>>,
    pub down: Mutex<bool>,
    /// How long a look at a call waits for its turn.
    pub busy: Mutex<Duration>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl BookDouble {
    fn check(&self) -> Result<(), StoreError> {
        let down = *locked(&self.down);
        if down { Err(StoreError::Query { action: "answer", source: "it is down".into() }) } else { Ok(()) }
    }

    pub fn row(&self, execution: ExecutionId) -> Row {
        locked(&self.calls)[&execution].clone()
    }

    fn view_of(&self, execution: ExecutionId) -> Option<ExecutionView> {
        let record = locked(&self.records).get(&execution).cloned();
        let row = locked(&self.calls).get(&execution).cloned();
        let environment = row.as_ref().map(|row| row.accepted.call.environment);
        Some(ExecutionView {
            execution,
            tenant: row.as_ref().map_or_else(TenantName::operator, |row| row.accepted.tenant.clone()),
            environment: environment.or(record.as_ref().map(|record| record.environment))?,
            accepted_at: row.as_ref().map(|row| row.accepted.accepted_at),
            started_at: record.as_ref().map(|record| record.started_at),
            ended_at: match &row {
                Some(row) => row.end.as_ref().map(|end| end.at),
                None => record.as_ref().and_then(|record| record.completed_at),
            },
            outcome: row.as_ref().and_then(|row| row.end.as_ref().map(|end| end.outcome.clone())),
            answer: locked(&self.answers).get(&execution).cloned(),
            webhook: row.and_then(|row| row.hook).map(|(state, attempts, _)| HookView { state, attempts }),
        })
    }
}

#[async_trait]
impl CallBook for BookDouble {
    async fn accept(&self, accepted: &AcceptedCall) -> Result<(), StoreError> {
        self.check()?;
        let row = Row { accepted: accepted.clone(), end: None, hook: None };
        locked(&self.calls).insert(accepted.call.execution, row);
        Ok(())
    }
    async fn unended(&self) -> Result<Vec<Unended>, StoreError> {
        self.check()?;
        let calls = locked(&self.calls);
        let open = calls.iter().filter(|(_, row)| row.end.is_none());
        let unended = |(execution, row): (&ExecutionId, &Row)| Unended {
            execution: *execution,
            environment: row.accepted.call.environment,
            bytes: 1,
            record: locked(&self.records).get(execution).cloned(),
        };
        Ok(open.map(unended).collect())
    }
    async fn request(&self, execution: ExecutionId) -> Result<Option<(TenantName, Call)>, StoreError> {
        self.check()?;
        let calls = locked(&self.calls);
        let open = calls.get(&execution).filter(|row| row.end.is_none());
        Ok(open.map(|row| (row.accepted.tenant.clone(), row.accepted.call.clone())))
    }
    async fn end(&self, end: &CallEnd) -> Result<(), StoreError> {
        self.check()?;
        if let Some(answer) = end.answer.clone() {
            locked(&self.answers).insert(end.execution, answer);
        }
        if let Some(row) = locked(&self.calls).get_mut(&end.execution) {
            assert!(row.end.is_none(), "a call ends once");
            row.end = Some(end.clone());
            row.hook = row.accepted.webhook.as_ref().map(|_| (HookState::Owed, 0, Some(end.at)));
        }
        Ok(())
    }
    async fn view(&self, execution: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        self.check()?;
        let busy = *locked(&self.busy);
        tokio::time::sleep(busy).await;
        Ok(self.view_of(execution))
    }
    async fn views(
        &self,
        tenant: &TenantName,
        _: Option<EnvironmentId>,
        _: u32,
    ) -> Result<Vec<ExecutionView>, StoreError> {
        let ids: Vec<_> = locked(&self.calls).keys().copied().collect();
        let views = ids.into_iter().filter_map(|id| self.view_of(id));
        Ok(views.filter(|view| view.tenant == *tenant).collect())
    }
    async fn due_hooks(&self, now: WallTime, _: u32) -> Result<Vec<DueHook>, StoreError> {
        self.check()?;
        let due = |(execution, row): (&ExecutionId, &Row)| {
            let (_, attempts, _) = row.hook.filter(|(_, _, due)| due.is_some_and(|due| due <= now))?;
            Some(DueHook { execution: *execution, webhook: row.accepted.webhook.clone()?, attempts })
        };
        Ok(locked(&self.calls).iter().filter_map(due).collect())
    }
    async fn note_hook(
        &self,
        execution: ExecutionId,
        attempts: u32,
        state: HookState,
        again: Option<WallTime>,
    ) -> Result<(), StoreError> {
        self.check()?;
        locked(&self.calls).get_mut(&execution).unwrap().hook = Some((state, attempts, again));
        Ok(())
    }
    async fn claim_key(
        &self,
        key: &KeyId,
        fingerprint: &Fingerprint,
        subject: Subject,
        _: WallTime,
        _: u32,
    ) -> Result<Claimed, StoreError> {
        self.check()?;
        let mut keys = locked(&self.keys);
        if let Some((fingerprint, subject, settled)) = keys.get(key).cloned() {
            return Ok(Claimed::Known { fingerprint, subject, settled });
        }
        keys.insert(key.clone(), (fingerprint.clone(), subject, false));
        Ok(Claimed::New)
    }
    async fn settle_key(&self, key: &KeyId, answer: Option<&Answer>, _: WallTime) -> Result<(), StoreError> {
        self.check()?;
        if let Some((_, subject, settled)) = locked(&self.keys).get_mut(key) {
            *settled = true;
            if let (Subject::Call(_, execution), Some(answer)) = (subject, answer) {
                locked(&self.answers).insert(*execution, answer.clone());
            }
        }
        Ok(())
    }
    async fn release_key(&self, key: &KeyId) -> Result<(), StoreError> {
        self.check()?;
        locked(&self.keys).remove(key);
        Ok(())
    }
    async fn is_ready(&self, environment: EnvironmentId) -> Result<bool, StoreError> {
        Ok(locked(&self.ready).contains(&environment))
    }
    async fn forget(&self, _: WallTime, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// Says what it is told to; without that, it runs every call well.
#[derive(Default)]
pub struct PoolDouble {
    pub book: Arc<BookDouble>,
    pub says: Arc<Mutex<VecDeque<Result<ExecutionReport, ExecuteError>>>>,
    pub executed: Arc<Mutex<Vec<ExecutionId>>>,
    pub cancelled: Arc<Mutex<Vec<ExecutionId>>>,
    /// When there is one, a call waits for it.
    pub hold: Option<Arc<Notify>>,
}

impl Actor for PoolDouble {
    type Context = Context<Self>;
}

impl Handler<Execute> for PoolDouble {
    type Result = ResponseFuture<Result<ExecutionReport, ExecuteError>>;

    fn handle(&mut self, message: Execute, _: &mut Self::Context) -> Self::Result {
        assert_eq!(message.work, Work::QueuedCall, "its rate was counted at the door");
        let call = message.call;
        locked(&self.executed).push(call.execution);
        let said = locked(&self.says).pop_front();
        if said.as_ref().is_none_or(Result::is_ok) {
            locked(&self.book.records).insert(call.execution, record(&call));
        }
        let hold = self.hold.clone();
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.notified().await;
            }
            said.unwrap_or_else(|| {
                Ok(ExecutionReport::cancelled(call.execution, call.limits, true, Default::default(), Start::Cold))
            })
        })
    }
}

impl Handler<CancelExecution> for PoolDouble {
    type Result = ();

    fn handle(&mut self, message: CancelExecution, _: &mut Self::Context) {
        locked(&self.cancelled).push(message.execution);
        if let Some(hold) = &self.hold {
            hold.notify_one();
        }
    }
}

pub fn record(call: &Call) -> ExecutionRecord {
    ExecutionRecord::begun(call.execution, call.environment, WallTime(1))
}

/// Takes what it is told to take.
#[derive(Default)]
pub struct TellerDouble {
    pub told: Mutex<Vec<(String, String)>>,
    pub refusals: Mutex<VecDeque<WebhookError>>,
}

#[async_trait]
impl WebhookTeller for TellerDouble {
    async fn tell(&self, _: &Webhook, id: &str, body: String, _: WallTime) -> Result<(), WebhookError> {
        locked(&self.told).push((id.to_owned(), body));
        locked(&self.refusals).pop_front().map_or(Ok(()), Err)
    }
}
