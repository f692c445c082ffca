//! The error body: `{error, code?, details?}`.

use serde::{Deserialize, Serialize};

/// Every refusal's JSON body. `details` holds names and places at most, never a caller's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}
