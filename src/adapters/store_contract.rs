//! What every store must do, whatever is behind it. A store's own tests include this file and call [`hold`] with a
//! function that makes an empty store; each clause gets a fresh one.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::domain::environment::{Environment, EnvironmentStatus, Grant, Isolation, Metadata, Permissions, Runtime};
use crate::domain::execution::ExecutionRecord;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::quota::{EnvironmentLimits, Quota, Quotas, Rate};
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::ports::store::{Store, StoreError};

/// Checks every clause.
pub(super) async fn hold<S: Store + 'static>(make: impl AsyncFn() -> S) {
    an_environment_comes_back_as_it_was_written(&make().await).await;
    an_unknown_environment_is_absent_and_not_an_error(&make().await).await;
    an_id_is_taken_once(&make().await).await;
    environments_are_listed_newest_first(&make().await).await;
    a_deleted_environment_takes_its_calls_along(&make().await).await;
    a_call_is_counted_when_it_begins(&make().await).await;
    a_call_of_an_absent_environment_is_refused_whole(&make().await).await;
    a_call_that_ends_after_its_environment_is_no_error(&make().await).await;
    calls_are_listed_newest_first_up_to_the_limit(&make().await).await;
    unfinished_calls_are_closed_once(&make().await).await;
    old_calls_are_forgotten_by_their_end(&make().await).await;
    concurrent_writers_lose_nothing(Arc::new(make().await)).await;
    a_tenants_environments_are_listed_apart(&make().await).await;
    no_two_writers_pass_a_quota_together(Arc::new(make().await)).await;
}

/// An environment made of `seed`, created at `seed` milliseconds.
pub(crate) fn environment(seed: u64) -> Environment {
    let id = EnvironmentId(Uuid::from_u128(u128::from(seed)));
    Environment {
        id,
        tenant: if seed.is_multiple_of(3) { "acme".parse().expect("a name") } else { TenantName::operator() },
        volume_name: id.volume_name(),
        main_module: "main.ts".into(),
        runtime: if seed.is_multiple_of(2) { Runtime::Deno } else { Runtime::Bun },
        created_at: WallTime(i64::try_from(seed).expect("small seeds")),
        last_executed_at: None,
        execution_count: 0,
        status: EnvironmentStatus::Ready,
        metadata: Metadata {
            permissions: Permissions {
                allow_net: Some(Grant::Only(vec!["api.example:443".into(), "ümläut \"quoted\"".into()])),
                allow_hrtime: Some(true),
                ..Permissions::default()
            },
            secrets: vec!["A_KEY".parse().expect("a name")],
            module_count: 3,
            dependency_count: 0,
            has_dependencies: false,
            runtime: Runtime::Deno,
            isolation: Isolation::default(),
        },
        ttl_seconds: 3600,
        limits: EnvironmentLimits { concurrency: (seed > 1).then_some(2), rate: Rate::new(0.5, Some(3)).ok() },
        revision: 1,
    }
}

/// A call that has begun at `seed` milliseconds.
pub(crate) fn begun(seed: u64, environment: EnvironmentId) -> ExecutionRecord {
    let id = ExecutionId(Uuid::from_u128(u128::from(seed)));
    ExecutionRecord::begun(id, environment, WallTime(i64::try_from(seed).expect("small seeds")))
}

/// The same call, completed `took` milliseconds later.
pub(super) fn finished(record: &ExecutionRecord, took: i64) -> ExecutionRecord {
    ExecutionRecord {
        completed_at: Some(WallTime(record.started_at.0 + took)),
        exit_code: Some(0),
        stdout: Some("out\u{1b}[31m — 日本".into()),
        stderr: Some(String::new()),
        duration_ms: Some(took),
        outcome: Some("ok".into()),
        ..record.clone()
    }
}

async fn an_environment_comes_back_as_it_was_written(store: &dyn Store) {
    for status in [EnvironmentStatus::SettingUp, EnvironmentStatus::Ready, EnvironmentStatus::Deleting] {
        let written = Environment { status, ..environment(10 + status as u64) };
        store.insert_environment(&written, &Quotas::default()).await.expect("inserted");
        assert_eq!(store.environment(written.id).await.expect("read"), Some(written));
    }
    let id = environment(10).id;
    assert!(store.set_status(id, EnvironmentStatus::Ready).await.expect("set"));
    let read = store.environment(id).await.expect("read").expect("present");
    assert_eq!(read.status, EnvironmentStatus::Ready);
}

