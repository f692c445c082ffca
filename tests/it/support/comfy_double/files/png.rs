//! A PNG of one colour: a palette of one entry, one bit a pixel, stored without compression.

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The whole file; `metadata` goes into a text chunk `prompt`, when there is any.
pub fn flat(width: u32, height: u32, color: u32, metadata: &[u8]) -> Vec<u8> {
    let mut file = SIGNATURE.to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 3, 0, 0, 0]].concat();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"PLTE", &color.to_be_bytes()[1..]);
    if !metadata.is_empty() {
        chunk(&mut file, b"tEXt", &[b"prompt\0", metadata].concat());
    }
    let row = 1 + width.div_ceil(8) as usize;
    chunk(&mut file, b"IDAT", &stored(row * height as usize));
    chunk(&mut file, b"IEND", &[]);
    file
}

/// Width and height, if it is a PNG.
pub fn size(file: &[u8]) -> Option<(u32, u32)> {
    let header = file.strip_prefix(SIGNATURE)?.get(8..16)?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    Some((number(0)?, number(4)?))
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let check = crc(&file[start..]);
    file.extend(check.to_be_bytes());
}

/// A zlib stream of so many zero bytes, in stored blocks.
fn stored(length: usize) -> Vec<u8> {
    const BLOCK: usize = 65535;
    let mut stream = vec![0x78, 0x01];
    let mut left = length;
    loop {
        let now = left.min(BLOCK);
        left -= now;
        let size = now as u16;
        stream.push(u8::from(left == 0));
        stream.extend(size.to_le_bytes());
        stream.extend((!size).to_le_bytes());
        stream.resize(stream.len() + now, 0);
        if left == 0 {
            break;
        }
    }
    // Adler-32 of zeros: the first sum stays 1, the second counts the bytes.
    let second = (length % 65521) as u32;
    stream.extend((second << 16 | 1).to_be_bytes());
    stream
}

fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |sum, byte| TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}
