//! The ingress over doubles, under virtual time: what the platform, the instances and the caller see, and in which order.

mod faults;
mod jobs;
mod world;
