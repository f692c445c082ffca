//! The doubles held to what was recorded of the real ones, and to the real RunPod SDK.

mod oracle;