async fn an_unknown_environment_is_absent_and_not_an_error(store: &dyn Store) {
    let id = EnvironmentId(Uuid::from_u128(404));
    assert_eq!(store.environment(id).await.expect("read"), None);
    assert!(!store.set_status(id, EnvironmentStatus::Ready).await.expect("set"));
    assert!(!store.delete_environment(id).await.expect("deleted"));
    store.try_write().await.expect("written");
    assert_eq!(store.environments().await.expect("listed"), []);
    assert_eq!(store.executions(id, 10).await.expect("listed"), []);
}

async fn an_id_is_taken_once(store: &dyn Store) {
    let first = environment(1);
    store.insert_environment(&first, &Quotas::default()).await.expect("inserted");
    let second = Environment { main_module: "other.ts".into(), ..first.clone() };
    assert!(store.insert_environment(&second, &Quotas::default()).await.is_err());
    assert_eq!(store.environment(first.id).await.expect("read"), Some(first));
}

async fn environments_are_listed_newest_first(store: &dyn Store) {
    for seed in [3, 1, 2] {
        store.insert_environment(&environment(seed), &Quotas::default()).await.expect("inserted");
    }
    let listed = store.environments().await.expect("listed");
    assert_eq!(listed, [environment(3), environment(2), environment(1)]);
}

async fn a_deleted_environment_takes_its_calls_along(store: &dyn Store) {
    let (gone, kept) = (environment(1), environment(2));
    for each in [&gone, &kept] {
        store.insert_environment(each, &Quotas::default()).await.expect("inserted");
        let seed = 10 + u64::try_from(each.created_at.0).expect("positive");
        store.begin_execution(&begun(seed, each.id)).await.expect("begun");
    }
    assert!(store.delete_environment(gone.id).await.expect("deleted"));
    assert_eq!(store.executions(gone.id, 10).await.expect("listed"), []);
    assert_eq!(store.executions(kept.id, 10).await.expect("listed").len(), 1);
    assert!(!store.delete_environment(gone.id).await.expect("deleted again"));
}

async fn a_call_is_counted_when_it_begins(store: &dyn Store) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    let call = begun(50, environment.id);
    store.begin_execution(&call).await.expect("begun");
    let read = store.environment(environment.id).await.expect("read").expect("present");
    assert_eq!((read.execution_count, read.last_executed_at), (1, Some(WallTime(50))));
    let call = finished(&call, 7);
    store.finish_execution(&call).await.expect("finished");
    assert_eq!(store.executions(environment.id, 10).await.expect("listed"), [call]);
    let read = store.environment(environment.id).await.expect("read").expect("present");
    assert_eq!(read.execution_count, 1);
}

async fn a_call_of_an_absent_environment_is_refused_whole(store: &dyn Store) {
    let absent = EnvironmentId(Uuid::from_u128(404));
    assert!(store.begin_execution(&begun(1, absent)).await.is_err());
    assert_eq!(store.executions(absent, 10).await.expect("listed"), []);
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("a later write works");
    let call = begun(1, environment.id);
    store.begin_execution(&call).await.expect("begun");
    assert!(store.begin_execution(&call).await.is_err(), "the same call twice");
    let read = store.environment(environment.id).await.expect("read").expect("present");
    assert_eq!(read.execution_count, 1, "the refused call is not counted");
}

async fn a_call_that_ends_after_its_environment_is_no_error(store: &dyn Store) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    let call = begun(5, environment.id);
    store.begin_execution(&call).await.expect("begun");
    assert!(store.delete_environment(environment.id).await.expect("deleted"));
    store.finish_execution(&finished(&call, 1)).await.expect("no error");
}

async fn calls_are_listed_newest_first_up_to_the_limit(store: &dyn Store) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    for seed in [30, 10, 20] {
        store.begin_execution(&begun(seed, environment.id)).await.expect("begun");
    }
    let listed = store.executions(environment.id, 2).await.expect("listed");
    assert_eq!(listed, [begun(30, environment.id), begun(20, environment.id)]);
    assert_eq!(store.executions(environment.id, 0).await.expect("listed"), []);
}

async fn unfinished_calls_are_closed_once(store: &dyn Store) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    let (done, open) = (begun(10, environment.id), begun(20, environment.id));
    for call in [&done, &open] {
        store.begin_execution(call).await.expect("begun");
    }
    let done = finished(&done, 1);
    store.finish_execution(&done).await.expect("finished");
    assert_eq!(store.close_unfinished(WallTime(99)).await.expect("closed"), 1);
    assert_eq!(store.close_unfinished(WallTime(100)).await.expect("closed"), 0);
    let cancelled = ExecutionRecord {
        completed_at: Some(WallTime(99)),
        exit_code: Some(125),
        outcome: Some("cancelled".into()),
        ..open
    };
    assert_eq!(store.executions(environment.id, 10).await.expect("listed"), [cancelled, done]);
}

