//! The doubles held to what was recorded of the real ones, and to the real RunPod SDK.

mod alike;
mod comfy;
mod comfy_faults;
mod comfy_replay;
mod dialogue;
mod oracle;
mod platform_faults;
mod runpod_replay;
