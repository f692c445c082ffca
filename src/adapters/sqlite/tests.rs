//! The store's contract on SQLite, and what is SQLite's own: the file, its faults, and futures dropped mid-way.

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use uuid::Uuid;

use super::failure::Failure;
use super::*;
use crate::domain::environment::{Grant, Isolation, Metadata, Permissions, Runtime};
use crate::domain::id::ExecutionId;
use crate::domain::quota::{Allowance, Charge, EnvironmentLimits};
use crate::domain::tenant::{Tenant, Token, TokenId};
use crate::ports::call_book::CallBook;
use crate::ports::tenant_store::{Holding, TenantStore};

#[path = "../store_contract.rs"]
mod contract;

use contract::finished;
pub(super) use contract::{begun, environment};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cloister.db");
    (directory, path)
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, 2).await.expect("the store opens")
}

/// The text of the error, its source's included, with the file's path taken out.
async fn refusal(path: &Path) -> String {
    let error = SqliteStore::open(path, 2).await.expect_err("the store is refused");
    let cause = error.source().expect("a cause").to_string();
    format!("{error}: {cause}").replace(&path.display().to_string(), "PATH")
}

/// The contract's stores need a directory that lives as long as they do.
pub(super) struct Housed {
    store: SqliteStore,
    _directory: TempDir,
}

/// An empty store with its directory.
pub(super) async fn housed() -> Housed {
    let (directory, path) = place();
    Housed { store: open(&path).await, _directory: directory }
}

impl Housed {
    /// The same store as what changes.
    pub(super) fn revisions(&self) -> &dyn crate::ports::revisions::Revisions {
        &self.store
    }

    /// The same store as a call book.
    pub(super) fn book(&self) -> &dyn CallBook {
        &self.store
    }
}

#[async_trait]
impl Store for Housed {
    async fn insert_environment(&self, environment: &Environment, quotas: &Quotas) -> Result<(), StoreError> {
        self.store.insert_environment(environment, quotas).await
    }
    async fn claim_storage(&self, id: EnvironmentId, bytes: u64, quotas: &Quotas) -> Result<(), StoreError> {
        self.store.claim_storage(id, bytes, quotas).await
    }
    async fn environments_of(&self, tenant: &TenantName) -> Result<Vec<Environment>, StoreError> {
        self.store.environments_of(tenant).await
    }
    async fn try_write(&self) -> Result<(), StoreError> {
        self.store.try_write().await
    }
    async fn set_status(&self, id: EnvironmentId, status: EnvironmentStatus) -> Result<bool, StoreError> {
        self.store.set_status(id, status).await
    }
    async fn environment(&self, id: EnvironmentId) -> Result<Option<Environment>, StoreError> {
        self.store.environment(id).await
    }
    async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        self.store.environments().await
    }
    async fn delete_environment(&self, id: EnvironmentId) -> Result<bool, StoreError> {
        self.store.delete_environment(id).await
    }
    async fn begin_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        self.store.begin_execution(record).await
    }
    async fn finish_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        self.store.finish_execution(record).await
    }
    async fn close_unfinished(&self, now: WallTime) -> Result<u64, StoreError> {
        self.store.close_unfinished(now).await
    }
    async fn executions(&self, environment: EnvironmentId, limit: u32) -> Result<Vec<ExecutionRecord>, StoreError> {
        self.store.executions(environment, limit).await
    }
    async fn forget_executions(&self, before: WallTime) -> Result<u64, StoreError> {
        self.store.forget_executions(before).await
    }
}

