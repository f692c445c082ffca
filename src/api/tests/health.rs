//! The health socket: what it says, and whose socket it is.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use actix::prelude::*;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::harness::{House, Plan};
use crate::api::{DoorError, HealthDoor, health, serve_health};
use crate::domain::garbage::ReaperPicture;
use crate::domain::health::{HealthPicture, Part, PartState};
use crate::messages::comfy_process::{GetInstance, InstancePicture};
use crate::messages::handle::Handle;
use crate::messages::reaper::GetReaper;
use crate::messages::supervisor::GetHealth;
use crate::ports::gpu::{Gpu, GpuPicture, Gpus};

/// Answers with a picture; without one, never.
struct Supervisor(Option<HealthPicture>);

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<GetHealth> for Supervisor {
    type Result = ResponseFuture<HealthPicture>;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> Self::Result {
        match self.0.clone() {
            Some(picture) => Box::pin(std::future::ready(picture)),
            None => Box::pin(std::future::pending()),
        }
    }
}

impl Handler<GetReaper> for Supervisor {
    type Result = MessageResult<GetReaper>;

    fn handle(&mut self, _: GetReaper, _: &mut Self::Context) -> Self::Result {
        MessageResult(ReaperPicture { rounds: 4, ..ReaperPicture::default() })
    }
}

fn picture(live: bool, ready: bool) -> HealthPicture {
    let part = |name: &str, state, reasons: &[&str]| Part {
        name: name.into(),
        state,
        essential: true,
        restarts: 1,
        beat_age_ms: Some(12),
        reasons: reasons.iter().map(|&reason| reason.to_owned()).collect(),
    };
    let parts = if ready {
        vec![part("sandbox-pool", PartState::Running, &[]), part("crypto", PartState::Off, &["no key is set"])]
    } else {
        vec![
            part("sandbox-pool", PartState::CrashLoop, &["runsc is not found"]),
            part("reaper", PartState::Starting, &[]),
        ]
    };
    HealthPicture { live, ready, draining: false, warnings: vec![], parts }
}

fn house(supervisor: Option<Supervisor>) -> House {
    let house = House::build(Plan::default());
    if let Some(supervisor) = supervisor {
        let address = supervisor.start();
        house.doors.handles.health.publish(&address);
        house.doors.handles.reaper.publish(&address);
    }
    house
}

async fn ask(house: &House, path: &str) -> (u16, String) {
    let doors = web::Data::from(Arc::clone(&house.doors));
    let app = init_service(App::new().app_data(doors).configure(health::routes)).await;
    let response = call_service(&app, TestRequest::get().uri(path).to_request()).await;
    (response.status().as_u16(), String::from_utf8(read_body(response).await.to_vec()).unwrap())
}

