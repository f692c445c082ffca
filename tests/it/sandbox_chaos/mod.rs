//! Mixed load on the sandboxes while they and the daemon are killed at random: every call has a typed outcome, nothing is
//! left behind, and the daemon does not grow.
//!
//! `CLOISTER_CHAOS_SECONDS` is how long it takes, about; `CLOISTER_TEST_SEED` the seed of who does what and what is killed
//! when. The order in which a loaded host gets to things is not in it.

mod accepted;
mod caller;
mod house;
mod order;
mod site;
mod strikes;

use std::time::{Duration, Instant};

use crate::support::dice::{Dice, number};
use crate::support::eventually;
use house::House;

const SECONDS: u64 = 40;

#[tokio::test]
async fn under_random_kills_every_call_has_a_typed_outcome_and_nothing_is_left() {
    let total = Duration::from_secs(number("CLOISTER_CHAOS_SECONDS", SECONDS));
    let wave = (total / 5).clamp(Duration::from_secs(6), Duration::from_secs(60));
    let mut dice = Dice::of_this_run();
    let began = Instant::now();
    let mut house = House::start().await;
    // Of the last life, which nobody kills.
    let mut rests = Vec::new();
    while began.elapsed() < total || rests.len() < 2 {
        let killed = began.elapsed() < total / 2;
        house.wave(&mut dice, wave, killed).await;
        let rest = house.rest().await;
        println!("after {:?}: {rest:?}", began.elapsed());
        if !killed {
            rests.push(rest);
        }
    }
    println!("{}", house.site.summary());

    let (first, last) = (rests[0], rests[rests.len() - 1]);
    assert!(last.resident_kib <= first.resident_kib + (24 << 10), "{first:?}, then {last:?}");
    eventually("descriptors and threads as before", Duration::from_secs(30), async || {
        let now = house.footprint();
        let flat = now.descriptors <= first.descriptors + 4 && now.threads <= first.threads + 4;
        if flat { Ok(()) } else { Err(format!("{first:?}, then {now:?}")) }
    })
    .await;
    house.end().await;
}
