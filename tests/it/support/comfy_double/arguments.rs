//! The command line that ComfyUI understands, as far as it changes what the double does.

use std::path::PathBuf;

/// What the flags say; what is not known is kept in `all` alone.
pub struct Arguments {
    pub listen: String,
    pub port: u16,
    pub output: PathBuf,
    pub input: PathBuf,
    /// `<--temp-directory>/temp`, as the real one has it.
    pub temp: PathBuf,
    pub disable_metadata: bool,
    pub cache: bool,
    pub max_upload: usize,
    /// The whole line, `main.py` first, as `/system_stats` shows it.
    pub all: Vec<String>,
}

impl Arguments {
    /// Reads the flags behind the script's name.
    pub fn parse(line: impl Iterator<Item = String>) -> Self {
        let all: Vec<String> = line.collect();
        let here = std::env::current_dir().expect("a working directory");
        let value = |flag: &str| {
            let at = all.iter().position(|word| word == flag)?;
            all.get(at + 1).filter(|word| !word.starts_with("--")).cloned()
        };
        let has = |flag: &str| all.iter().any(|word| word == flag);
        let folder = |flag: &str, usual: &str| value(flag).map_or_else(|| here.join(usual), PathBuf::from);
        let mebibytes: f64 = value("--max-upload-size").map_or(100.0, |text| text.parse().expect("a size in MB"));
        let max_upload = (mebibytes * 1024.0 * 1024.0).round() as usize;
        Self {
            listen: value("--listen").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: value("--port").map_or(8188, |text| text.parse().expect("a port")),
            output: folder("--output-directory", "output"),
            input: folder("--input-directory", "input"),
            temp: value("--temp-directory").map_or_else(|| here.clone(), PathBuf::from).join("temp"),
            disable_metadata: has("--disable-metadata"),
            cache: !has("--cache-none"),
            max_upload,
            all,
        }
    }

    /// Wipes the temp folder, whoever else may use it, and makes the others: before the port is tried, as the real one
    /// does.
    pub fn make_directories(&self) {
        let _ = std::fs::remove_dir_all(&self.temp);
        for folder in [&self.output, &self.input] {
            let _ = std::fs::create_dir_all(folder);
        }
    }

    /// The folder that `output`, `input` or `temp` names.
    pub fn folder(&self, kind: &str) -> Option<&PathBuf> {
        match kind {
            "output" => Some(&self.output),
            "input" => Some(&self.input),
            "temp" => Some(&self.temp),
            _ => None,
        }
    }
}