async fn old_calls_are_forgotten_by_their_end(store: &dyn Store) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    let calls = [(1000, 5), (2000, 5), (3, 9000)];
    for (seed, took) in calls {
        let call = begun(seed, environment.id);
        store.begin_execution(&call).await.expect("begun");
        store.finish_execution(&finished(&call, took)).await.expect("finished");
    }
    store.begin_execution(&begun(4, environment.id)).await.expect("begun");
    assert_eq!(store.forget_executions(WallTime(1005)).await.expect("forgot"), 0, "the bound is not before itself");
    assert_eq!(store.forget_executions(WallTime(2006)).await.expect("forgot"), 2);
    let left: Vec<i64> =
        store.executions(environment.id, 10).await.expect("listed").iter().map(|call| call.started_at.0).collect();
    assert_eq!(left, [4, 3], "what runs, and what ended later, is kept");
    let read = store.environment(environment.id).await.expect("read").expect("present");
    assert_eq!(read.execution_count, 4, "forgetting does not uncount");
}

async fn concurrent_writers_lose_nothing<S: Store + 'static>(store: Arc<S>) {
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    let calls = (1..=64).map(|seed| {
        let (store, id) = (Arc::clone(&store), environment.id);
        async move {
            let call = begun(seed, id);
            store.begin_execution(&call).await.expect("begun");
            let seen = store.environment(id).await.expect("read").expect("present");
            assert!(seen.execution_count >= 1, "a writer reads its own writes");
            store.finish_execution(&finished(&call, 1)).await.expect("finished");
        }
    });
    join_all(calls).await;
    let read = store.environment(environment.id).await.expect("read").expect("present");
    assert_eq!(read.execution_count, 64);
    let ids: BTreeSet<_> =
        store.executions(environment.id, 100).await.expect("listed").iter().map(|call| call.id).collect();
    assert_eq!(ids.len(), 64);
}

async fn a_tenants_environments_are_listed_apart(store: &dyn Store) {
    for seed in 1..=6 {
        store.insert_environment(&environment(seed), &Quotas::default()).await.expect("inserted");
    }
    let acme = "acme".parse().expect("a name");
    assert_eq!(store.environments_of(&acme).await.expect("listed"), [environment(6), environment(3)]);
    assert_eq!(store.environments_of(&TenantName::operator()).await.expect("listed").len(), 4);
    assert_eq!(store.environments_of(&"nobody".parse().expect("a name")).await.expect("listed"), []);
}

async fn no_two_writers_pass_a_quota_together<S: Store + 'static>(store: Arc<S>) {
    let quotas = Quotas { environments: Some(5), storage_bytes: Some(30_000), ..Quotas::default() };
    let is_over = |error: StoreError, wanted: Quota| match error {
        StoreError::Exceeded(exceeded) => assert_eq!(exceeded.quota, wanted),
        other => panic!("{other}"),
    };
    // Every third one is another tenant's, and counts against that one's.
    let inserted = (1..=12).map(|seed| {
        let store = Arc::clone(&store);
        async move { store.insert_environment(&environment(seed), &quotas).await }
    });
    let refused: Vec<StoreError> = join_all(inserted).await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 3, "five of eight, and four of four");
    refused.into_iter().for_each(|error| is_over(error, Quota::Environments));
    let left: Vec<Environment> = store.environments_of(&TenantName::operator()).await.expect("listed");
    assert_eq!(left.len(), 5);

    let claimed = left.iter().map(|environment| {
        let (store, id) = (Arc::clone(&store), environment.id);
        async move { store.claim_storage(id, 8192, &quotas).await }
    });
    let refused: Vec<StoreError> = join_all(claimed).await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 2, "three times 8192 are within 30000");
    refused.into_iter().for_each(|error| is_over(error, Quota::Storage));
    let others = environment(3).id;
    store.claim_storage(others, 30_000, &quotas).await.expect("another tenant's bytes are its own");
    store.claim_storage(others, 20_000, &quotas).await.expect("its own former claim does not count");
    store.claim_storage(EnvironmentId(Uuid::from_u128(404)), 1, &quotas).await.expect("no error");
}
