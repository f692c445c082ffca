//! The desk over doubles, under virtual time.

use std::sync::Mutex;

use tokio::sync::Notify;
use uuid::Uuid;

use super::doubles::{BookDouble, PoolDouble, TellerDouble, record};
use super::*;
use crate::actors::doubles::parent::seat_alone;
use crate::adapters::clock::PausedClock;
use crate::domain::desk::{CallStatus, Fingerprint, HookState, Subject};
use crate::domain::execution::{Call, FilesForm, Limits};
use crate::domain::id::{EnvironmentId, RequestId};
use crate::domain::pool::Refusal;
use crate::domain::quota::{Exceeded, Quota};
use crate::domain::tenant::TenantName;
use crate::domain::webhook::Webhook;
use crate::messages::call_desk::{
    AcceptCall, CancelCall, Claim, ClaimKey, GetExecution, GetExecutions, ReleaseKey, SettleKey,
};
use crate::ports::call_book::AcceptedCall;
use crate::ports::webhook::WebhookError;

/// What one desk stands on; several lives may share it.
#[derive(Default)]
struct House {
    book: Arc<BookDouble>,
    teller: Arc<TellerDouble>,
    says: Arc<Mutex<std::collections::VecDeque<Result<ExecutionReport, ExecuteError>>>>,
    executed: Arc<Mutex<Vec<ExecutionId>>>,
    cancelled: Arc<Mutex<Vec<ExecutionId>>>,
    hold: Option<Arc<Notify>>,
    keep_output: bool,
}

impl House {
    fn start(&self) -> Addr<CallDesk> {
        let pool = PoolDouble {
            book: self.book.clone(),
            says: self.says.clone(),
            executed: self.executed.clone(),
            cancelled: self.cancelled.clone(),
            hold: self.hold.clone(),
        };
        let pool = pool.start();
        let (execute, cancel) = (Handle::default(), Handle::default());
        execute.publish(&pool);
        cancel.publish(&pool);
        let deps = Deps {
            book: self.book.clone(),
            teller: self.teller.clone(),
            execute,
            cancel,
            clock: Arc::new(PausedClock::start()),
            policy: DeskPolicy { at_once: 1, queue: 10, queue_bytes: 1000 },
            settings: Settings {
                keep: Duration::from_secs(3600),
                keep_bytes: 1000,
                keep_output: self.keep_output,
                keys: 10,
                webhook_attempts: 3,
            },
            render: |result, _| match result {
                Ok(report) => answer(200, report.outcome.as_str()),
                Err(error) => answer(404, &error.to_string()),
            },
            show: |view| format!("{:?}", view.answer.map(|answer| answer.body)),
            log: Logger::root(slog::Discard, slog::o!()),
        };
        CallDesk::new(deps, seat_alone()).start()
    }

    fn executed(&self) -> Vec<ExecutionId> {
        self.executed.lock().unwrap().clone()
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.into() }
}

fn id(n: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(n))
}

const ENVIRONMENT: EnvironmentId = EnvironmentId(Uuid::from_u128(7));

fn call(n: u128) -> Call {
    Call {
        execution: id(n),
        environment: ENVIRONMENT,
        request: RequestId::accept("r").unwrap(),
        data: "null".into(),
        env: [].into(),
        limits: Limits { timeout: Duration::from_secs(5), memory_mb: 128 },
        files: FilesForm::None,
    }
}

fn acme() -> TenantName {
    "acme".parse().unwrap()
}

fn accept(n: u128) -> AcceptCall {
    AcceptCall { call: call(n), tenant: acme(), webhook: None }
}

async fn settle(span_ms: u64) {
    tokio::time::sleep(Duration::from_millis(span_ms)).await;
}

async fn view(desk: &Addr<CallDesk>, n: u128) -> Option<ExecutionView> {
    desk.send(GetExecution { execution: id(n), tenant: acme() }).await.unwrap().unwrap()
}

