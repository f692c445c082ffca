//! Sound, video, animation and latents: their first bytes are right, and there is little behind them.

/// FLAC with its stream information and no samples.
pub fn flac() -> Vec<u8> {
    let mut file = b"fLaC\x80\x00\x00\x22".to_vec();
    file.extend([0x10, 0x00, 0x10, 0x00, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0, 0, 0, 0, 0]);
    file.resize(file.len() + 16, 0);
    file
}

/// MP4: a file type box and an empty media box.
pub fn mp4() -> Vec<u8> {
    [&24u32.to_be_bytes()[..], b"ftypisom\0\0\x02\0isommp42", &8u32.to_be_bytes(), b"mdat"].concat()
}

/// WebM: an EBML header that names the kind of document.
pub fn webm() -> Vec<u8> {
    [&b"\x1a\x45\xdf\xa3\x87\x42\x82\x84"[..], b"webm"].concat()
}

/// WebP: the extended header of an animation.
pub fn webp(width: u32, height: u32) -> Vec<u8> {
    let edge = |pixels: u32| pixels.saturating_sub(1).to_le_bytes()[..3].to_vec();
    let header = [&[0x02, 0, 0, 0][..], &edge(width), &edge(height)].concat();
    let chunk = [&b"VP8X"[..], &10u32.to_le_bytes(), &header].concat();
    [&b"RIFF"[..], &(chunk.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunk].concat()
}

/// A safetensors file with one tensor of 4×8×8 zeros, and the metadata in its header.
pub fn latent(metadata: &[u8]) -> Vec<u8> {
    const BYTES: usize = 4 * 8 * 8 * 4;
    let prompt = String::from_utf8_lossy(metadata);
    let header = serde_json::json!({
        "__metadata__": {"prompt": prompt},
        "latent_tensor": {"dtype": "F32", "shape": [1, 4, 8, 8], "data_offsets": [0, BYTES]},
    });
    let header = header.to_string().into_bytes();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + BYTES, 0);
    file
}
