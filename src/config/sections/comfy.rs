//! `[comfy]`: ComfyUI, its processes, and the limits of a job on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DAY, HOUR, MINUTE, Reader, secs};
use crate::config::value::Value;

/// `[comfy]`
#[derive(Debug, Clone)]
pub struct Comfy {
    /// The checkout. None: this host does no GPU work.
    pub dir: Option<PathBuf>,
    /// A name to look up in PATH, or a path when it holds a `/`.
    pub python: String,
    /// Appended to ComfyUI's command line.
    pub args: Vec<String>,
    /// The first instance's; the others have the next ones.
    pub port: u16,
    /// 0: one for each GPU, and at least one.
    pub instances: u16,
    pub model_dir: PathBuf,
    /// True: ComfyUI prints as little as it can.
    pub silent: bool,
    pub start_deadline: Duration,
    /// The longest run of a job.
    pub job_deadline: Duration,
    /// The longest time of a job without any sign of it.
    pub no_progress: Duration,
    pub interrupt_grace: Duration,
    /// Between TERM and KILL.
    pub stop_grace: Duration,
    pub recycle_after_jobs: Option<u64>,
    pub recycle_above_mib: Option<u64>,
    /// The limit of an instance's cgroup; none: no limit.
    pub memory_mib: Option<u64>,
    /// The size of an instance's RAM directory.
    pub ram_mib: u64,
    /// Where the RAM directories are made.
    pub ram_dir: PathBuf,
    pub starts_at_once: usize,
}

impl Comfy {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let dir = reader.path_if_any("comfy.dir");
        let python = python(reader, dir.as_deref());
        Self {
            python,
            args: args(reader),
            dir,
            port: reader.whole("comfy.port", 1..=65_535),
            instances: reader.whole("comfy.instances", 0..=64),
            model_dir: reader.path("comfy.model_dir"),
            silent: reader.switch("comfy.silent"),
            start_deadline: reader.span("comfy.start_deadline", secs(1)..=secs(2 * HOUR)),
            job_deadline: reader.span("comfy.job_deadline", secs(1)..=secs(DAY)),
            no_progress: reader.span("comfy.no_progress", secs(1)..=secs(DAY)),
            interrupt_grace: reader.span("comfy.interrupt_grace", secs(0)..=secs(10 * MINUTE)),
            stop_grace: reader.span("comfy.stop_grace", secs(0)..=secs(10 * MINUTE)),
            recycle_after_jobs: unless_zero(reader, "comfy.recycle_after_jobs", 1_000_000_000),
            recycle_above_mib: unless_zero(reader, "comfy.recycle_above_mib", MOST_MIB),
            memory_mib: unless_zero(reader, "comfy.memory_mib", MOST_MIB),
            ram_mib: reader.whole("comfy.ram_mib", 1..=MOST_MIB),
            ram_dir: reader.path("comfy.ram_dir"),
            starts_at_once: reader.whole("comfy.starts_at_once", 1..=64),
        }
    }
}

const MOST_MIB: u64 = 16 << 20;

fn unless_zero(reader: &mut Reader<'_>, key: &'static str, most: u64) -> Option<u64> {
    Some(reader.whole(key, 0..=most)).filter(|number| *number > 0)
}

/// The checkout's own virtual environment where it has one.
fn python(reader: &mut Reader<'_>, dir: Option<&Path>) -> String {
    if let Some(chosen) = reader.text_if_any("comfy.python") {
        return chosen;
    }
    let own = dir.and_then(|dir| {
        [".venv/bin/python", "venv/bin/python"].map(|name| dir.join(name)).into_iter().find(|path| path.is_file())
    });
    let found = own.map_or_else(|| "python3".to_owned(), |path| path.to_string_lossy().into_owned());
    reader.derive("comfy.python", "comfy.dir", Value::Text(found.clone()));
    found
}

fn args(reader: &mut Reader<'_>) -> Vec<String> {
    let line = reader.text_if_any("comfy.args").unwrap_or_default();
    let words = split(&line).unwrap_or_else(|text| {
        reader.refuse("comfy.args", text);
        Vec::new()
    });
    if let Some(ours) = words.iter().find_map(|word| OURS.iter().find(|ours| names(word, ours))) {
        reader.refuse("comfy.args", &format!("{ours} is the daemon's own to set: leave it out"));
    }
    words
}

/// Options that decide who can reach ComfyUI, and where it writes. The last one given counts, and ours come first.
const OURS: [&str; 13] = [
    "--listen",
    "--port",
    "--tls-keyfile",
    "--tls-certfile",
    "--enable-cors-header",
    "--base-directory",
    "--output-directory",
    "--temp-directory",
    "--input-directory",
    "--user-directory",
    "--database-url",
    "--enable-manager",
    "--enable-assets",
];

/// Whether `word` is the option, alone or with its value, written out or shortened as argparse admits it.
fn names(word: &str, option: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    name.len() > "--x".len() && name.starts_with("--") && option.starts_with(name)
}

/// Splits as a shell does: at blanks, with `'…'` and `"…"` kept together and `\` before any one character. Nothing is
/// expanded.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(letters.next().ok_or("it ends with a \\ that escapes nothing")?),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or("a quote is not closed")? {
                        end if end == letter => break,
                        '\\' if letter == '"' => match letters.next().ok_or("a quote is not closed")? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_walls_comfyui_in_is_not_the_operators_to_set() {
        for word in ["--listen", "--listen=0.0.0.0", "--lis", "--output-directory", "--port=1"] {
            assert!(OURS.iter().any(|ours| names(word, ours)), "{word}");
        }
        for word in ["--cpu", "--lowvram", "--extra-model-paths-config", "--listening", "0.0.0.0", "--"] {
            assert!(!OURS.iter().any(|ours| names(word, ours)), "{word}");
        }
    }

    #[test]
    fn arguments_are_split_as_a_shell_splits_them() {
        for (line, words) in [
            ("", &[][..]),
            ("  ", &[]),
            ("--cpu", &["--cpu"]),
            (" --a  b\t--c=d ", &["--a", "b", "--c=d"]),
            (r#"--dir "/my models" 'it''s' "a\"b\$c\d" a\ b"#, &["--dir", "/my models", "its", "a\"b$c\\d", "a b"]),
            (r#"'' "" 'a"b\'"#, &["", "", "a\"b\\"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for line in ["'", "\"a", "a\\", "\"a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