#[actix::test]
async fn an_accepted_call_is_durable_then_run_then_shown_with_its_answer() {
    tokio::time::pause();
    for keep_output in [false, true] {
        let house = House { keep_output, ..House::default() };
        let desk = house.start();
        desk.send(accept(1)).await.unwrap().unwrap();
        assert!(house.book.calls.lock().unwrap().contains_key(&id(1)));
        settle(10).await;
        let view = view(&desk, 1).await.unwrap();
        assert_eq!((view.status(), view.outcome.as_deref()), (CallStatus::Done, Some("cancelled")));
        assert_eq!(view.answer, Some(answer(200, "cancelled")));
        let kept = house.book.answers.lock().unwrap().contains_key(&id(1));
        assert_eq!(kept, keep_output, "the book has answers only where that is asked for");
        let list = |tenant| desk.send(GetExecutions { tenant, environment: None, limit: 9 });
        assert_eq!(list(acme()).await.unwrap().unwrap().len(), 1);
        assert_eq!(list(TenantName::operator()).await.unwrap().unwrap(), []);
    }
}

#[actix::test]
async fn a_call_that_ends_while_it_is_looked_at_is_shown_with_its_answer() {
    tokio::time::pause();
    let hold = Arc::new(Notify::new());
    let house = House { hold: Some(Arc::clone(&hold)), ..House::default() };
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    *house.book.busy.lock().unwrap() = Duration::from_millis(100);
    let looking = actix::spawn(desk.send(GetExecution { execution: id(1), tenant: acme() }));
    settle(50).await;
    hold.notify_one();
    let view = looking.await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!((view.status(), view.answer), (CallStatus::Done, Some(answer(200, "cancelled"))));
}

#[actix::test]
async fn a_call_that_the_pool_has_no_place_for_is_asked_for_again() {
    tokio::time::pause();
    let house = House::default();
    let full = || Err(ExecuteError::Refused(Refusal::QueueFull { retry_after: Duration::from_secs(3) }));
    house.says.lock().unwrap().extend([full(), full()]);
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    settle(2900).await;
    assert_eq!((house.executed().len(), view(&desk, 1).await.unwrap().status()), (1, CallStatus::Queued));
    settle(3200).await;
    assert_eq!((house.executed().len(), view(&desk, 1).await.unwrap().status()), (3, CallStatus::Done));
}

#[actix::test]
async fn a_call_whose_tenant_is_at_a_quota_is_asked_for_again_unless_its_day_is_used_up() {
    tokio::time::pause();
    let house = House::default();
    let exceeded = |quota, secs| {
        Err(ExecuteError::Exceeded(Exceeded { quota, limit: 1, used: 1, retry_after: Some(Duration::from_secs(secs)) }))
    };
    let said = [exceeded(Quota::Concurrency, 1), exceeded(Quota::EnvironmentRate, 900), exceeded(Quota::Cpu, 9000)];
    house.says.lock().unwrap().extend(said);
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    settle(900).await;
    assert_eq!((house.executed().len(), view(&desk, 1).await.unwrap().status()), (1, CallStatus::Queued));
    settle(1000).await;
    assert_eq!((house.executed().len(), view(&desk, 1).await.unwrap().status()), (2, CallStatus::Queued));
    settle(60_000).await;
    let ended = view(&desk, 1).await.unwrap();
    assert_eq!((house.executed().len(), ended.outcome.as_deref()), (3, Some("failed")));
}

#[actix::test]
async fn another_tenants_call_is_neither_shown_nor_cancelled() {
    tokio::time::pause();
    let house = House { hold: Some(Arc::new(Notify::new())), ..House::default() };
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    settle(10).await;
    let (execution, stranger) = (id(1), TenantName::operator());
    let seen = desk.send(GetExecution { execution, tenant: stranger.clone() }).await.unwrap();
    assert_eq!(seen, Ok(None));
    assert_eq!(desk.send(CancelCall { execution, tenant: stranger }).await.unwrap(), Ok(false));
    settle(10).await;
    assert_eq!(view(&desk, 1).await.unwrap().ended_at, None);
}

