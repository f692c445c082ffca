//! What each kind of evidence proves.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn evidence(end: End, settlement: Option<Settlement>, process: ProcessEnd) -> Evidence {
    Evidence {
        end,
        settlement,
        phase: Phase::Handler,
        process,
        oom_kills: 0,
        pids_refused: 0,
        peak_memory_bytes: 10,
        memory_limit_bytes: 1000,
        cpu: Duration::ZERO,
        handler_time: Duration::ZERO,
        stdout: Captured::default(),
        stderr: Captured::default(),
        logs: Vec::new(),
        files: Vec::new(),
    }
}

#[test]
fn only_a_valid_result_is_ok() {
    let ok = evidence(End::Settled, Some(Settlement::Result("1".into())), ProcessEnd::Running);
    assert_eq!(judge(&ok), Outcome::Ok);
    let forged = evidence(End::Settled, Some(Settlement::Forged), ProcessEnd::Running);
    assert_eq!(judge(&forged), Outcome::NoResult);
    let silent = evidence(End::Closed, None, ProcessEnd::Exited(0));
    assert_eq!(judge(&silent), Outcome::NoResult);
}

#[test]
fn an_oom_kill_outranks_the_clock() {
    let mut hung = evidence(End::TimedOut, None, ProcessEnd::Running);
    assert_eq!(judge(&hung), Outcome::Timeout);
    hung.oom_kills = 1;
    assert_eq!(judge(&hung), Outcome::OutOfMemory);
}

#[test]
fn an_abort_is_out_of_memory_only_near_the_limit() {
    let mut abort = evidence(End::Closed, None, ProcessEnd::Exited(133));
    assert_eq!(judge(&abort), Outcome::NoResult);
    abort.peak_memory_bytes = 900;
    assert_eq!(judge(&abort), Outcome::OutOfMemory);
}

#[test]
fn a_killed_sandbox_has_crashed() {
    assert_eq!(judge(&evidence(End::Closed, None, ProcessEnd::Signalled(9))), Outcome::SandboxCrashed);
}

#[test]
fn limits_default_cap_and_never_fall_below_what_an_engine_needs() {
    let limits = |secs, memory_mb| Limits { timeout: Duration::from_secs(secs), memory_mb };
    let policy = LimitPolicy { default: limits(5, 128), cap: limits(60, 512) };
    assert_eq!(policy.resolve(None, None), limits(5, 128));
    assert_eq!(policy.resolve(Some(0), Some(0)), limits(5, 128));
    assert_eq!(policy.resolve(Some(u64::MAX), Some(u64::MAX)), limits(60, 512));
    assert_eq!(policy.resolve(Some(1000), Some(1)), limits(1, MIN_MEMORY_MB));
}

#[test]
fn env_names_that_steer_the_runtime_are_refused() {
    for name in ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "DENO_DIR", "BUN_INSTALL", "ld_preload", "1A", "A B", "", "A=B"]
    {
        let env = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert!(validate_env(&env).is_err(), "{name:?}");
    }
    let nul = BTreeMap::from([("A".to_owned(), "x\0y".to_owned())]);
    assert!(matches!(validate_env(&nul), Err(EnvInvalid::Value(_))));
    let fine = BTreeMap::from([("API_KEY".to_owned(), "x".to_owned()), ("_x1".to_owned(), String::new())]);
    assert_eq!(validate_env(&fine), Ok(()));
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Settled), Just(End::Closed), Just(End::TimedOut), Just(End::Flooded), Just(End::OutOfMemory)]
}

fn any_process() -> impl Strategy<Value = ProcessEnd> {
    prop_oneof![
        (0..256i32).prop_map(ProcessEnd::Exited),
        (1..32i32).prop_map(ProcessEnd::Signalled),
        Just(ProcessEnd::Running)
    ]
}

proptest! {
    #[test]
    fn no_evidence_without_a_result_is_ever_ok(
        end in any_end(), process in any_process(), ooms in 0..2u64, refused in 0..2u64, forged in any::<bool>(),
    ) {
        let mut seen = evidence(end, forged.then_some(Settlement::Forged), process);
        seen.oom_kills = ooms;
        seen.pids_refused = refused;
        prop_assert_ne!(judge(&seen), Outcome::Ok);
    }
}
