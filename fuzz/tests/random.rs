//! Random inputs through the target, for compilers without libFuzzer: `cargo test --no-default-features`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_keeps_the_rules(
        epk: [u8; 32],
        nonce: [u8; 24],
        sealed in prop::collection::vec(any::<u8>(), 0..1200),
        noise in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let parts = [&epk[..], &nonce, &sealed].map(|part| STANDARD.encode(part));
        let mut input = parts.join("\n").into_bytes();
        if let Some((at, byte)) = noise {
            let at = at.index(input.len());
            input[at] = byte;
        }
        cloister_fuzz::envelope(&input);
    }
}
