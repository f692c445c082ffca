//! Writing outputs under their own names, and nowhere else.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

use super::reply::Reply;

/// How many names are tried for a file whose own is taken.
const TRIES: u32 = 10_000;

/// A file that was written.
pub struct Written {
    pub path: PathBuf,
    bytes: usize,
}

impl Written {
    /// For `--json`.
    pub fn as_json(&self) -> serde_json::Value {
        serde_json::json!({ "path": self.path, "bytes": self.bytes })
    }
}

/// Writes all outputs below `folder`. A name that is taken gets a number, unless `force`.
///
/// # Errors
/// When one cannot be written.
pub fn write(folder: &Path, reply: &Reply, force: bool) -> anyhow::Result<Vec<Written>> {
    let mut written = Vec::new();
    for output in &reply.outputs {
        written.push(write_one(&folder.join(below(&output.filename)), &output.data, force)?);
    }
    if let Some(history) = &reply.history {
        let text = serde_json::to_vec_pretty(history)?;
        written.push(write_one(&folder.join("history.json"), &text, force)?);
    }
    Ok(written)
}

/// The name with its subfolders, without whatever would lead out of the folder: the worker chose it.
fn below(filename: &str) -> PathBuf {
    let plain = |component: Component<'_>| match component {
        Component::Normal(part) => Some(PathBuf::from(part.to_string_lossy().replace(char::is_control, "_"))),
        _ => None,
    };
    let name: PathBuf = Path::new(filename).components().filter_map(plain).collect();
    if name.as_os_str().is_empty() { PathBuf::from("output") } else { name }
}

fn write_one(path: &Path, data: &[u8], force: bool) -> anyhow::Result<Written> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for number in 0..TRIES {
        let path = if number == 0 { path.to_owned() } else { numbered(path, number) };
        let opened = OpenOptions::new().write(true).create(true).truncate(force).create_new(!force).open(&path);
        match opened {
            Ok(mut file) => {
                file.write_all(data).with_context(|| format!("cannot write {}", path.display()))?;
                return Ok(Written { path, bytes: data.len() });
            }
            Err(taken) if taken.kind() == ErrorKind::AlreadyExists => {}
            Err(other) => return Err(other).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    anyhow::bail!("{} and {TRIES} names after it are taken: use --force or another --out", path.display())
}

/// `picture.png` → `picture-2.png`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{extension}", number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::submit::reply::Output;

    fn reply(names: &[&str]) -> Reply {
        let output = |name: &&str| Output { filename: (*name).to_owned(), data: name.as_bytes().to_vec() };
        Reply { outputs: names.iter().map(output).collect(), ..Reply::default() }
    }

    #[test]
    fn a_worker_cannot_choose_a_place_outside_of_the_folder() {
        let names = ["../../etc/x", "/etc/passwd", "a/./b.png", "..", "", "c\u{1b}[2J.png"];
        let paths: Vec<_> = names.iter().map(|name| below(name).display().to_string()).collect();
        assert_eq!(paths, ["etc/x", "etc/passwd", "a/b.png", "output", "output", "c_[2J.png"]);
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number_and_with_force_it_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let names = |written: Vec<Written>| -> Vec<String> {
            let name = |file: &Written| file.path.strip_prefix(folder.path()).unwrap().display().to_string();
            written.iter().map(name).collect()
        };
        assert_eq!(
            names(write(folder.path(), &reply(&["s/a.png", "s/a.png"]), false).unwrap()),
            ["s/a.png", "s/a-2.png"]
        );
        assert_eq!(names(write(folder.path(), &reply(&["s/a.png"]), false).unwrap()), ["s/a-3.png"]);
        assert_eq!(names(write(folder.path(), &reply(&["s/a.png"]), true).unwrap()), ["s/a.png"]);
    }
}
