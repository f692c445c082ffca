//! A pool that answers as it is told to, a store in memory, a log that can be read, and short ways to ask.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use actix_web::body::to_bytes;
use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, init_service, try_call_service};
use async_trait::async_trait;
use slog::Drain as _;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::adapters::tenants::TenantRegistry;
use crate::adapters::tenants::tests::registry;
use crate::api::access::Tokens;
use crate::api::{Access, Doors, Handles, Intake, server};
use crate::domain::environment::{Environment, EnvironmentStatus, SetUpRequest};
use crate::domain::execution::{
    Call, Captured, ErrorReport, ExecutionRecord, ExecutionReport, FilesForm, LimitPolicy, Limits, LogEntry, Outcome,
    Said, Start, Timings,
};
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::pool::PoolPicture;
use crate::domain::quota::Quotas;
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::messages::sandbox_pool::{
    CancelExecution, DeleteEnvironment, DeleteError, Execute, ExecuteError, GetPool, SetUp, SetUpError,
};
use crate::ports::clock::Clock;
use crate::ports::store::{Store, StoreError};

pub const TOKEN: &str = "correct-horse";
pub const BEARER: (&str, &str) = ("Authorization", "Bearer correct-horse");
/// 2023-11-14T22:13:20.123Z.
pub const NOW: WallTime = WallTime(1_700_000_000_123);

/// What the pool has been told.
pub enum Told {
    SetUp(SetUpRequest),
    Execute(Call),
    Cancel(ExecutionId),
    Delete(EnvironmentId),
}

type Script<A, T> = Option<Box<dyn Fn(A) -> T + Send>>;

/// Answers by script; without one, as a healthy pool would.
#[derive(Default)]
pub struct Scripts {
    pub set_up: Script<EnvironmentId, Result<Environment, SetUpError>>,
    pub execute: Script<Call, Result<ExecutionReport, ExecuteError>>,
    pub delete: Script<EnvironmentId, Result<(), DeleteError>>,
    /// What a call says to whoever follows it.
    pub says: Vec<Said>,
    /// A call's answer waits for this.
    pub hold: Option<Arc<Notify>>,
}

struct Pool {
    scripts: Scripts,
    told: mpsc::UnboundedSender<Told>,
}

impl Actor for Pool {
    type Context = Context<Self>;
}

impl Handler<SetUp> for Pool {
    type Result = Result<Environment, SetUpError>;

    fn handle(&mut self, message: SetUp, _: &mut Self::Context) -> Self::Result {
        let _ = self.told.send(Told::SetUp(message.request.clone()));
        if let Some(script) = &self.scripts.set_up {
            return script(message.id);
        }
        message.request.validate()?;
        let mut environment = message.request.environment(message.id, message.tenant, NOW);
        environment.status = EnvironmentStatus::Ready;
        Ok(environment)
    }
}

impl Handler<Execute> for Pool {
    type Result = ResponseFuture<Result<ExecutionReport, ExecuteError>>;

    fn handle(&mut self, message: Execute, _: &mut Self::Context) -> Self::Result {
        let _ = self.told.send(Told::Execute(message.call.clone()));
        if let Some(follower) = message.following {
            self.scripts.says.iter().cloned().for_each(|said| follower.hear(said));
        }
        let answer = match &self.scripts.execute {
            Some(script) => script(message.call),
            None => Ok(report(message.call.execution)),
        };
        let hold = self.scripts.hold.clone();
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.notified().await;
            }
            answer
        })
    }
}

impl Handler<CancelExecution> for Pool {
    type Result = ();

    fn handle(&mut self, message: CancelExecution, _: &mut Self::Context) {
        let _ = self.told.send(Told::Cancel(message.execution));
    }
}

impl Handler<DeleteEnvironment> for Pool {
    type Result = Result<(), DeleteError>;

    fn handle(&mut self, message: DeleteEnvironment, _: &mut Self::Context) -> Self::Result {
        let _ = self.told.send(Told::Delete(message.id));
        self.scripts.delete.as_ref().map_or(Ok(()), |script| script(message.id))
    }
}

