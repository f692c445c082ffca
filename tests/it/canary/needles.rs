//! What must not be found, in each form that it takes on its way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Texts to look for.
#[derive(Clone, Default)]
pub struct Needles(Vec<Vec<u8>>);

impl Needles {
    /// Adds a text, as it is and in base64, wherever in a longer text it stands.
    pub fn with(mut self, text: &[u8]) -> Self {
        self.0.push(text.to_vec());
        for before in 0..3 {
            let mut longer = vec![0; before];
            longer.extend_from_slice(text);
            let encoded = STANDARD_NO_PAD.encode(&longer).into_bytes();
            // The letters at both ends depend on their neighbours.
            let (first, last) = ([0, 2, 3][before], encoded.len() - usize::from(longer.len() % 3 != 0));
            self.0.push(encoded[first..last].to_vec());
        }
        self
    }

    /// Whether one of them is there. In one pass: files may be large, and tests are not optimized.
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        let mut begins = [false; 256];
        for needle in &self.0 {
            begins[usize::from(needle[0])] = true;
        }
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|byte| begins[usize::from(*byte)]) {
            from += at;
            if self.0.iter().any(|needle| bytes[from..].starts_with(needle)) {
                return true;
            }
            from += 1;
        }
        false
    }
}

#[test]
fn a_needle_is_found_plain_and_in_base64_at_every_place() {
    let needles = Needles::default().with(b"canary-of-a-test");
    assert!(needles.are_in(b"a canary-of-a-test b") && !needles.are_in(b"a canary-of-a-tesT"));
    for before in 0..7 {
        for after in 0..3 {
            let text = [vec![b'x'; before], b"canary-of-a-test".to_vec(), vec![0xff; after]].concat();
            assert!(needles.are_in(STANDARD_NO_PAD.encode(text).as_bytes()), "{before} {after}");
        }
    }
}
