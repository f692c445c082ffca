//! Files in and out: `/view` and `/upload/image`.

use std::collections::HashMap;
use std::path::Path;

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use actix_web::web::{self, Bytes, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde_json::json;

use super::multipart::{self, Field};
use super::{json as answer, trouble};
use crate::files::{media, png};
use crate::server::Server;

pub fn routes(service: &mut ServiceConfig) {
    service
        .service(web::resource("/view").route(web::get().to(view)).route(web::head().to(view)))
        .route("/upload/image", web::post().to(upload));
}

async fn view(server: Data<Server>, request: HttpRequest, query: Query<HashMap<String, String>>) -> impl Responder {
    let get = |name: &str| query.get(name).map_or("", String::as_str);
    let Some(filename) = query.get("filename") else { return HttpResponse::NotFound().finish() };
    let kind = query.get("type").map_or("output", String::as_str);
    let Some(root) = server.arguments.folder(kind) else { return HttpResponse::BadRequest().finish() };
    if filename.starts_with('/') || filename.contains("..") {
        return HttpResponse::BadRequest().finish();
    }
    if leaves(get("subfolder")) {
        return HttpResponse::Forbidden().finish();
    }
    let name = Path::new(filename).file_name().unwrap_or_default();
    let Ok(bytes) = std::fs::read(root.join(get("subfolder")).join(name)) else {
        return HttpResponse::NotFound().finish();
    };
    let disposition = (CONTENT_DISPOSITION, format!("filename=\"{}\"", name.display()));
    let size = png::size(&bytes);
    if let Some((width, height)) = size.filter(|_| query.contains_key("preview")) {
        let body = media::webp(width, height);
        return HttpResponse::Ok().insert_header(disposition).insert_header((CONTENT_TYPE, "image/webp")).body(body);
    }
    if size.is_some() && query.contains_key("channel") {
        return HttpResponse::Ok().insert_header(disposition).insert_header((CONTENT_TYPE, "image/png")).body(bytes);
    }
    let (mut answer, bytes) = match range(&request, bytes.len()) {
        Some((from, to)) => {
            let mut partial = HttpResponse::PartialContent();
            partial.insert_header((CONTENT_RANGE, format!("bytes {from}-{}/{}", to - 1, bytes.len())));
            (partial, bytes[from..to].to_vec())
        }
        None => (HttpResponse::Ok(), bytes),
    };
    answer.insert_header(disposition).insert_header((CONTENT_TYPE, mime(filename)));
    answer.insert_header(("X-Content-Type-Options", "nosniff")).insert_header(("Accept-Ranges", "bytes"));
    answer.body(bytes)
}

/// `bytes=from-to`, as a half-open range within the file.
fn range(request: &HttpRequest, length: usize) -> Option<(usize, usize)> {
    let (from, to) = request.headers().get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse().ok()?;
    let to = to.parse::<usize>().map_or(length, |last| (last + 1).min(length));
    (from < to).then_some((from, to))
}

fn mime(filename: &str) -> &'static str {
    match filename.rsplit('.').next() {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("mp4") => "video/mp4",
        Some("webm") => "video/webm",
        Some("flac") => "audio/flac",
        _ => "application/octet-stream",
    }
}

fn leaves(subfolder: &str) -> bool {
    subfolder.starts_with('/') || subfolder.split('/').any(|part| part == "..")
}

async fn upload(server: Data<Server>, request: HttpRequest, body: Bytes) -> impl Responder {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fields = multipart::fields(content_type, &body).unwrap_or_default();
    let text = |name: &str| {
        let field = fields.iter().find(|field| field.name == name)?;
        Some(String::from_utf8_lossy(field.data).into_owned())
    };
    let image = fields.iter().find(|field| field.name == "image");
    let Some((image, filename)) = image.and_then(|image| Some((image, image.filename.clone()?))) else {
        return HttpResponse::BadRequest().finish();
    };
    let kind = text("type").unwrap_or_else(|| "input".to_owned());
    let subfolder = text("subfolder").unwrap_or_default();
    let Some(root) = server.arguments.folder(&kind) else { return trouble() };
    if leaves(&subfolder) || leaves(&filename) {
        return HttpResponse::BadRequest().finish();
    }
    let overwrite = text("overwrite").is_some_and(|text| text == "true" || text == "1");
    match store(&root.join(&subfolder), &filename, image, overwrite) {
        Ok(name) => answer(&json!({"name": name, "subfolder": subfolder, "type": kind})),
        Err(_) => trouble(),
    }
}

/// Under its own name, or, when that is taken by other bytes, under the next free `name (n).ending`.
fn store(folder: &Path, filename: &str, image: &Field<'_>, overwrite: bool) -> std::io::Result<String> {
    std::fs::create_dir_all(folder)?;
    let (stem, ending) =
        filename.rsplit_once('.').map_or((filename, String::new()), |(stem, end)| (stem, format!(".{end}")));
    let numbered = (1..).map(|number| format!("{stem} ({number}){ending}"));
    for name in std::iter::once(filename.to_owned()).chain(numbered) {
        match std::fs::read(folder.join(&name)) {
            Ok(there) if there == image.data => return Ok(name),
            Ok(_) if !overwrite => {}
            _ => {
                std::fs::write(folder.join(&name), image.data)?;
                return Ok(name);
            }
        }
    }
    Ok(filename.to_owned())
}
