//! What an output is, by its file name, and by its first bytes where the name does not say.

use crate::domain::job::OutputKind;

/// Extension, kind, mime type.
const BY_EXTENSION: [(&str, OutputKind, &str); 40] = [
    ("png", OutputKind::Image, "image/png"),
    ("jpg", OutputKind::Image, "image/jpeg"),
    ("jpeg", OutputKind::Image, "image/jpeg"),
    ("webp", OutputKind::Image, "image/webp"),
    ("bmp", OutputKind::Image, "image/bmp"),
    ("tif", OutputKind::Image, "image/tiff"),
    ("tiff", OutputKind::Image, "image/tiff"),
    ("avif", OutputKind::Image, "image/avif"),
    ("jxl", OutputKind::Image, "image/jxl"),
    ("exr", OutputKind::Image, "image/x-exr"),
    ("svg", OutputKind::Image, "image/svg+xml"),
    ("gif", OutputKind::Animated, "image/gif"),
    ("apng", OutputKind::Animated, "image/apng"),
    ("mp4", OutputKind::Video, "video/mp4"),
    ("m4v", OutputKind::Video, "video/mp4"),
    ("webm", OutputKind::Video, "video/webm"),
    ("mkv", OutputKind::Video, "video/x-matroska"),
    ("mov", OutputKind::Video, "video/quicktime"),
    ("avi", OutputKind::Video, "video/x-msvideo"),
    ("flac", OutputKind::Audio, "audio/flac"),
    ("mp3", OutputKind::Audio, "audio/mpeg"),
    ("wav", OutputKind::Audio, "audio/wav"),
    ("ogg", OutputKind::Audio, "audio/ogg"),
    ("opus", OutputKind::Audio, "audio/ogg"),
    ("m4a", OutputKind::Audio, "audio/mp4"),
    ("aac", OutputKind::Audio, "audio/aac"),
    ("txt", OutputKind::Text, "text/plain"),
    ("md", OutputKind::Text, "text/markdown"),
    ("csv", OutputKind::Text, "text/csv"),
    ("json", OutputKind::Text, "application/json"),
    ("srt", OutputKind::Text, "application/x-subrip"),
    ("latent", OutputKind::Latent, "application/octet-stream"),
    ("glb", OutputKind::Model3d, "model/gltf-binary"),
    ("gltf", OutputKind::Model3d, "model/gltf+json"),
    ("obj", OutputKind::Model3d, "model/obj"),
    ("stl", OutputKind::Model3d, "model/stl"),
    ("ply", OutputKind::Model3d, "application/octet-stream"),
    ("fbx", OutputKind::Model3d, "application/octet-stream"),
    ("usdz", OutputKind::Model3d, "model/vnd.usdz+zip"),
    ("splat", OutputKind::Model3d, "application/octet-stream"),
];

/// The kind and the mime type of a file. `animated` is what its node said of it.
pub(super) fn of_file(name: &str, bytes: &[u8], animated: bool) -> (OutputKind, &'static str) {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    let known = BY_EXTENSION.iter().find(|(known, ..)| *known == extension);
    let (kind, mime) = match known {
        Some((_, kind, mime)) => (*kind, *mime),
        None => by_magic(bytes).unwrap_or((OutputKind::File, "application/octet-stream")),
    };
    let moves = kind == OutputKind::Image && (animated || moves(bytes));
    (if moves { OutputKind::Animated } else { kind }, mime)
}

/// The mime type of a picture, by its first bytes.
pub(super) fn of_picture(bytes: &[u8]) -> &'static str {
    by_magic(bytes).map_or("application/octet-stream", |(_, mime)| mime)
}

fn by_magic(bytes: &[u8]) -> Option<(OutputKind, &'static str)> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Some(match () {
        () if at(0, b"\x89PNG\r\n\x1a\n") => (OutputKind::Image, "image/png"),
        () if at(0, b"\xff\xd8\xff") => (OutputKind::Image, "image/jpeg"),
        () if at(0, b"RIFF") && at(8, b"WEBP") => (OutputKind::Image, "image/webp"),
        () if at(0, b"GIF8") => (OutputKind::Animated, "image/gif"),
        () if at(4, b"ftyp") => (OutputKind::Video, "video/mp4"),
        () if at(0, b"\x1a\x45\xdf\xa3") => (OutputKind::Video, "video/webm"),
        () if at(0, b"fLaC") => (OutputKind::Audio, "audio/flac"),
        () if at(0, b"RIFF") && at(8, b"WAVE") => (OutputKind::Audio, "audio/wav"),
        () if at(0, b"OggS") => (OutputKind::Audio, "audio/ogg"),
        () if at(0, b"glTF") => (OutputKind::Model3d, "model/gltf-binary"),
        () => return None,
    })
}

/// A PNG or WebP whose header says that it holds several pictures.
fn moves(bytes: &[u8]) -> bool {
    let head = bytes.get(..64).unwrap_or(bytes);
    let has = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    (head.starts_with(b"\x89PNG") && has(b"acTL")) || (head.starts_with(b"RIFF") && has(b"ANIM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind_whatever_the_node_called_it() {
        let kind = |name: &str| of_file(name, b"", false).0;
        assert_eq!(kind("a_00001_.png"), OutputKind::Image);
        assert_eq!(kind("A.MP4"), OutputKind::Video);
        assert_eq!(kind("a.flac"), OutputKind::Audio);
        assert_eq!(kind("a.latent"), OutputKind::Latent);
        assert_eq!(kind("a.glb"), OutputKind::Model3d);
        assert_eq!(kind("a.txt"), OutputKind::Text);
        assert_eq!(kind("a.safetensors"), OutputKind::File);
        assert_eq!(kind("no extension"), OutputKind::File);
    }

    #[test]
    fn a_picture_that_moves_is_animated_by_its_nodes_word_or_its_own_header() {
        assert_eq!(of_file("a.webp", b"", true), (OutputKind::Animated, "image/webp"));
        assert_eq!(of_file("a.webp", b"RIFF....WEBPVP8X..........ANIM", false).0, OutputKind::Animated);
        assert_eq!(of_file("a.webp", b"RIFF....WEBPVP8 ", false).0, OutputKind::Image);
        assert_eq!(of_file("a.mp4", b"", true).0, OutputKind::Video);
    }

    #[test]
    fn what_has_no_telling_name_is_known_by_its_first_bytes() {
        assert_eq!(of_file("odd", b"\x89PNG\r\n\x1a\n", false), (OutputKind::Image, "image/png"));
        assert_eq!(of_picture(b"\xff\xd8\xff\xe0"), "image/jpeg");
        assert_eq!(of_picture(b""), "application/octet-stream");
    }
}
