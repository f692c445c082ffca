//! One source of settings: values by dotted key, each with its origin. The environment and the file have their own
//! modules; here are the type and the simplest two, the defaults and the flags.

use std::collections::BTreeMap;

use super::error::Fault;
use super::file;
use super::origin::Origin;
use super::value::Raw;

/// The reference: every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A value and where it stands.
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// Values by dotted key (`server.port`).
#[derive(Default)]
pub(super) struct Layer {
    pub(super) values: BTreeMap<String, Given>,
}

/// An option of the command line that sets a key.
#[derive(Clone)]
pub struct FlagValue {
    /// The option as the user typed it, such as `--port`.
    pub flag: String,
    /// The dotted key, such as `server.port`.
    pub key: String,
    pub value: String,
}

/// The embedded reference.
pub(super) fn defaults() -> Result<Layer, Fault> {
    let mut layer = file::parse(DEFAULTS, "config/default.toml".as_ref())?;
    for given in layer.values.values_mut() {
        given.origin = Origin::Default;
    }
    Ok(layer)
}

/// The flags; of two for one key the last one counts.
pub(super) fn flags(flags: &[FlagValue]) -> Layer {
    let given = |flag: &FlagValue| Given {
        raw: Raw::Text(flag.value.clone()),
        origin: Origin::Flag {
            name: flag.flag.clone(),
        },
    };
    Layer {
        values: flags.iter().map(|flag| (flag.key.clone(), given(flag))).collect(),
    }
}
