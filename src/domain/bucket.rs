//! An object store's bucket, where large outputs go.

use std::fmt;

/// A place for objects and the right to write there.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Such as `https://s3.example.com`; path-style.
    pub endpoint: String,
    pub name: String,
    pub region: String,
    pub access_id: String,
    pub access_secret: String,
    /// A prefix of all keys, without a slash at its end; may be empty.
    pub prefix: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({} at {})", self.name, self.endpoint)
    }
}
