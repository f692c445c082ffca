//! The call book on SQLite.

use uuid::Uuid;

use super::*;
use crate::adapters::sqlite::tests::{Housed, environment, housed};
use crate::domain::execution::{ExecutionRecord, FilesForm, Limits};
use crate::domain::id::RequestId;
use crate::domain::quota::Quotas;
use crate::domain::webhook::Webhook;
use crate::ports::store::Store;

fn execution(n: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(n))
}

fn acme() -> TenantName {
    "acme".parse().unwrap()
}

fn accepted(n: u128, environment: EnvironmentId, webhook: Option<Webhook>) -> AcceptedCall {
    let call = Call {
        execution: execution(n),
        environment,
        request: RequestId::accept("r").unwrap(),
        data: r#"{"a": "é"}"#.into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
        limits: Limits { timeout: std::time::Duration::from_millis(5), memory_mb: 128 },
        files: FilesForm::None,
    };
    AcceptedCall { call, tenant: acme(), accepted_at: WallTime(i64::try_from(n).unwrap()), webhook }
}

fn hook() -> Webhook {
    Webhook { url: "https://example.com/".into(), secret: Some("whsec_x".into()) }
}

fn answer(text: &str) -> Answer {
    Answer { status: 200, body: text.into() }
}

fn end(n: u128, at: i64, answer: Option<Answer>) -> CallEnd {
    CallEnd { execution: execution(n), outcome: "ok".into(), at: WallTime(at), answer }
}

async fn book() -> (Housed, EnvironmentId) {
    let housed = housed().await;
    let environment = environment(3);
    housed.insert_environment(&environment, &Quotas::default()).await.unwrap();
    (housed, environment.id)
}

