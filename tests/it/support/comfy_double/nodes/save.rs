//! Nodes that write files, and the one that reads them.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::{Call, Data, Image, Ran, Stop};
use crate::files::{media, png};
use crate::progress::Picture;

/// What the previews of a node have in their names: five letters of this process and this node.
fn temp_prefix(node: &str) -> String {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let letters = SEED.hash_one(node).to_be_bytes().map(|byte| char::from(b'a' + byte % 26));
    format!("ComfyUI_temp_{}", letters[..5].iter().collect::<String>())
}

/// Everything called `Save…`, and `PreviewImage`.
pub fn save(call: &mut Call<'_, '_>) -> Result<Ran, Stop> {
    let image = call.image();
    let metadata = metadata(call);
    let picture = || png::flat(image.width, image.height, image.color, &metadata);
    match call.class {
        "SaveImageWebsocket" => {
            let count = u64::from(image.count);
            for step in 0..count {
                call.breathe()?;
                let picture = Picture { jpeg: false, bytes: Arc::from(picture()) };
                call.progress.step(call.node, step, count, Some(picture));
            }
            Ok(Ran::default())
        }
        "SaveImage" | "PreviewImage" => {
            let count = image.count as usize;
            let items = write(call, "_.png", &vec![picture(); count])?;
            Ok(Ran { outputs: vec![Data::from(image)], ui: Some(json!({"images": items})) })
        }
        "SaveAudio" => Ok(Ran::shown(json!({"audio": write(call, ".flac", &[media::flac()])?}))),
        "SaveLatent" => {
            let items = write(call, "_.latent", &[media::latent(&metadata)])?;
            Ok(Ran::shown(json!({"latents": items})))
        }
        class => {
            let (ending, bytes) = match class {
                "SaveWEBM" => ("_.webm", media::webm()),
                "SaveVideo" => ("_.mp4", media::mp4()),
                "SaveAnimatedPNG" => ("_.png", picture()),
                _ => ("_.webp", media::webp(image.width, image.height)),
            };
            Ok(Ran::shown(json!({"images": write(call, ending, &[bytes])?, "animated": [true]})))
        }
    }
}

/// The prompt, which the real one embeds in every file unless it is told not to.
fn metadata(call: &Call<'_, '_>) -> Vec<u8> {
    let wanted = !call.server().arguments.disable_metadata && call.class != "PreviewImage";
    if wanted { call.progress.job.posted.to_string().into_bytes() } else { Vec::new() }
}

/// Writes one file for each of `contents`, under the next free numbers, and lists them.
fn write(call: &Call<'_, '_>, ending: &str, contents: &[Vec<u8>]) -> Result<Vec<Value>, Stop> {
    let arguments = &call.server().arguments;
    let (kind, root, prefix) = match call.class {
        "PreviewImage" => ("temp", &arguments.temp, temp_prefix(call.node)),
        _ => ("output", &arguments.output, call.text("filename_prefix")),
    };
    let (subfolder, name) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
    let folder = beneath(root, subfolder)?;
    std::fs::create_dir_all(&folder).map_err(|error| os_error(&error, &folder))?;
    let first = next_number(&folder, name);
    let mut items = Vec::new();
    for (number, bytes) in (first..).zip(contents) {
        let filename = format!("{name}_{number:05}{ending}");
        put(&folder.join(&filename), bytes)?;
        items.push(json!({"filename": filename, "subfolder": subfolder, "type": kind}));
    }
    Ok(items)
}

/// The folder, unless it leads out of its root.
fn beneath(root: &Path, subfolder: &str) -> Result<PathBuf, Stop> {
    let folder = root.join(subfolder);
    if subfolder.starts_with('/') || subfolder.split('/').any(|part| part == "..") {
        let told = "**** ERROR: Saving image outside the output folder is not allowed.";
        let folders = format!("full_output_folder: {}\n         output_dir: {}", folder.display(), root.display());
        return Err(Stop::failed("Exception", format!("{told}\n {folders}\n")));
    }
    Ok(folder)
}

/// One more than the highest number among `name_00042…`.
fn next_number(folder: &Path, name: &str) -> u32 {
    let number = |entry: io::Result<std::fs::DirEntry>| {
        let file = entry.ok()?.file_name().into_string().ok()?;
        let digits = file.strip_prefix(name)?.strip_prefix('_')?;
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    std::fs::read_dir(folder).into_iter().flatten().filter_map(number).max().unwrap_or(0) + 1
}

/// A partial file stays when the disk is full.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    std::fs::write(path, bytes).map_err(|error| os_error(&error, path))
}

fn os_error(error: &io::Error, path: &Path) -> Stop {
    let number = error.raw_os_error().unwrap_or(5);
    let kind = match number {
        libc::EACCES | libc::EPERM => "PermissionError",
        libc::ENOENT => "FileNotFoundError",
        _ => "OSError",
    };
    let told = error.to_string();
    let told = told.split(" (os error").next().unwrap_or_default();
    let place = if number == libc::ENOSPC { String::new() } else { format!(": '{}'", path.display()) };
    Stop::failed(kind, format!("[Errno {number}] {told}{place}\n"))
}

/// `DoubleSave`: any file, listed under any key.
pub fn save_as_told(call: &Call<'_, '_>) -> Result<Ran, Stop> {
    let kind = call.text("type");
    let arguments = &call.server().arguments;
    let root = arguments.folder(&kind).unwrap_or(&arguments.output);
    let subfolder = call.text("subfolder");
    let folder = beneath(root, &subfolder)?;
    std::fs::create_dir_all(&folder).map_err(|error| os_error(&error, &folder))?;
    let filename = call.text("filename");
    let mut bytes = call.text("text").into_bytes();
    bytes.resize(bytes.len().max(call.int("bytes") as usize), b'.');
    put(&folder.join(&filename), &bytes)?;
    let item = json!({"filename": filename, "subfolder": subfolder, "type": kind});
    Ok(Ran::shown(json!({call.text("key"): [item]})))
}

/// `DoubleFill`: a file that is listed nowhere, written in pieces until it is as long as wanted or the disk is full.
pub fn fill(call: &Call<'_, '_>) -> Result<(), Stop> {
    let path = call.server().arguments.output.join(call.text("filename"));
    let failed = |error: io::Error| os_error(&error, &path);
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    let mut source = io::Read::take(io::repeat(0), call.int("bytes"));
    io::copy(&mut source, &mut file).map_err(failed)?;
    Ok(())
}

/// `LoadImage`: whatever begins like a picture.
pub fn load(call: &Call<'_, '_>) -> Result<Ran, Stop> {
    let name = call.text("image");
    let path = call.server().annotated(&name).unwrap_or_default();
    let bytes = std::fs::read(&path).map_err(|error| os_error(&error, &path))?;
    let known = [&b"\xff\xd8\xff"[..], b"GIF8", b"RIFF", b"BM"];
    let (width, height) = match png::size(&bytes) {
        Some(size) => size,
        None if known.iter().any(|magic| bytes.starts_with(magic)) => (64, 64),
        None => {
            let told = format!("cannot identify image file '{}'\n", path.display());
            return Err(Stop::failed("PIL.UnidentifiedImageError", told));
        }
    };
    let image = Image { width, height, count: 1, color: 0x0033_6699 };
    Ok(Ran { outputs: vec![Data::from(image), Data::Opaque], ui: None })
}