#[actix::test]
async fn what_had_begun_in_an_earlier_life_is_over_and_what_had_not_runs() {
    tokio::time::pause();
    let house = House::default();
    for n in [1, 2] {
        let accepted = AcceptedCall { call: call(n), tenant: acme(), accepted_at: WallTime(0), webhook: None };
        house.book.accept(&accepted).await.unwrap();
    }
    house.book.records.lock().unwrap().insert(id(1), record(&call(1)));
    let desk = house.start();
    settle(10).await;
    assert_eq!(house.executed(), [id(2)]);
    let lost = view(&desk, 1).await.unwrap();
    assert_eq!((lost.outcome.as_deref(), lost.answer), (Some("cancelled"), None));
    assert_eq!(*house.cancelled.lock().unwrap(), [id(1), id(2)], "a pool that outlived the desk may still have them");
}

#[actix::test]
async fn a_pool_that_falls_under_a_call_ends_it_only_if_it_had_begun() {
    tokio::time::pause();
    let house = House::default();
    let fell = || ExecuteError::Host {
        doing: crate::messages::sandbox_pool::POOL_FELL,
        cause: "the pool was restarted under it".into(),
        kind: crate::domain::failure::FailureKind::Retryable,
    };
    house.says.lock().unwrap().push_back(Err(fell()));
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    settle(1500).await;
    assert_eq!((house.executed(), view(&desk, 1).await.unwrap().status()), (vec![id(1), id(1)], CallStatus::Done));
    house.says.lock().unwrap().push_back(Err(fell()));
    house.book.records.lock().unwrap().insert(id(2), record(&call(2)));
    desk.send(accept(2)).await.unwrap().unwrap();
    settle(1500).await;
    assert_eq!(house.executed().len(), 3, "it may have had effects: it is not run again");
    assert_eq!(view(&desk, 2).await.unwrap().outcome.as_deref(), Some("cancelled"));
}

#[actix::test]
async fn calls_are_cancelled_wherever_they_are() {
    tokio::time::pause();
    let house = House { hold: Some(Arc::new(Notify::new())), ..House::default() };
    let desk = house.start();
    for n in [1, 2] {
        desk.send(accept(n)).await.unwrap().unwrap();
    }
    settle(10).await;
    for n in [2, 1, 1] {
        assert_eq!(desk.send(CancelCall { execution: id(n), tenant: acme() }).await.unwrap(), Ok(true));
    }
    assert_eq!(desk.send(CancelCall { execution: id(3), tenant: acme() }).await.unwrap(), Ok(false));
    settle(10).await;
    for n in [1, 2] {
        assert_eq!(view(&desk, n).await.unwrap().outcome.as_deref(), Some("cancelled"));
    }
    assert_eq!(house.executed(), [id(1)], "the second had not begun");
    assert_eq!(
        desk.send(CancelCall { execution: id(1), tenant: acme() }).await.unwrap(),
        Ok(true),
        "once over, it stays as it is"
    );
}

#[actix::test]
async fn an_end_that_cannot_be_written_is_written_later() {
    tokio::time::pause();
    let house = House { hold: Some(Arc::new(Notify::new())), ..House::default() };
    let desk = house.start();
    desk.send(accept(1)).await.unwrap().unwrap();
    settle(10).await;
    *house.book.down.lock().unwrap() = true;
    house.hold.as_ref().unwrap().notify_one();
    settle(2500).await;
    assert!(desk.send(accept(2)).await.unwrap().is_err());
    *house.book.down.lock().unwrap() = false;
    settle(1100).await;
    assert_eq!(view(&desk, 1).await.unwrap().status(), CallStatus::Done);
    assert_eq!(view(&desk, 2).await, None, "what was not recorded was not accepted");
}

