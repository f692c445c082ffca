//! What the server says about itself.

use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde_json::{Value, json};

use super::json as answer;
use crate::catalogue;
use crate::server::Server;

/// What `/features` and the WebSocket's hello say.
pub fn features(server: &Server) -> Value {
    json!({
        "supports_preview_metadata": true,
        "supports_model_type_tags": true,
        "max_upload_size": server.arguments.max_upload,
        "extension": {"manager": {"supports_v4": true}},
        "node_replacements": true,
        "assets": false,
    })
}

pub fn routes(service: &mut ServiceConfig) {
    service
        .service(web::resource("/system_stats").route(web::get().to(system_stats)).route(web::head().to(system_stats)))
        .route("/features", web::get().to(async |server: Data<Server>| answer(&features(&server))))
        .route("/embeddings", web::get().to(async || answer(&json!([]))))
        .route("/models", web::get().to(async || answer(&json!(["checkpoints", "loras", "vae"]))))
        .route("/extensions", web::get().to(async || answer(&json!([]))))
        .route("/users", web::get().to(async || answer(&json!({"storage": "server", "migrated": false}))))
        .route("/settings", web::get().to(async || answer(&json!({}))))
        .route("/object_info", web::get().to(async || answer(&json!(catalogue::all()))))
        .route("/object_info/{class}", web::get().to(object_info))
        .route("/", web::get().to(async || HttpResponse::Ok().content_type("text/html").body("<!doctype html>")));
}

async fn object_info(class: Path<String>) -> impl Responder {
    let class = class.into_inner();
    let found = catalogue::all().get(&class);
    answer(&found.map_or(json!({}), |info| json!({class: info})))
}

async fn system_stats(server: Data<Server>) -> impl Responder {
    let memory: u64 = 25_276_502_016;
    let device = json!({
        "name": "cpu", "type": "cpu", "index": null, "vram_total": memory, "vram_free": memory,
        "torch_vram_total": memory, "torch_vram_free": memory,
    });
    answer(&json!({
        "system": {
            "os": "linux", "ram_total": memory, "ram_free": memory, "comfyui_version": "0.33.0",
            "required_frontend_version": "1.49.6", "installed_templates_version": "0.11.44",
            "required_templates_version": "0.11.44", "comfy_package_versions": [],
            "python_version": "3.11.7", "pytorch_version": "2.11.0+cu130", "embedded_python": false,
            "deploy_environment": "local-git", "argv": server.arguments.all,
        },
        "devices": [device],
    }))
}
