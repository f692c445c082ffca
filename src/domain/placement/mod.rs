//! Which instance runs a job: one that is ready, with most of the job's models loaded, and of those the one that has
//! rested longest.
//!
//! What the instances tell comes late, and another ingress gives them work, too. So an instance that was given a job
//! counts as taken until that run has ended *and* it said again that it is ready; one that refuses is believed.

#[cfg(test)]
mod tests;

use crate::domain::instance::{InstanceName, Standing};

/// Why an instance did not run what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRun {
    Busy,
    NotReady,
    /// Nobody is published under its name.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Down(String),
    Ready,
    Busy,
}

struct Instance {
    name: InstanceName,
    known: Known,
    /// The models of its last jobs, the newest first. Names out of prompts: never shown.
    models: Vec<String>,
    /// Starts that failed since it was last ready.
    failed_starts: u32,
    given: bool,
    /// It told how it stands since it was given its job.
    told_since: bool,
    /// When it was last given a job, counted in gifts.
    last_given: u64,
}

/// All instances, as one ingress knows them.
pub struct Placement {
    instances: Vec<Instance>,
    gifts: u64,
}

/// How many instances stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstanceCounts {
    pub ready: usize,
    pub busy: usize,
    pub starting: usize,
    /// Their last start failed.
    pub unwell: usize,
}

impl Placement {
    /// Instances that have not told anything yet.
    pub fn new(names: &[InstanceName]) -> Self {
        let instance = |name: &InstanceName| Instance {
            name,
            known: Known::Down("it has not told yet how it stands".to_owned()),
            models: Vec::new(),
            failed_starts: 0,
            given: false,
            told_since: false,
            last_given: 0,
        };
        Self { instances: names.iter().map(instance).collect(), gifts: 0 }
    }

    fn find(&mut self, name: InstanceName) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.name == name)
    }

    /// Takes note of how an instance stands.
    pub fn stood(&mut self, name: InstanceName, standing: Standing) {
        let Some(instance) = self.find(name) else { return };
        instance.told_since = true;
        instance.known = match standing {
            Standing::Down { reason } => Known::Down(reason),
            Standing::FailedStart { in_a_row, reason } => {
                instance.failed_starts = in_a_row.max(1);
                Known::Down(format!("start {in_a_row} in a row failed: {reason}"))
            }
            Standing::Ready { models } => {
                instance.failed_starts = 0;
                instance.models = models;
                Known::Ready
            }
            Standing::Busy => Known::Busy,
        };
    }

    /// Gives a job that loads these models to an instance, when one is free.
    pub fn give(&mut self, models: &[String]) -> Option<InstanceName> {
        let loaded = |instance: &Instance| models.iter().filter(|model| instance.models.contains(model)).count();
        let free = self.instances.iter_mut().filter(|instance| instance.is_free());
        let best = free.min_by_key(|instance| (usize::MAX - loaded(instance), instance.last_given))?;
        self.gifts += 1;
        best.last_given = self.gifts;
        best.given = true;
        best.told_since = false;
        Some(best.name)
    }

    /// The run that it was given has ended.
    pub fn ended(&mut self, name: InstanceName) {
        let Some(instance) = self.find(name) else { return };
        instance.given = false;
        if !instance.told_since {
            // It cleans up, and will say when it is ready again.
            instance.known = Known::Busy;
        }
    }

    /// It did not run what it was given.
    pub fn refused(&mut self, name: InstanceName, why: &NotRun) {
        let Some(instance) = self.find(name) else { return };
        instance.given = false;
        match why {
            NotRun::Absent => instance.known = Known::Down("it is not running at the moment".to_owned()),
            // What it told since is newer than its refusal.
            _ if instance.told_since => {}
            NotRun::Busy => instance.known = Known::Busy,
            NotRun::NotReady => instance.known = Known::Down("it was not ready for a job".to_owned()),
        }
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// How many could be given a job now.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.instances.iter().filter(|instance| instance.is_free()).count()
    }

    /// Why no instance works, by name; empty when at least one does.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for instance in &self.instances {
            match &instance.known {
                Known::Down(reason) => complaints.push(format!("{}: {reason}", instance.name)),
                Known::Ready | Known::Busy => return Vec::new(),
            }
        }
        complaints
    }

    /// Why this host is given up: every instance failed to start so many times in a row.
    pub fn hopeless(&self, most: u32) -> Option<String> {
        let hopeless = !self.instances.is_empty() && self.instances.iter().all(|one| one.failed_starts >= most);
        hopeless.then(|| self.complaints().join("; "))
    }

    /// How many stand how.
    pub fn counts(&self) -> InstanceCounts {
        let mut counts = InstanceCounts::default();
        for instance in &self.instances {
            match instance.known {
                Known::Ready if instance.given => counts.busy += 1,
                Known::Ready => counts.ready += 1,
                Known::Busy => counts.busy += 1,
                Known::Down(_) if instance.failed_starts > 0 => counts.unwell += 1,
                Known::Down(_) => counts.starting += 1,
            }
        }
        counts
    }
}

impl Instance {
    fn is_free(&self) -> bool {
        self.known == Known::Ready && !self.given
    }
}
