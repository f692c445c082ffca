//! What travels over HTTP, as both ends write and read it: the daemon answers with these types, the command line reads them.
//!
//! Names marked v1 in CONTRACTS.md are the first system's own and stay as they are.

mod archive;
pub mod call;
pub mod environment;
pub mod error;
pub mod event;
pub mod execution;
pub mod health;
pub mod job;
pub mod record;
pub mod secret;
pub mod tenant;

pub use call::{CallBody, call_json};
pub use environment::{EnvironmentBody, ModulesBody, SetUpBody, TtlBody};
pub use error::ErrorBody;
pub use event::{DroppedEvent, OutputEvent};
pub use execution::{ExecuteBody, ExecutionBody, FileBody, LimitsBody, LogBody, execution_json};
pub use health::{HealthBody, LiveBody, ReadyBody};
pub use record::RecordBody;
pub use secret::{PutSecretBody, SecretBody};
