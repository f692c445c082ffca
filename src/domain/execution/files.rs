//! In which form the files of a call come back.

use serde::{Deserialize, Serialize};

/// What becomes of the files that a handler leaves in its sandbox's `/tmp/out`. Written as `false`, `true` or `"tar"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum FilesForm {
    /// They go with the sandbox.
    #[default]
    None,
    /// They come back one by one.
    List,
    /// They come back as one tar archive.
    Tar,
}

impl FilesForm {
    /// Whether they go with the sandbox.
    pub fn is_none(&self) -> bool {
        *self == FilesForm::None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Name(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Tar,
}

impl From<Written> for FilesForm {
    fn from(written: Written) -> Self {
        match written {
            Written::Flag(false) => FilesForm::None,
            Written::Flag(true) => FilesForm::List,
            Written::Name(Name::Tar) => FilesForm::Tar,
        }
    }
}

impl From<FilesForm> for Written {
    fn from(form: FilesForm) -> Self {
        match form {
            FilesForm::None => Written::Flag(false),
            FilesForm::List => Written::Flag(true),
            FilesForm::Tar => Written::Name(Name::Tar),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_spelling() {
        for (form, text) in [(FilesForm::None, "false"), (FilesForm::List, "true"), (FilesForm::Tar, "\"tar\"")] {
            assert_eq!(serde_json::to_string(&form).unwrap(), text);
            assert_eq!(serde_json::from_str::<FilesForm>(text).unwrap(), form);
        }
        for other in ["\"Tar\"", "\"zip\"", "\"\"", "1", "[]", "null"] {
            assert!(serde_json::from_str::<FilesForm>(other).is_err(), "{other}");
        }
    }
}