#[actix_web::test]
async fn a_well_daemon_is_live_and_ready() {
    let house = house(Some(Supervisor(Some(picture(true, true)))));
    assert_eq!(ask(&house, "/livez").await, (200, r#"{"live":true,"reasons":[]}"#.to_owned()));
    assert_eq!(ask(&house, "/readyz").await, (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
    let (status, text) = ask(&house, "/healthz").await;
    assert_eq!(status, 200);
    let text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    insta::assert_snapshot!(text, @r#"{"version":"<version>","live":true,"ready":true,"draining":false,"warnings":[],"parts":[{"name":"sandbox-pool","state":"running","essential":true,"restarts":1,"beatAgeMs":12,"reasons":[]},{"name":"crypto","state":"off","essential":true,"restarts":1,"beatAgeMs":12,"reasons":["no key is set"]}],"pool":{"running":3,"queued":0,"booting":0,"standing":0,"warming":0,"destroying":0,"wedged":0,"setUps":0,"setUpsQueued":0,"executionsTotal":0},"reaper":{"rounds":4,"expiredEnvironments":0,"brokenRecords":0,"orphanVolumes":0,"orphanSlots":0,"packageSets":0,"reapedZombies":0,"forgottenExecutions":0,"lastFailures":[]},"tenants":{"tenants":1,"tokens":0,"calls":0,"refusedConcurrency":0,"refusedRate":0,"refusedCpu":0}}"#);
}

struct Comfy;

impl Actor for Comfy {
    type Context = Context<Self>;
}

impl Handler<GetInstance> for Comfy {
    type Result = InstancePicture;

    fn handle(&mut self, _: GetInstance, _: &mut Self::Context) -> InstancePicture {
        InstancePicture {
            name: "comfy-0".into(),
            state: "busy",
            device: Some("GPU-1".into()),
            port: 8188,
            jobs: 7,
            memory_mib: Some(900),
            job: Some("job-1".into()),
            complaints: Vec::new(),
        }
    }
}

struct OneGpu;

#[async_trait::async_trait]
impl Gpus for OneGpu {
    async fn look(&self) -> GpuPicture {
        GpuPicture::Gpus(vec![Gpu {
            index: 0,
            uuid: "GPU-1".into(),
            name: "Stub".into(),
            memory_total: Some(1000),
            memory_used: Some(10),
            temperature: Some(41),
            xid: Some(119),
            faults: 0,
            unfit: Some("XID 119 needs a reset".into()),
        }])
    }
}

#[actix_web::test]
async fn instances_and_gpus_are_told_where_gpu_work_is_done() {
    let mut house = house(Some(Supervisor(Some(picture(true, true)))));
    let doors = Arc::get_mut(&mut house.doors).unwrap();
    let (answering, absent) = (Handle::default(), Handle::default());
    answering.publish(&Comfy.start());
    doors.handles.instances = vec![answering, absent];
    doors.gpus = Some(Arc::new(OneGpu));
    let body: serde_json::Value = serde_json::from_str(&ask(&house, "/healthz").await.1).unwrap();
    insta::assert_snapshot!(body["instances"], @r#"[{"complaints":[],"device":"GPU-1","job":"job-1","jobs":7,"memoryMib":900,"name":"comfy-0","port":8188,"state":"busy"}]"#);
    insta::assert_snapshot!(body["gpus"], @r#"{"driver":"well","gpus":[{"index":0,"memoryTotal":1000,"memoryUsed":10,"name":"Stub","temperature":41,"unfit":"XID 119 needs a reset","uuid":"GPU-1","xid":119}]}"#);
}

#[actix_web::test]
async fn what_is_down_is_named_with_its_reason() {
    let house = house(Some(Supervisor(Some(picture(true, false)))));
    let reasons = r#"["sandbox-pool is in a crash loop: runsc is not found","reaper is starting"]"#;
    assert_eq!(ask(&house, "/livez").await, (200, format!(r#"{{"live":true,"reasons":{reasons}}}"#)));
    assert_eq!(ask(&house, "/readyz").await, (503, format!(r#"{{"ready":false,"reasons":{reasons}}}"#)));
    assert_eq!(ask(&house, "/healthz").await.0, 200);
    let dead = self::house(Some(Supervisor(Some(picture(false, false)))));
    assert_eq!((ask(&dead, "/livez").await.0, ask(&dead, "/healthz").await.0), (503, 503));
}

#[actix_web::test]
async fn a_supervisor_that_is_absent_or_hangs_means_not_live() {
    for house in [house(None), house(Some(Supervisor(None)))] {
        tokio::time::pause();
        let began = tokio_now();
        let said = r#""reasons":["the supervisor does not answer"]}"#;
        assert_eq!(ask(&house, "/livez").await, (503, format!(r#"{{"live":false,{said}"#)));
        assert_eq!(ask(&house, "/readyz").await, (503, format!(r#"{{"ready":false,{said}"#)));
        assert_eq!(ask(&house, "/healthz").await.0, 503);
        assert!(tokio_now() - began <= health::ANSWER_WITHIN * 3 + std::time::Duration::from_millis(10));
        tokio::time::resume();
    }
}

#[allow(clippy::disallowed_methods, reason = "the paused clock of this test")]
fn tokio_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

async fn get(path: &Path, route: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let request = format!("GET {route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[actix_web::test]
async fn the_socket_is_made_answers_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/health.sock");
    let house = house(Some(Supervisor(Some(picture(true, true)))));
    let door = serve_health(Arc::clone(&house.doors), &path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let handle = door.server.handle();
    let running = actix_web::rt::spawn(door.server);
    let text = get(&path, "/livez").await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("cache-control: no-store"), "{text}");
    let text = get(&path, "/nothing").await;
    assert!(text.starts_with("HTTP/1.1 404") && text.contains(r#""code":"not_found""#), "{text}");

    let second = serve_health(Arc::clone(&house.doors), &path).await.map(|_| ());
    assert!(matches!(second, Err(DoorError::AnotherDaemon(_))), "{second:?}");

    handle.stop(true).await;
    running.await.unwrap().unwrap();
    drop(door.file);
    assert!(!path.exists());
}

#[actix_web::test]
async fn a_dead_daemons_socket_is_replaced_and_anything_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("health.sock");
    drop(UnixListener::bind(&path).unwrap());
    let house = house(None);
    let first = serve_health(Arc::clone(&house.doors), &path).await.unwrap();
    let HealthDoor { server, file } = first;
    drop(server);
    // A later daemon took the name: the earlier one's end leaves it alone.
    std::fs::remove_file(&path).unwrap();
    let _later = UnixListener::bind(&path).unwrap();
    drop(file);
    assert!(path.exists());

    let other = folder.path().join("file");
    std::fs::write(&other, "x").unwrap();
    let refused = serve_health(Arc::clone(&house.doors), &other).await.map(|_| ());
    assert!(matches!(refused, Err(DoorError::NotASocket(_))), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "x");
}
