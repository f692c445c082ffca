//! The doors, tried from outside, with recording actors behind the handles.

mod follow;
mod harness;
mod health;
mod jobs;
mod limits;
mod routes;
mod run;
mod set_up;
mod tenants;
mod wire;
