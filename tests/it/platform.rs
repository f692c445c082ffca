//! Jobs from RunPod, end to end: the real daemon, the double of ComfyUI, the double of the platform.

mod batches;
mod ending;
mod jobs;
mod keys;
mod posting;
mod starting;
mod taking;
