//! What a test that throws dice needs: the dice, their seed, and how long it shall be.

/// A variable that is a number.
pub fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Dice that fall the same way for the same seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// Those of `CLOISTER_TEST_SEED`, or of another seed each time; a failed test shows which.
    pub fn of_this_run() -> Self {
        let usual = u64::from(std::process::id()) ^ jiff::Timestamp::now().as_second() as u64;
        let seed = number("CLOISTER_TEST_SEED", usual);
        println!("CLOISTER_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// One of those; there is one.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// Dice for somebody who throws beside these.
    pub fn others(&mut self) -> Self {
        Self(self.next())
    }
}
