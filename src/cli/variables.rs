//! The environment variables that the command line may see, handed in by `main`.

use std::path::PathBuf;

/// Looks a variable up. Only `config::environment` reads the real ones.
pub struct Variables(Box<LookUp>);

type LookUp = dyn Fn(&str) -> Option<String>;

impl Variables {
    /// Variables found by `look_up`.
    pub fn new(look_up: impl Fn(&str) -> Option<String> + 'static) -> Self {
        Self(Box::new(look_up))
    }

    /// A variable's value, unless it is not set or empty.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// Where the daemon's health socket is, unless an argument says so.
    pub fn health_socket(&self) -> PathBuf {
        let folder = self
            .get("CLOISTER_RUN_DIR")
            .unwrap_or_else(|| "/run/cloister".to_owned());
        PathBuf::from(folder).join("health.sock")
    }
}
