//! Who gets a job, and what is believed of whom.

use super::*;

fn ready(models: &[&str]) -> Standing {
    Standing::Ready { models: models.iter().map(|model| (*model).to_owned()).collect() }
}

fn wants(models: &[&str]) -> Vec<String> {
    models.iter().map(|model| (*model).to_owned()).collect()
}

#[test]
fn the_instance_with_most_of_the_models_runs_a_job_and_then_the_one_that_rested_longest() {
    let mut placement = Placement::new(&["a", "b", "c"]);
    assert_eq!(placement.give(&[]), None, "nobody is ready");
    placement.stood("b", ready(&["sdxl"]));
    placement.stood("c", ready(&["sdxl", "vae"]));
    assert_eq!(placement.give(&wants(&["sdxl", "vae"])), Some("c"));
    placement.stood("a", ready(&[]));
    assert_eq!(placement.give(&wants(&["flux"])), Some("a"));
    assert_eq!(placement.give(&wants(&["flux"])), Some("b"));
    assert_eq!((placement.give(&[]), placement.free()), (None, 0));
    for (name, models) in [("b", []), ("a", []), ("c", [])] {
        placement.ended(name);
        placement.stood(name, ready(&models));
    }
    assert_eq!(placement.give(&[]), Some("c"), "it rested longest");
}

#[test]
fn an_instance_whose_run_ended_is_taken_until_it_says_that_it_is_ready() {
    let mut placement = Placement::new(&["a"]);
    placement.stood("a", ready(&[]));
    placement.give(&[]);
    placement.stood("a", Standing::Busy);
    placement.ended("a");
    assert_eq!(placement.free(), 0);
    placement.stood("a", ready(&[]));
    assert_eq!(placement.free(), 1);
    placement.give(&[]);
    placement.ended("a");
    assert_eq!(placement.free(), 0, "its word from before the run does not count");
    placement.give(&[]);
    placement.stood("a", ready(&[]));
    placement.ended("a");
    assert_eq!(placement.free(), 1, "its word may come before the end of the run");
}

#[test]
fn a_refusal_is_believed_unless_it_told_something_newer() {
    let mut placement = Placement::new(&["a", "b"]);
    placement.stood("a", ready(&[]));
    placement.give(&[]);
    placement.refused("a", &NotRun::Busy);
    assert_eq!(placement.free(), 0);
    placement.stood("a", ready(&[]));
    placement.give(&[]);
    placement.stood("a", ready(&[]));
    placement.refused("a", &NotRun::Busy);
    assert_eq!(placement.free(), 1);
    placement.give(&[]);
    placement.refused("a", &NotRun::Absent);
    assert_eq!(placement.complaints().len(), 2, "both are down: {:?}", placement.complaints());
}

#[test]
fn a_host_is_hopeless_when_every_instance_failed_to_start_too_often() {
    let failed = |in_a_row| Standing::FailedStart { in_a_row, reason: "exit code 1".to_owned() };
    let mut placement = Placement::new(&["a", "b"]);
    placement.stood("a", failed(3));
    assert_eq!(placement.hopeless(3), None);
    placement.stood("b", failed(3));
    placement.stood("b", Standing::Down { reason: "it loads".to_owned() });
    let reason = placement.hopeless(3).unwrap_or_default();
    assert_eq!(reason, "a: start 3 in a row failed: exit code 1; b: it loads");
    placement.stood("b", ready(&[]));
    assert_eq!((placement.hopeless(3), placement.complaints()), (None, Vec::new()));
    assert_eq!(placement.counts(), InstanceCounts { ready: 1, unwell: 1, ..InstanceCounts::default() });
    assert_eq!(Placement::new(&[]).hopeless(0), None);
}
