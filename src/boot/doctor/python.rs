//! ComfyUI's interpreter: whether it is a program, and has torch.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Verdict};
use crate::adapters::comfy::INHERITED;
use crate::config::{Comfy, variable};
use crate::domain::execution::ProcessEnd;
use crate::ports::process::{SpawnRequest, Spawner};
use crate::telemetry::error_chain;

const WHAT: &str = "Python";
/// An interpreter on a cold disk takes a second or two.
const WITHIN: Duration = Duration::from_secs(15);
/// Prints the interpreter's version and torch's, by its metadata: to import it takes seconds and hundreds of MiB.
const ASK: &str = "import sys, importlib.metadata as installed
print('%d.%d.%d' % sys.version_info[:3])
try: print(installed.version('torch'))
except installed.PackageNotFoundError: pass";

/// Finds the interpreter and asks it.
pub(super) async fn interpreter(comfy: &Comfy, spawner: &dyn Spawner) -> Finding {
    let Some(program) = found(&comfy.python, &variable("PATH").unwrap_or_default()) else {
        let python = &comfy.python;
        let text = format!("{python} is no program; set COMFYUI_PYTHON (comfy.python) to ComfyUI's interpreter");
        return Finding::new(WHAT, Verdict::Bad, text);
    };
    let shown = program.display().to_string();
    let inherited = |name: &&str| Some((OsString::from(*name), OsString::from(variable(name)?)));
    let request = SpawnRequest {
        program,
        args: ["-c", ASK].map(OsString::from).into(),
        env: INHERITED.iter().filter_map(inherited).collect(),
        cwd: "/".into(),
        descriptors: Vec::new(),
        cgroup_entry: Vec::new(),
        private: false,
        batch: false,
    };
    match spawner.run_to_end(request, WITHIN).await {
        Err(error) => Finding::new(WHAT, Verdict::Bad, format!("{}; {REMEDY}", error_chain(&error))),
        Ok(finished) if finished.end != ProcessEnd::Exited(0) => {
            let last = finished.stderr.lines().last().unwrap_or("it does not say why").trim();
            Finding::new(WHAT, Verdict::Bad, format!("{shown} does not run as Python does: {last}; {REMEDY}"))
        }
        Ok(finished) => judge(&shown, comfy.dir.as_deref(), &finished.stdout),
    }
}

const REMEDY: &str = "set COMFYUI_PYTHON (comfy.python) to ComfyUI's interpreter";

/// `path`: the value of PATH, for a bare name.
fn found(python: &str, path: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if python.contains('/') {
        Some(PathBuf::from(python)).filter(runs)
    } else {
        path.split(':').map(|folder| Path::new(folder).join(python)).find(runs)
    }
}

/// `printed`: by [`ASK`].
fn judge(program: &str, dir: Option<&Path>, printed: &str) -> Finding {
    let mut lines = printed.lines();
    match (lines.next(), lines.next()) {
        (Some(python), Some(torch)) => {
            Finding::new(WHAT, Verdict::Good, format!("{program}: Python {python}, torch {torch}"))
        }
        (Some(python), None) => {
            let requirements = dir.unwrap_or(Path::new("ComfyUI")).join("requirements.txt");
            let text = format!(
                "{program}: Python {python} has no torch, and ComfyUI cannot start; {REMEDY}, or install its needs: \
                 {program} -m pip install -r {}",
                requirements.display()
            );
            Finding::new(WHAT, Verdict::Bad, text)
        }
        (None, _) => Finding::new(WHAT, Verdict::Bad, format!("{program} is no Python; {REMEDY}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_a_program_on_path_or_where_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("python9");
        fs::write(&file, "").unwrap();
        let (by_path, by_name) = (file.display().to_string(), format!("/nowhere:{}", dir.path().display()));
        assert_eq!(found(&by_path, ""), None, "it is no program yet");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found(&by_path, "").as_ref(), Some(&file));
        assert_eq!(found("python9", &by_name), Some(file));
        assert_eq!(found("python9", "/nowhere"), None);
    }

    #[test]
    fn an_interpreter_without_torch_is_told_with_the_remedy() {
        let judged = |printed: &str| judge("/venv/bin/python", Some(Path::new("/comfyui")), printed);
        let whole = judged("3.11.2\n2.9.0+cpu\n");
        assert_eq!(
            (whole.verdict, whole.text.as_str()),
            (Verdict::Good, "/venv/bin/python: Python 3.11.2, torch 2.9.0+cpu")
        );
        let bare = judged("3.11.2\n");
        assert_eq!(bare.verdict, Verdict::Bad);
        assert!(bare.text.contains("/venv/bin/python -m pip install -r /comfyui/requirements.txt"), "{}", bare.text);
        assert_eq!(judged("").verdict, Verdict::Bad);
    }
}
