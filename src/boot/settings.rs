//! The configuration for a command: loaded, or every error told at once.

use std::io::Write;

use super::exit::Exit;
use crate::cli::ConfigCommand;
use crate::cli::arguments::ConfigFlags;
use crate::config::{self, FlagValue, Loaded, Sources};

/// Loads the configuration. `serving`: a door will be opened, so that a token must be there.
///
/// # Errors
/// The exit code for a wrong configuration; what is wrong has been printed.
pub fn load(flags: &ConfigFlags, serving: bool) -> Result<Loaded, Exit> {
    let given = flags.settings().into_iter().map(|(flag, key, value)| FlagValue { flag: flag.to_owned(), key, value });
    let sources = Sources::of_process(flags.config.clone(), given.collect(), serving);
    config::load(&sources).map_err(|errors| {
        print(&mut std::io::stderr(), &format!("{errors}\n"));
        Exit::Config
    })
}

/// Runs `cloister config …`.
pub fn configuration(command: &ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Check { config, json } => check(config, *json),
        ConfigCommand::Show { config, origin, json } => match load(config, false) {
            Ok(loaded) => {
                print(&mut std::io::stdout(), &config::render(&loaded, *origin, *json));
                Exit::Fine
            }
            Err(exit) => exit,
        },
    }
}

fn check(flags: &ConfigFlags, json: bool) -> Exit {
    let loaded = match load(flags, true) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let text = if json {
        let file = loaded.file.as_ref().map(|path| path.to_string_lossy().into_owned());
        format!("{}\n", serde_json::json!({ "ok": true, "file": file, "warnings": loaded.warnings }))
    } else {
        let file = loaded.file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
        let warnings: String = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        format!("{warnings}the configuration is good ({file})\n")
    };
    print(&mut std::io::stdout(), &text);
    Exit::Fine
}

/// A closed terminal is no reason for another exit code.
pub(super) fn print(stream: &mut dyn Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}