#[tokio::test]
async fn the_contract_holds() {
    contract::hold(async || {
        let (directory, path) = place();
        Housed { store: open(&path).await, _directory: directory }
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_can_read_the_file_and_its_log() {
    let (directory, path) = place();
    std::fs::write(&path, "").expect("an empty file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("readable by all");
    let store = open(&path).await;
    store.insert_environment(&environment(1), &Quotas::default()).await.expect("inserted");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path()).expect("listed").flatten() {
        assert_eq!(entry.metadata().expect("metadata").permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        names.push(entry.file_name());
    }
    assert!(names.len() >= 2, "the log lies beside the file: {names:?}");
}

#[tokio::test]
async fn what_was_written_survives_without_a_close() {
    let (_directory, path) = place();
    let written = environment(1);
    let store = open(&path).await;
    store.insert_environment(&written, &Quotas::default()).await.expect("inserted");
    drop(store);
    let again = open(&path).await;
    assert_eq!(again.environment(written.id).await.expect("read"), Some(written));
    again.close().await;
    assert!(!path.with_extension("db-wal").exists(), "a close folds the log into the file");
    let error = again.environments().await.expect_err("it is closed");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("it is closed: the daemon is stopping"));
}

#[tokio::test]
async fn a_future_dropped_mid_way_leaves_all_or_nothing_and_a_working_writer() {
    let (_directory, path) = place();
    let store = open(&path).await;
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    for seed in 1..=200u64 {
        let patience = Duration::from_micros(seed * 7 % 500);
        let _ = tokio::time::timeout(patience, store.begin_execution(&begun(seed, environment.id))).await;
    }
    let call = begun(1000, environment.id);
    store.begin_execution(&call).await.expect("the writer works");
    let read = store.environment(environment.id).await.expect("read").expect("present");
    let rows = store.executions(environment.id, 1000).await.expect("listed");
    assert_eq!(read.execution_count, rows.len() as u64, "no call without its count, no count without its call");
    drop(store);
    let again = open(&path).await;
    assert_eq!(again.executions(environment.id, 1000).await.expect("listed"), rows);
}

#[tokio::test]
async fn more_calls_than_one_batch_are_forgotten() {
    let (_directory, path) = place();
    let store = open(&path).await;
    let environment = environment(1);
    store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
    sqlx::query(
        "INSERT INTO executions (id, environment_id, started_at, completed_at)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
         SELECT 'call-' || i, ?1, i, i FROM n",
    )
    .bind(environment.id.to_string())
    .execute(&store.writer)
    .await
    .expect("filled");
    assert_eq!(store.forget_executions(WallTime(1101)).await.expect("forgot"), 1100);
}

#[tokio::test]
async fn a_readers_connection_cannot_write() {
    let (_directory, path) = place();
    let store = open(&path).await;
    let done = sqlx::query("DELETE FROM environments").execute(&store.readers).await;
    assert!(matches!(done.map_err(Failure::from), Err(Failure::ReadOnly)));
}

#[tokio::test]
async fn a_full_disk_is_named_and_survived() {
    let (_directory, path) = place();
    let store = open(&path).await;
    let [small, another, large] = [1, 2, 3].map(environment);
    store.insert_environment(&small, &Quotas::default()).await.expect("inserted");
    for connection in [&store.writer, &store.ledger] {
        sqlx::query("PRAGMA max_page_count = 40").execute(connection).await.expect("limited");
    }
    let mut call = begun(1, small.id);
    call.stdout = Some("x".repeat(1 << 20));
    let error = store.begin_execution(&call).await.expect_err("it does not fit");
    assert_eq!(error.to_string(), "the store cannot record the beginning of a call");
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("the disk is full; free some space on its file system")
    );
    call.stdout = None;
    store.begin_execution(&call).await.expect("small writes go on");
    store.finish_execution(&finished(&call, 1)).await.expect("finished");

    let large = Environment { main_module: "x".repeat(1 << 20), ..large };
    let error = store.insert_environment(&large, &Quotas::default()).await.expect_err("it does not fit");
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("the disk is full; free some space on its file system")
    );
    store.insert_environment(&another, &Quotas::default()).await.expect("small ones go on");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_says_what_to_do() {
    let (directory, path) = place();

    std::fs::write(&path, "this is not a database, it only looks like a file ".repeat(100)).expect("written");
    insta::assert_snapshot!(refusal(&path).await, @"the store cannot be opened at PATH: it is not an SQLite database; set store.path elsewhere, or move the file away to start with an empty store");

    let missing = directory.path().join("no/such/cloister.db");
    let text = refusal(&missing).await.replace(&directory.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @"the store cannot be opened at PATH: its directory DIR/no/such does not exist; create it, or set store.path or daemon.state_dir");

    insta::assert_snapshot!(refusal(directory.path()).await, @"the store cannot be opened at PATH: it is a directory; set store.path to a file");

    let damaged = directory.path().join("damaged.db");
    let store = open(&damaged).await;
    for seed in 1..100 {
        store.insert_environment(&environment(seed), &Quotas::default()).await.expect("inserted");
    }
    store.close().await;
    let mut bytes = std::fs::read(&damaged).expect("read");
    let length = bytes.len();
    bytes[4096..length].fill(0x5a);
    std::fs::write(&damaged, bytes).expect("written");
    insta::assert_snapshot!(refusal(&damaged).await, @"the store cannot be opened at PATH: it is damaged; restore a copy, or move it and its -wal file away to start with an empty store");
}

#[tokio::test]
async fn tenants_tokens_and_cpu_time_come_back_as_they_were_written() {
    let (_directory, path) = place();
    let store = open(&path).await;
    let allowance = Allowance { rate: Some(0.5), storage_mib: Some(7), ..Allowance::default() };
    let tenant = |allowance| Tenant { name: "acme".parse().unwrap(), created_at: WallTime(5), allowance };
    store.write_tenant(&tenant(Allowance::default())).await.expect("written");
    store.write_tenant(&tenant(allowance)).await.expect("changed");
    let token = Token {
        id: TokenId::of_bits(7),
        tenant: "acme".parse().unwrap(),
        scopes: "execute,jobs:submit".parse().unwrap(),
        created_at: WallTime(6),
        expires_at: Some(WallTime(9)),
    };
    store.insert_token(&token, &[7; 32]).await.expect("inserted");
    assert!(store.insert_token(&token, &[8; 32]).await.is_err(), "an id is taken once");
    let orphan = Token { id: TokenId::of_bits(8), tenant: "nobody".parse().unwrap(), ..token.clone() };
    assert!(store.insert_token(&orphan, &[8; 32]).await.is_err(), "a token is some tenant's");
    let charge = |day, millis| Charge { tenant: "acme".parse().unwrap(), day, cpu: Duration::from_millis(millis) };
    store.add_cpu(&[charge(3, 1_500), charge(4, 10)]).await.expect("added");
    store.add_cpu(&[charge(3, 600)]).await.expect("added");
    store.insert_environment(&environment(3), &Quotas::default()).await.expect("inserted");
    store.claim_storage(environment(3).id, 4096, &Quotas::default()).await.expect("claimed");
    store.close().await;

    let store = open(&path).await;
    assert_eq!(store.tenants().await.expect("listed"), [tenant(allowance)]);
    assert_eq!(store.tokens().await.expect("listed"), [(token.clone(), [7; 32])]);
    assert_eq!(store.cpu_of(3).await.expect("read"), [charge(3, 2_100)]);
    let holding = Holding { tenant: "acme".parse().unwrap(), environments: 1, bytes: 4096 };
    assert_eq!(store.holdings().await.expect("added up"), [holding]);
    store.add_cpu(&[charge(40, 1)]).await.expect("added");
    assert_eq!(store.cpu_of(3).await.expect("read"), [], "long over");
    assert!(store.delete_token(&token.id).await.expect("deleted"));
    assert!(!store.delete_token(&token.id).await.expect("again"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = place();
    let store = open(&path).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (7000, 'from the future', 1, x'00', 0)",
    )
    .execute(&store.writer)
    .await
    .expect("a later version's mark");
    store.close().await;
    let latest = open::MIGRATIONS.iter().map(|(version, ..)| *version).max().expect("a version");
    let told = refusal(&path).await.replace(&format!("up to {latest};"), "up to LATEST;");
    insta::assert_snapshot!(told, @"the store cannot be opened at PATH: its schema is at version 7000, and this program knows versions up to LATEST; install a newer one");
}

#[tokio::test]
async fn a_row_written_by_foreign_hands_is_named() {
    let (_directory, path) = place();
    let store = open(&path).await;
    store.insert_environment(&environment(1), &Quotas::default()).await.expect("inserted");
    sqlx::query("UPDATE environments SET runtime = 'perl'").execute(&store.writer).await.expect("spoiled");
    let error = store.environments().await.expect_err("unreadable");
    assert_eq!(error.to_string(), "the store holds a runtime that cannot be read: \"perl\"");
}

fn any_environment() -> impl Strategy<Value = Environment> {
    let grant = || {
        proptest::option::of(prop_oneof![
            any::<bool>().prop_map(Grant::Switch),
            proptest::collection::vec(".{0,12}", 0..4).prop_map(Grant::Only)
        ])
    };
    let runtime = || prop_oneof![Just(Runtime::Deno), Just(Runtime::Bun)];
    let status = prop_oneof![
        Just(EnvironmentStatus::SettingUp),
        Just(EnvironmentStatus::Ready),
        Just(EnvironmentStatus::Deleting)
    ];
    let times = (any::<i64>(), proptest::option::of(any::<i64>()));
    let counts = (0..=i64::MAX as u64, 0..=i64::MAX as u64, any::<usize>(), any::<bool>());
    (any::<u128>(), ".{0,40}", (runtime(), runtime()), times, status, (grant(), grant()), counts).prop_map(
        |(id, main_module, runtimes, times, status, grants, counts)| Environment {
            id: EnvironmentId(Uuid::from_u128(id)),
            tenant: if counts.3 { TenantName::operator() } else { "acme".parse().expect("a name") },
            volume_name: EnvironmentId(Uuid::from_u128(id)).volume_name(),
            main_module,
            runtime: runtimes.0,
            created_at: WallTime(times.0),
            last_executed_at: times.1.map(WallTime),
            execution_count: counts.0,
            status,
            metadata: Metadata {
                permissions: Permissions { allow_net: grants.0, allow_read: grants.1, ..Permissions::default() },
                secrets: Vec::new(),
                module_count: counts.2,
                dependency_count: counts.2,
                has_dependencies: counts.3,
                runtime: runtimes.1,
                isolation: if counts.3 { Isolation::Environment } else { Isolation::Call },
            },
            ttl_seconds: counts.1,
            limits: EnvironmentLimits { concurrency: counts.3.then_some(7), rate: None },
            revision: 1,
        },
    )
}

fn any_call() -> impl Strategy<Value = ExecutionRecord> {
    let text = || proptest::option::of("(?s).{0,60}");
    let number = proptest::option::of(any::<i64>());
    (any::<u128>(), any::<i64>(), number, any::<Option<i32>>(), (text(), text(), text()), any::<Option<i64>>())
        .prop_map(|(id, started_at, completed_at, exit_code, texts, duration_ms)| ExecutionRecord {
            id: ExecutionId(Uuid::from_u128(id)),
            environment: EnvironmentId(Uuid::nil()),
            started_at: WallTime(started_at),
            completed_at: completed_at.map(WallTime),
            exit_code,
            stdout: texts.0,
            stderr: texts.1,
            duration_ms,
            outcome: texts.2,
        })
}

#[test]
fn every_record_comes_back_as_it_was_written() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_directory, path) = place();
    let store = runtime.block_on(open(&path));
    let cases = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(cases)
        .run(&(any_environment(), any_call()), |(environment, call)| {
            runtime.block_on(async {
                store.insert_environment(&environment, &Quotas::default()).await.expect("inserted");
                let read = store.environment(environment.id).await.expect("read");
                prop_assert_eq!(read.as_ref(), Some(&environment));
                if environment.execution_count < i64::MAX as u64 {
                    let call = ExecutionRecord { environment: environment.id, ..call };
                    let begun = ExecutionRecord { completed_at: None, stdout: None, ..call.clone() };
                    store.begin_execution(&begun).await.expect("begun");
                    store.finish_execution(&call).await.expect("finished");
                    prop_assert_eq!(store.executions(environment.id, 5).await.expect("listed"), vec![call]);
                }
                store.delete_environment(environment.id).await.expect("deleted");
                Ok(())
            })
        })
        .expect("the property holds");
}
