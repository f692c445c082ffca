//! The routes of the health socket.

use std::time::Duration;

use actix::Message;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::rt::time::timeout;
use actix_web::web::{self, Data, ServiceConfig};

use crate::api::answer;
use crate::api::dto::{ErrorBody, HealthBody, LiveBody, ReadyBody, health::reasons};
use crate::api::environments::only;
use crate::api::{Doors, Handles};
use crate::domain::health::HealthPicture;
use crate::messages::comfy_process::GetInstance;
use crate::messages::egress::GetEgress;
use crate::messages::handle::Handle;
use crate::messages::images::GetImages;
use crate::messages::reaper::GetReaper;
use crate::messages::sandbox_pool::GetPool;
use crate::messages::supervisor::GetHealth;
use crate::ports::gpu::{GpuPicture, Gpus};

/// An actor that has not answered after this long counts as hung.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/livez").get(livez).default_service(only("GET")))
        .service(web::resource("/readyz").get(readyz).default_service(only("GET")))
        .service(web::resource("/healthz").get(healthz).default_service(only("GET")));
}

async fn livez(doors: Data<Doors>) -> HttpResponse {
    let body = match picture(&doors.handles).await {
        Ok(picture) => LiveBody { live: picture.live, reasons: reasons(&picture) },
        Err(reason) => LiveBody { live: false, reasons: vec![reason.to_owned()] },
    };
    sealed(good_if(body.live), &body)
}

async fn readyz(doors: Data<Doors>) -> HttpResponse {
    let body = match picture(&doors.handles).await {
        Ok(picture) => ReadyBody { ready: picture.ready, reasons: reasons(&picture), warnings: picture.warnings },
        Err(reason) => ReadyBody { ready: false, reasons: vec![reason.to_owned()], warnings: Vec::new() },
    };
    sealed(good_if(body.ready), &body)
}

/// 503 only when the daemon is not live: what is not ready is told in the body.
async fn healthz(doors: Data<Doors>) -> HttpResponse {
    let handles = &doors.handles;
    let instances = handles.instances.iter().map(|instance| answered(instance, GetInstance));
    let sandboxes = futures_util::future::join4(
        answered(&handles.pool, GetPool),
        answered(&handles.reaper, GetReaper),
        answered(&handles.egress, GetEgress),
        answered(&handles.images, GetImages),
    );
    let asked = futures_util::future::join4(
        picture(handles),
        sandboxes,
        futures_util::future::join_all(instances),
        gpus(doors.gpus.as_deref()),
    );
    let (picture, (pool, reaper, egress, images), instances, gpus) = asked.await;
    match picture {
        Ok(picture) => {
            let instances = instances.into_iter().flatten().collect();
            let body = HealthBody::new(picture, pool, reaper)
                .with_egress(egress)
                .with_tenants(doors.tenants.picture())
                .with_images(images.unwrap_or_default())
                .with_gpu_work(instances, gpus);
            sealed(good_if(body.live), &body)
        }
        Err(reason) => {
            let body = ErrorBody { error: reason.to_owned(), code: Some("unavailable".to_owned()), details: None };
            sealed(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

async fn picture(handles: &Handles) -> Result<HealthPicture, &'static str> {
    answered(&handles.health, GetHealth).await.ok_or("the supervisor does not answer")
}

async fn gpus(gpus: Option<&dyn Gpus>) -> Option<GpuPicture> {
    timeout(ANSWER_WITHIN, gpus?.look()).await.ok()
}

async fn answered<M>(handle: &Handle<M>, question: M) -> Option<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    timeout(ANSWER_WITHIN, handle.ask(question)).await.ok()?.ok()
}

fn good_if(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn sealed<T: serde::Serialize>(status: StatusCode, body: &T) -> HttpResponse {
    let mut response = answer::json(status, body);
    answer::harden(response.headers_mut());
    response
}