#[tokio::test]
async fn an_accepted_call_is_there_with_its_request_until_it_ends() {
    let (housed, environment) = book().await;
    let book = housed.book();
    book.accept(&accepted(2, environment, None)).await.unwrap();
    book.accept(&accepted(1, environment, None)).await.unwrap();
    let (tenant, read) = book.request(execution(1)).await.unwrap().unwrap();
    assert_eq!(tenant, acme());
    assert_eq!((read.data.as_str(), read.env["A"].as_str(), read.limits.memory_mb), (r#"{"a": "é"}"#, "1", 128));
    let record = ExecutionRecord::begun(execution(1), environment, WallTime(50));
    housed.begin_execution(&record).await.unwrap();
    let unended = book.unended().await.unwrap();
    let seen: Vec<_> = unended.into_iter().map(|call| (call.execution, call.record)).collect();
    assert_eq!(seen, [(execution(1), Some(record)), (execution(2), None)]);
    let view = book.view(execution(1)).await.unwrap().unwrap();
    assert_eq!((view.accepted_at, view.started_at, view.ended_at), (Some(WallTime(1)), Some(WallTime(50)), None));

    book.end(&end(1, 90, Some(answer("{}")))).await.unwrap();
    book.end(&end(1, 99, None)).await.unwrap();
    assert!(book.request(execution(1)).await.unwrap().is_none());
    let view = book.view(execution(1)).await.unwrap().unwrap();
    assert_eq!(
        (view.ended_at, view.outcome.as_deref(), view.answer),
        (Some(WallTime(90)), Some("ok"), Some(answer("{}")))
    );
    let listed: Vec<_> =
        book.views(&acme(), Some(environment), 10).await.unwrap().into_iter().map(|view| view.execution).collect();
    assert_eq!(listed, [execution(2), execution(1)]);
    assert_eq!(book.views(&acme(), None, 10).await.unwrap().len(), 2);
    assert_eq!(book.views(&TenantName::operator(), None, 10).await.unwrap(), [], "another tenant's are its own");
    assert_eq!(book.views(&acme(), Some(EnvironmentId(Uuid::nil())), 10).await.unwrap(), []);

    assert!(housed.delete_environment(environment).await.unwrap());
    assert_eq!((book.views(&acme(), None, 10).await.unwrap(), book.view(execution(1)).await.unwrap()), (vec![], None));
    book.end(&end(2, 99, Some(answer("{}")))).await.unwrap();
}

#[tokio::test]
async fn a_call_whose_caller_waited_is_seen_too() {
    let (housed, environment) = book().await;
    let begun = crate::adapters::sqlite::tests::begun(7, environment);
    housed.begin_execution(&begun).await.unwrap();
    let view = housed.book().view(begun.id).await.unwrap().unwrap();
    assert_eq!((view.accepted_at, view.started_at, view.webhook), (None, Some(WallTime(7)), None));
    assert_eq!(view.tenant, acme(), "its environment's");
    assert_eq!(housed.book().view(execution(8)).await.unwrap(), None);
}

#[tokio::test]
async fn a_webhook_is_owed_from_the_end_on_until_it_is_settled() {
    let (housed, environment) = book().await;
    let book = housed.book();
    for n in [1, 2] {
        book.accept(&accepted(n, environment, Some(hook()))).await.unwrap();
    }
    assert_eq!(book.due_hooks(WallTime(1000), 10).await.unwrap(), []);
    book.end(&end(1, 10, None)).await.unwrap();
    let due = DueHook { execution: execution(1), webhook: hook(), attempts: 0 };
    assert_eq!(book.due_hooks(WallTime(9), 10).await.unwrap(), []);
    assert_eq!(book.due_hooks(WallTime(10), 10).await.unwrap(), vec![due.clone()]);
    book.note_hook(execution(1), 1, HookState::Owed, Some(WallTime(20))).await.unwrap();
    assert_eq!(book.due_hooks(WallTime(19), 10).await.unwrap(), []);
    assert_eq!(book.due_hooks(WallTime(20), 10).await.unwrap(), [DueHook { attempts: 1, ..due }]);
    assert_eq!(book.forget(WallTime(100), 0).await.unwrap(), 0, "a webhook is still owed");
    book.note_hook(execution(1), 2, HookState::Delivered, None).await.unwrap();
    assert_eq!(book.due_hooks(WallTime(1000), 10).await.unwrap(), []);
    let view = book.view(execution(1)).await.unwrap().unwrap();
    assert_eq!(view.webhook, Some(HookView { state: HookState::Delivered, attempts: 2 }));
    assert_eq!(book.forget(WallTime(100), 0).await.unwrap(), 1);
    assert_eq!(book.view(execution(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_claimed_once_and_free_when_it_is_released() {
    let (housed, environment) = book().await;
    let book = housed.book();
    let (key, print) = (KeyId("k".into()), Fingerprint("f".into()));
    let claim =
        async |key: &KeyId, subject, most| book.claim_key(key, &print, subject, WallTime(1), most).await.unwrap();
    for subject in [
        Subject::Call(environment, execution(1)),
        Subject::Accepted(environment, execution(1)),
        Subject::SetUp(environment),
    ] {
        assert_eq!(claim(&key, subject, 10).await, Claimed::New);
        let known = Claimed::Known { fingerprint: print.clone(), subject, settled: false };
        assert_eq!(claim(&key, Subject::SetUp(EnvironmentId(Uuid::nil())), 10).await, known);
        book.release_key(&key).await.unwrap();
    }
    let subject = Subject::Call(environment, execution(1));
    claim(&key, subject, 10).await;
    book.settle_key(&key, Some(&answer("[1]")), WallTime(5)).await.unwrap();
    assert_eq!(claim(&key, subject, 10).await, Claimed::Known { fingerprint: print.clone(), subject, settled: true });
    housed
        .begin_execution(&ExecutionRecord { id: execution(1), ..crate::adapters::sqlite::tests::begun(1, environment) })
        .await
        .unwrap();
    assert_eq!(book.view(execution(1)).await.unwrap().unwrap().answer, Some(answer("[1]")));
    // Of two keys the settled one goes first.
    assert_eq!(claim(&KeyId("l".into()), subject, 1).await, Claimed::New);
    assert_eq!(claim(&key, subject, 10).await, Claimed::New);
    assert!(housed.delete_environment(environment).await.unwrap());
    assert_eq!(claim(&key, subject, 10).await, Claimed::New, "a key goes with its environment");
}

#[tokio::test]
async fn answers_go_by_age_and_by_size() {
    let (housed, environment) = book().await;
    let book = housed.book();
    for n in 1..=4 {
        book.accept(&accepted(n, environment, None)).await.unwrap();
        book.end(&end(n, i64::try_from(n).unwrap() * 10, Some(answer("12345")))).await.unwrap();
    }
    let kept = async || {
        let mut kept = Vec::new();
        for n in 1..=4 {
            kept.push(book.view(execution(n)).await.unwrap().is_some_and(|view| view.answer.is_some()));
        }
        kept
    };
    assert_eq!(book.forget(WallTime(5), 10).await.unwrap(), 2);
    assert_eq!(kept().await, [false, false, true, true]);
    assert_eq!(book.forget(WallTime(40), 10).await.unwrap(), 4, "three calls, and the answer of one of them");
    assert_eq!(kept().await, [false, false, false, true]);
}