#[actix::test]
async fn a_drain_waits_for_what_runs_and_leaves_what_waits() {
    tokio::time::pause();
    let house = House { hold: Some(Arc::new(Notify::new())), ..House::default() };
    let desk = house.start();
    for n in [1, 2] {
        desk.send(accept(n)).await.unwrap().unwrap();
    }
    desk.send(Drain { hurry: false }).await.unwrap();
    settle(10).await;
    assert!(desk.connected());
    house.hold.as_ref().unwrap().notify_one();
    settle(10).await;
    assert!(!desk.connected());
    let open = house.book.unended().await.unwrap();
    assert_eq!(open.into_iter().map(|call| call.execution).collect::<Vec<_>>(), [id(2)]);
}

fn hook() -> Option<Webhook> {
    Some(Webhook { url: "https://example.com/".into(), secret: None })
}

#[actix::test]
async fn a_webhook_is_told_the_end_again_after_a_failure_and_given_up_at_last() {
    tokio::time::pause();
    let house = House::default();
    let refused = || WebhookError::Status { host: "h".into(), status: 500 };
    house.teller.refusals.lock().unwrap().extend([refused(), refused(), refused()]);
    let desk = house.start();
    desk.send(AcceptCall { call: call(1), tenant: acme(), webhook: hook() }).await.unwrap().unwrap();
    settle(10).await;
    let told = house.teller.told.lock().unwrap().clone();
    let body = r#"{"type":"execution.done","timestamp":""#;
    assert_eq!((told.len(), told[0].0.as_str()), (1, "msg_00000000-0000-0000-0000-000000000001"));
    assert!(told[0].1.starts_with(body) && told[0].1.ends_with(r#""data":Some("cancelled")}"#), "{}", told[0].1);
    settle(4000).await;
    assert_eq!(house.teller.told.lock().unwrap().len(), 1);
    settle(2500).await;
    assert_eq!(house.teller.told.lock().unwrap().len(), 2, "after 5 s");
    settle(60_000).await;
    assert_eq!(house.teller.told.lock().unwrap().len(), 3, "and no more");
    assert_eq!(house.book.row(id(1)).hook, Some((HookState::Failed, 3, None)));
    desk.send(AcceptCall { call: call(2), tenant: acme(), webhook: hook() }).await.unwrap().unwrap();
    settle(10).await;
    assert_eq!(house.book.row(id(2)).hook, Some((HookState::Delivered, 1, None)));
    house.teller.refusals.lock().unwrap().push_back(WebhookError::Private("h".into()));
    desk.send(AcceptCall { call: call(3), tenant: acme(), webhook: hook() }).await.unwrap().unwrap();
    settle(10).await;
    assert_eq!(house.book.row(id(3)).hook, Some((HookState::Failed, 1, None)), "that will not change");
}

fn claim(print: &str, n: u128) -> ClaimKey {
    let subject = Subject::Call(ENVIRONMENT, id(n));
    ClaimKey { key: KeyId("k".into()), fingerprint: Fingerprint(print.into()), subject }
}

#[actix::test]
async fn who_comes_with_the_same_key_is_told_the_same_also_while_it_is_being_done() {
    tokio::time::pause();
    let house = House::default();
    let desk = house.start();
    assert_eq!(desk.send(claim("a", 1)).await.unwrap(), Ok(Claim::Held));
    let waiting = actix::spawn(desk.send(claim("a", 2)));
    settle(5).await;
    assert_eq!(desk.send(claim("b", 3)).await.unwrap(), Ok(Claim::Other));
    assert!(!waiting.is_finished());
    desk.send(SettleKey { key: KeyId("k".into()), answer: Some(answer(200, "x")) }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Ok(Claim::Answered(answer(200, "x"))));
    assert_eq!(desk.send(claim("a", 4)).await.unwrap(), Ok(Claim::Answered(answer(200, "x"))));
    assert_eq!(desk.send(claim("b", 4)).await.unwrap(), Ok(Claim::Other));
    // The next life has no answers but those of the book.
    let next = house.start();
    assert_eq!(next.send(claim("a", 4)).await.unwrap(), Ok(Claim::Unkept(id(1))));
    house.book.answers.lock().unwrap().insert(id(1), answer(200, "x"));
    house.book.records.lock().unwrap().insert(id(1), record(&call(1)));
    assert_eq!(next.send(claim("a", 4)).await.unwrap(), Ok(Claim::Answered(answer(200, "x"))));
}

#[actix::test]
async fn a_key_that_was_released_is_free() {
    tokio::time::pause();
    let desk = House::default().start();
    desk.send(claim("a", 1)).await.unwrap().unwrap();
    let waiting = actix::spawn(desk.send(claim("a", 2)));
    settle(5).await;
    desk.send(ReleaseKey { key: KeyId("k".into()), answer: answer(429, "full") }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Ok(Claim::Answered(answer(429, "full"))));
    assert_eq!(desk.send(claim("b", 3)).await.unwrap(), Ok(Claim::Held), "also for something else");
}

#[actix::test]
async fn a_key_that_a_kill_cut_off_is_free_unless_its_call_had_begun() {
    tokio::time::pause();
    let house = House::default();
    house.start().send(claim("a", 1)).await.unwrap().unwrap();
    let next = house.start();
    assert_eq!(next.send(claim("a", 2)).await.unwrap(), Ok(Claim::Held), "nothing had begun");
    house.book.records.lock().unwrap().insert(id(2), record(&call(2)));
    let last = house.start();
    assert_eq!(last.send(claim("a", 3)).await.unwrap(), Ok(Claim::CutOff(id(2))));

    let set_up = || ClaimKey {
        key: KeyId("s".into()),
        fingerprint: Fingerprint("a".into()),
        subject: Subject::SetUp(ENVIRONMENT),
    };
    last.send(set_up()).await.unwrap().unwrap();
    house.book.ready.lock().unwrap().push(ENVIRONMENT);
    assert_eq!(house.start().send(set_up()).await.unwrap(), Ok(Claim::Made(ENVIRONMENT)));
    let accepted = ClaimKey {
        key: KeyId("l".into()),
        fingerprint: Fingerprint("a".into()),
        subject: Subject::Accepted(ENVIRONMENT, id(9)),
    };
    last.send(accepted).await.unwrap().unwrap();
    house
        .book
        .accept(&AcceptedCall { call: call(9), tenant: acme(), accepted_at: WallTime(0), webhook: None })
        .await
        .unwrap();
    let again = ClaimKey {
        key: KeyId("l".into()),
        fingerprint: Fingerprint("a".into()),
        subject: Subject::Accepted(ENVIRONMENT, id(10)),
    };
    assert_eq!(house.start().send(again).await.unwrap(), Ok(Claim::Accepted(id(9))));
}

#[actix::test]
async fn a_drain_waits_for_a_key_to_be_settled_and_gives_none_away() {
    tokio::time::pause();
    let house = House::default();
    let desk = house.start();
    desk.send(claim("a", 1)).await.unwrap().unwrap();
    desk.send(Drain { hurry: false }).await.unwrap();
    let other = ClaimKey { key: KeyId("other".into()), ..claim("a", 2) };
    assert!(desk.send(other).await.unwrap().is_err());
    desk.send(SettleKey { key: KeyId("k".into()), answer: Some(answer(200, "x")) }).await.unwrap();
    settle(10).await;
    assert!(!desk.connected() && house.book.keys.lock().unwrap()[&KeyId("k".into())].2);
    let hurried = house.start();
    hurried.send(ClaimKey { key: KeyId("l".into()), ..claim("a", 3) }).await.unwrap().unwrap();
    hurried.send(Drain { hurry: true }).await.unwrap();
    settle(10).await;
    assert!(!hurried.connected());
}