impl Handler<GetPool> for Pool {
    type Result = MessageResult<GetPool>;

    fn handle(&mut self, _: GetPool, _: &mut Self::Context) -> Self::Result {
        MessageResult(PoolPicture { running: 3, ..PoolPicture::default() })
    }
}

/// A call that went well.
pub fn report(execution: ExecutionId) -> ExecutionReport {
    ExecutionReport {
        execution,
        outcome: Outcome::Ok,
        phase: None,
        result: Some(r#"{"sum":3}"#.to_owned()),
        error: None,
        stdout: Captured::default(),
        stderr: Captured::default(),
        logs: vec![LogEntry { level: "log".into(), message: "hello".into(), timestamp: 1_700_000_000_000.0 }],
        files: Vec::new(),
        files_form: FilesForm::None,
        timings: Timings { queue_ms: 0.5, claim_ms: 210.25, handler_ms: 3.125, total_ms: 213.875 },
        peak_memory_bytes: 12 << 20,
        cpu: Duration::from_micros(4_200),
        start: Start::Cold,
        limits: Limits { timeout: Duration::from_secs(5), memory_mb: 128 },
        isolated: true,
    }
}

/// A call that threw.
pub fn thrown(execution: ExecutionId) -> ExecutionReport {
    let error = ErrorReport { name: "TypeError".into(), message: "x is not a function".into(), stack: String::new() };
    ExecutionReport { outcome: Outcome::HandlerError, result: None, error: Some(error), ..report(execution) }
}

/// Environments in memory, or a store that fails.
#[derive(Default)]
pub struct FakeStore {
    pub environments: Vec<Environment>,
    pub broken: bool,
    pub panics: bool,
}

impl FakeStore {
    fn check(&self, action: &'static str) -> Result<(), StoreError> {
        assert!(!self.panics, "canary");
        let source = "disk I/O error".into();
        if self.broken { Err(StoreError::Query { action, source }) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn insert_environment(&self, _: &Environment, _: &Quotas) -> Result<(), StoreError> {
        unreachable!("a door never writes")
    }
    async fn claim_storage(&self, _: EnvironmentId, _: u64, _: &Quotas) -> Result<(), StoreError> {
        unreachable!("a door never writes")
    }
    async fn try_write(&self) -> Result<(), StoreError> {
        unreachable!("a door never writes")
    }
    async fn set_status(&self, _: EnvironmentId, _: EnvironmentStatus) -> Result<bool, StoreError> {
        unreachable!("a door never writes")
    }
    async fn environment(&self, id: EnvironmentId) -> Result<Option<Environment>, StoreError> {
        self.check("read the environment")?;
        Ok(self.environments.iter().find(|environment| environment.id == id).cloned())
    }
    async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        unreachable!("a door lists one tenant's only")
    }
    async fn environments_of(&self, tenant: &TenantName) -> Result<Vec<Environment>, StoreError> {
        self.check("list the environments")?;
        Ok(self.environments.iter().filter(|environment| environment.tenant == *tenant).cloned().collect())
    }
    async fn delete_environment(&self, _: EnvironmentId) -> Result<bool, StoreError> {
        unreachable!("a door never writes")
    }
    async fn begin_execution(&self, _: &ExecutionRecord) -> Result<(), StoreError> {
        unreachable!("a door never writes")
    }
    async fn finish_execution(&self, _: &ExecutionRecord) -> Result<(), StoreError> {
        unreachable!("a door never writes")
    }
    async fn close_unfinished(&self, _: WallTime) -> Result<u64, StoreError> {
        unreachable!("a door never writes")
    }
    async fn executions(&self, _: EnvironmentId, _: u32) -> Result<Vec<ExecutionRecord>, StoreError> {
        Ok(Vec::new())
    }
    async fn forget_executions(&self, _: WallTime) -> Result<u64, StoreError> {
        unreachable!("a door never writes")
    }
}

struct StillClock;

impl Clock for StillClock {
    fn uptime(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn wall(&self) -> WallTime {
        NOW
    }
}

/// A log whose lines can be read.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A house with doors, and what can be seen of it.
pub struct House {
    pub doors: Arc<Doors>,
    pub told: mpsc::UnboundedReceiver<Told>,
    pub log: Lines,
}

/// What is different from an ordinary house.
pub struct Plan {
    pub scripts: Scripts,
    pub store: FakeStore,
    pub intake: Intake,
    pub open: bool,
    pub jobs: Option<Arc<crate::adapters::local_queue::LocalQueue>>,
    pub nobody: bool,
    pub tenants: Arc<TenantRegistry>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            scripts: Scripts::default(),
            store: FakeStore::default(),
            intake: Intake::default(),
            open: false,
            jobs: None,
            nobody: false,
            tenants: Arc::new(registry(Default::default(), Default::default())),
        }
    }
}

impl House {
    pub fn plain() -> Self {
        Self::build(Plan::default())
    }

    pub fn with(scripts: Scripts) -> Self {
        Self::build(Plan { scripts, ..Plan::default() })
    }

    pub fn build(plan: Plan) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let handles = Handles::default();
        if !plan.nobody {
            let pool = Pool { scripts: plan.scripts, told: sender }.start();
            handles.set_up.publish(&pool);
            handles.execute.publish(&pool);
            handles.cancel.publish(&pool);
            handles.delete.publish(&pool);
            handles.pool.publish(&pool);
        }
        if let Some(queue) = &plan.jobs {
            let jobs = super::jobs::JobsDouble(Arc::clone(queue)).start();
            handles.open.publish(&jobs);
            handles.submit.publish(&jobs);
            handles.cancel_job.publish(&jobs);
            handles.ingress.publish(&jobs);
        }
        let log = Lines::default();
        let drain = Mutex::new(slog_json::Json::default(log.clone())).fuse();
        let limits = |secs, memory_mb| Limits { timeout: Duration::from_secs(secs), memory_mb };
        let doors = Doors {
            handles,
            store: Arc::new(plan.store),
            tenants: plan.tenants,
            jobs: plan.jobs.clone().map(|queue| -> Arc<dyn crate::ports::job_queue::JobQueue> { queue }),
            clock: Arc::new(StillClock),
            gpus: None,
            limits: LimitPolicy { default: limits(5, 128), cap: limits(60, 512) },
            access: if plan.open { Access::Open } else { Access::Tokens(Tokens::new([TOKEN])) },
            intake: plan.intake,
            log: slog::Logger::root(drain, slog::o!()),
        };
        Self { doors: Arc::new(doors), told, log }
    }

    /// Asks with a token and, for a body, without a content type.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, body.as_bytes().to_vec(), &[BEARER]).await
    }

    pub async fn ask_with(&self, method: Method, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let app = init_service(server::app(Arc::clone(&self.doors))).await;
        let mut request = TestRequest::default().method(method).uri(path).set_payload(body);
        for header in headers {
            request = request.insert_header(*header);
        }
        match try_call_service(&app, request.to_request()).await {
            Ok(response) => Answer::of(response).await,
            Err(error) => {
                let response = error.error_response();
                let headers = names_and_values(response.headers());
                let status = response.status();
                Answer { status, headers, text: text_of(response.into_body()).await }
            }
        }
    }

    /// Everything that has been told so far.
    pub fn heard(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    async fn of(response: ServiceResponse) -> Self {
        let headers = names_and_values(response.headers());
        Self { status: response.status(), headers, text: text_of(response.into_body()).await }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Status, code and text of a refusal.
    pub fn refusal(&self) -> String {
        let body = self.json();
        let text = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
        format!("{} {}: {}", self.status.as_u16(), text("code"), text("error"))
    }
}

fn names_and_values(headers: &actix_web::http::header::HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

async fn text_of(body: actix_web::body::BoxBody) -> String {
    let bytes = to_bytes(body).await.unwrap_or_default();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn any_environment() -> EnvironmentId {
    EnvironmentId(Uuid::from_u128(7))
}

pub fn execute_path() -> String {
    format!("/environments/{}/execute", any_environment())
}
