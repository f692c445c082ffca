//! Salsa20 in the vectors of the processor: eight blocks side by side, one in each lane of AVX2.

/// How many blocks are computed side by side.
const LANES: usize = 8;
/// How many bytes they are.
pub const SPAN: usize = LANES * 64;

/// Adds (by exclusive or) the stream of Salsa20 to `spans`, from its block `first` on. False where the processor has no AVX2:
/// `spans` is as it was then.
#[cfg(target_arch = "x86_64")]
pub fn add_stream(key: &[u8; 32], nonce: [u8; 8], first: u64, spans: &mut [[u8; SPAN]]) -> bool {
    let has_avx2 = std::is_x86_feature_detected!("avx2");
    if has_avx2 {
        #[expect(unsafe_code, reason = "compiled for AVX2")]
        // SAFETY: the processor has AVX2, which is all that calling it asks for.
        unsafe {
            avx2::add_stream(key, nonce, first, spans)
        };
    }
    has_avx2
}

/// No other architecture's vectors are used.
#[cfg(not(target_arch = "x86_64"))]
pub fn add_stream(_key: &[u8; 32], _nonce: [u8; 8], _first: u64, _spans: &mut [[u8; SPAN]]) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi32,
        _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::{LANES, SPAN};

    /// One word of the state, of eight blocks.
    type Word = __m256i;

    /// "expand 32-byte k", little-endian.
    const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

    #[target_feature(enable = "avx2")]
    pub(super) fn add_stream(key: &[u8; 32], nonce: [u8; 8], first: u64, spans: &mut [[u8; SPAN]]) {
        let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
        let [s0, s1, s2, s3] = SIGMA.map(all);
        let [k0, k1, k2, k3, k4, k5, k6, k7] = words(key).map(all);
        let [n0, n1] = words(&nonce).map(all);
        let mut counter = first;
        for span in spans {
            let (low, high) = counters(counter);
            let start = [s0, k0, k1, k2, k3, s1, n0, n1, low, high, s2, k4, k5, k6, k7, s3];
            let mut state = start;
            for _ in 0..10 {
                double_round(&mut state);
            }
            for (word, start) in state.iter_mut().zip(start) {
                *word = _mm256_add_epi32(*word, start);
            }
            let [a, b, c, d, e, f, g, h, rest @ ..] = state;
            add_halves([a, b, c, d, e, f, g, h], 0, span);
            add_halves(rest, 32, span);
            counter = counter.wrapping_add(LANES as u64);
        }
    }

    /// Little-endian words.
    fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
        let (chunks, _) = bytes.as_chunks::<4>();
        std::array::from_fn(|at| chunks.get(at).map_or(0, |chunk| u32::from_le_bytes(*chunk)))
    }

    /// The counters of eight blocks: their low words and their high ones.
    #[target_feature(enable = "avx2")]
    fn counters(first: u64) -> (Word, Word) {
        let at = |lane: u64| first.wrapping_add(lane);
        let low = |lane| (at(lane) as u32).cast_signed();
        let high = |lane| ((at(lane) >> 32) as u32).cast_signed();
        let low = _mm256_setr_epi32(low(0), low(1), low(2), low(3), low(4), low(5), low(6), low(7));
        let high = _mm256_setr_epi32(high(0), high(1), high(2), high(3), high(4), high(5), high(6), high(7));
        (low, high)
    }

    /// A column round and a row round (Salsa20 specification, sections 4 and 5).
    #[inline]
    #[target_feature(enable = "avx2")]
    fn double_round(x: &mut [Word; 16]) {
        quarter(x, 0, 4, 8, 12);
        quarter(x, 5, 9, 13, 1);
        quarter(x, 10, 14, 2, 6);
        quarter(x, 15, 3, 7, 11);
        quarter(x, 0, 1, 2, 3);
        quarter(x, 5, 6, 7, 4);
        quarter(x, 10, 11, 8, 9);
        quarter(x, 15, 12, 13, 14);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn quarter(x: &mut [Word; 16], a: usize, b: usize, c: usize, d: usize) {
        x[b] = mix::<7, 25>(x[b], x[a], x[d]);
        x[c] = mix::<9, 23>(x[c], x[b], x[a]);
        x[d] = mix::<13, 19>(x[d], x[c], x[b]);
        x[a] = mix::<18, 14>(x[a], x[d], x[c]);
    }

    /// `into ^ ((one + other) <<< LEFT)`; `RIGHT` is what `LEFT` lacks to 32.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn mix<const LEFT: i32, const RIGHT: i32>(into: Word, one: Word, other: Word) -> Word {
        let sum = _mm256_add_epi32(one, other);
        let turned = _mm256_or_si256(_mm256_slli_epi32::<LEFT>(sum), _mm256_srli_epi32::<RIGHT>(sum));
        _mm256_xor_si256(into, turned)
    }

    /// Turns eight words of eight blocks into eight words of each block, and adds them to each block from its byte `at` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_halves(words: [Word; LANES], at: usize, span: &mut [u8; SPAN]) {
        let [a, b, c, d, e, f, g, h] = words;
        let fours = |a, b, c, d| {
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            // Of blocks 0 and 4, 1 and 5, 2 and 6, 3 and 7.
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        };
        let (first, last) = (fours(a, b, c, d), fours(e, f, g, h));
        for (block, (first, last)) in first.into_iter().zip(last).enumerate() {
            add(_mm256_permute2x128_si256::<0x20>(first, last), block * 64 + at, span);
            add(_mm256_permute2x128_si256::<0x31>(first, last), (block + 4) * 64 + at, span);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(stream: Word, at: usize, span: &mut [u8; SPAN]) {
        let Some(bytes) = span.get_mut(at..at + 32) else { return };
        let place: *mut Word = bytes.as_mut_ptr().cast();
        #[expect(unsafe_code, reason = "vectors are read and written through pointers")]
        // SAFETY: `place` is good for 32 bytes, and these two ask for no alignment.
        unsafe {
            _mm256_storeu_si256(place, _mm256_xor_si256(_mm256_loadu_si256(place), stream))
        };
    }
}
