//! A layer as it lies there: its bytes unpacked, counted, and hashed on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

use crate::domain::image::Digest;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An unpacked stream of bytes, which ends with an error at its cap.
pub(super) struct Unpacked {
    inner: Box<dyn Read>,
    hash: Sha256,
    left: u64,
}

impl Unpacked {
    /// `most`: bytes that may come out. How it is packed is told by its first bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn open(file: File, most: u64) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let head = reader.fill_buf()?;
        let (is_gzip, is_zstd) = (head.starts_with(&GZIP), head.starts_with(&ZSTD));
        let inner: Box<dyn Read> = match (is_gzip, is_zstd) {
            (true, _) => Box::new(MultiGzDecoder::new(reader)),
            (_, true) => Box::new(Frames { reader, decoder: FrameDecoder::new(), within: false }),
            _ => Box::new(reader),
        };
        Ok(Self { inner, hash: Sha256::new(), left: most })
    }

    /// Reads what is left, and tells the digest of all of it and how many bytes more may have come.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than its cap.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::of_bytes(&self.hash.finalize()), self.left))
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it unpacks to more than sandbox.images.mib allows")
        })?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Frames of zstd, one after the other, those without data skipped.
struct Frames<R> {
    reader: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.enter()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.reader, one).map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.within = false,
                length => return Ok(length),
            }
        }
    }
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end.
    fn enter(&mut self) -> io::Result<bool> {
        while !self.reader.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.reader) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.reader.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn unpack(bytes: &[u8], most: u64) -> io::Result<(Vec<u8>, Digest)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut unpacked = Unpacked::open(file, most)?;
        let mut head = vec![0; 3];
        unpacked.read_exact(&mut head)?;
        let (digest, left) = unpacked.finish()?;
        head.push(u8::try_from(most - left).unwrap_or(255));
        Ok((head, digest))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn every_packing_gives_the_same_bytes_and_digest() {
        let plain = b"hello, layer";
        let wanted = Digest::of_bytes(&Sha256::digest(plain));
        let (first, second) = plain.split_at(5);
        let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
        for packed in [
            plain.to_vec(),
            gzip(plain),
            [gzip(first), gzip(second)].concat(),
            zstd(plain),
            [zstd(first), skipped.clone(), zstd(second), skipped].concat(),
        ] {
            assert_eq!(unpack(&packed, 100).unwrap(), (b"hel\x0c".to_vec(), wanted.clone()));
        }
    }

    #[test]
    fn a_bomb_ends_at_the_cap() {
        let bomb = vec![0; 1 << 20];
        for packed in [gzip(&bomb), zstd(&bomb), bomb.clone()] {
            let error = unpack(&packed, 1000).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&plain), zstd(&plain)] {
            assert!(unpack(&packed[..packed.len() / 2], 1 << 20).is_err());
        }
    }
}
