//! The runners' sources: part of the daemon, laid out once per start for the sandboxes to read.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::domain::environment::Runtime;

/// Each file with its place below a runtime's directory. The empty ones are where a way out and its certificate are bound.
const FILES: [(Runtime, &str, &str); 15] = [
    (Runtime::Deno, "transpiler.js", include_str!("../../../runtimes/deno/transpiler.js")),
    (Runtime::Deno, "sample.ts", include_str!("../../../runtimes/deno/sample.ts")),
    (Runtime::Deno, "resolver.js", include_str!("../../../runtimes/deno/resolver.js")),
    (Runtime::Deno, "frames.js", include_str!("../../../runtimes/deno/frames.js")),
    (Runtime::Deno, "runner.js", include_str!("../../../runtimes/deno/runner.js")),
    (Runtime::Deno, "core.js", include_str!("../../../runtimes/shared/core.js")),
    (Runtime::Deno, "egress.js", include_str!("../../../runtimes/deno/egress.js")),
    (Runtime::Deno, "egress.sock", ""),
    (Runtime::Deno, "authority.pem", ""),
    (Runtime::Bun, "runner.js", include_str!("../../../runtimes/bun/runner.js")),
    (Runtime::Bun, "installer.js", include_str!("../../../runtimes/bun/installer.js")),
    (Runtime::Bun, "core.js", include_str!("../../../runtimes/shared/core.js")),
    (Runtime::Bun, "egress.js", include_str!("../../../runtimes/bun/egress.js")),
    (Runtime::Bun, "egress.sock", ""),
    (Runtime::Bun, "authority.pem", ""),
];

/// Where this build's runners lie.
#[derive(Debug, Clone)]
pub(super) struct Runners {
    dir: PathBuf,
}

impl Runners {
    /// The directory that is bound to `/runtime`.
    pub(super) fn of(&self, runtime: Runtime) -> PathBuf {
        self.dir.join(runtime.as_str())
    }
}

/// Writes the runners below `root`, under a name that is made of their content, unless they are there already and
/// unchanged. They appear whole or not at all. Blocks; a few small files.
pub(super) fn lay_out(root: &Path) -> io::Result<Runners> {
    let dir = root.join(content_name());
    if !is_intact(&dir) {
        directory(root)?;
        let draft = root.join(format!(".draft-{}", uuid::Uuid::new_v4().simple()));
        directory(&draft)?;
        for (runtime, name, text) in FILES {
            let folder = draft.join(runtime.as_str());
            directory(&folder)?;
            let mut file = OpenOptions::new().write(true).create_new(true).open(folder.join(name))?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(0o444))?;
        }
        remove(&dir)?;
        fs::rename(&draft, &dir)?;
    }
    Ok(Runners { dir })
}

fn content_name() -> String {
    let mut hash = Sha256::new();
    for (runtime, name, text) in FILES {
        for part in [runtime.as_str(), name, text] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn is_intact(dir: &Path) -> bool {
    FILES.iter().all(|(runtime, name, text)| {
        fs::read(dir.join(runtime.as_str()).join(name)).is_ok_and(|found| found == text.as_bytes())
    })
}

fn directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // Whatever the daemon's umask is, the sandbox's user must be able to read them.
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_are_laid_out_once_and_mended_when_changed() {
        let root = tempfile::tempdir().unwrap();
        let runners = lay_out(root.path()).unwrap();
        let runner = runners.of(Runtime::Deno).join("runner.js");
        assert!(runner.exists() && runners.of(Runtime::Bun).join("core.js").exists());
        fs::write(&runner, "tampered").unwrap();
        lay_out(root.path()).unwrap();
        assert_ne!(fs::read_to_string(&runner).unwrap(), "tampered");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no draft stays behind");
    }
}
