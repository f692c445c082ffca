//! What is understood, what is not, and what the help says.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::cli::arguments::Cli;
use crate::cli::{ConfigCommand, Invocation, exit, parse};

fn parsed(line: &str) -> Invocation {
    let words: Vec<OsString> = std::iter::once("cloister").chain(line.split_whitespace()).map(Into::into).collect();
    parse(words)
}

fn ended(line: &str) -> u8 {
    match parsed(line) {
        Invocation::Ended(code) => code,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_exits_64_and_help_exits_0() {
    let id = "0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55";
    for line in [
        "",
        "nonsense",
        "env",
        "env setup",
        "env execute",
        "env execute not-a-uuid",
        "env delete",
        "serve --port 70000",
        "serve --set x",
        "serve --set =1",
        "serve --set A.b=1",
        "serve --set a..b=1",
        "serve --log-level loud",
        "config",
        "serve --token secret",
        "env setup f --runtime python",
        "env setup f --permissions {",
        "env setup f --ttl -1",
        "keygen --force",
        "keygen --from k --out f",
        "tenants set",
        "tenants set Acme",
        "tenants set acme --rate often",
        "tenants set acme --cpu-seconds 1.5",
        "tokens create --tenant acme",
        "tokens create --tenant acme --scopes everything",
        "tokens create --tenant acme --scopes all --expires 30",
        "tokens create --tenant acme --scopes all --expires 11y",
        "tokens revoke",
        "tokens revoke clo_0123456789ab_x",
    ] {
        assert_eq!(ended(line), exit::USAGE, "{line}");
    }
    assert_eq!(ended(&format!("env execute {id} --data 1 --data-file f")), exit::USAGE);
    for line in ["--help", "-h", "--version", "env --help", "env setup --help", "serve -h", "config show --help"] {
        assert_eq!(ended(line), exit::OK, "{line}");
    }
}

#[test]
fn serve_gives_its_flags_as_dotted_keys() {
    let line = "serve --port 0 --address ::1 --state-dir s --run-dir r --log-level debug --log-format json \
                --set server.workers=1 --set sandbox.args=a=b --config c.toml";
    let Invocation::Serve(flags) = parsed(line) else { panic!("serve") };
    assert_eq!(flags.config.config, Some("c.toml".into()));
    let settings = flags.config.settings();
    let settings: Vec<String> =
        settings.into_iter().map(|(flag, key, value)| format!("{flag} {key}={value}")).collect();
    insta::assert_snapshot!(settings.join("\n"), @r"
    --port server.port=0
    --address server.address=::1
    --state-dir daemon.state_dir=s
    --run-dir daemon.run_dir=r
    --log-level log.level=debug
    --log-format log.format=json
    --set server.workers=1
    --set sandbox.args=a=b
    ");
    let Invocation::Serve(plain) = parsed("serve") else { panic!("serve") };
    assert!(plain.config.settings().is_empty());
}

#[test]
fn what_is_not_a_clients_is_handed_back() {
    assert!(matches!(parsed("doctor --json"), Invocation::Doctor(flags) if flags.json));
    assert!(matches!(parsed("config check"), Invocation::Config(ConfigCommand::Check { json: false, .. })));
    assert!(matches!(
        parsed("config show --origin --set a.b=c"),
        Invocation::Config(ConfigCommand::Show { origin: true, config, .. }) if config.set.len() == 1
    ));
}

/// Every help text, one snapshot each: what a reader of `--help` sees is part of the contract.
#[test]
fn help_texts() {
    fn all(command: &mut clap::Command, name: String, texts: &mut Vec<(String, String)>) {
        texts.push((name.clone(), command.render_long_help().to_string()));
        let subcommands: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for sub in subcommands {
            all(command.find_subcommand_mut(&sub).unwrap(), format!("{name}_{sub}"), texts);
        }
    }
    let mut texts = Vec::new();
    let mut cli = Cli::command().term_width(100);
    cli.build();
    all(&mut cli, "help".to_owned(), &mut texts);
    assert_eq!(texts.len(), 35);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    settings.bind(|| {
        for (name, text) in texts {
            let is_group = text.contains("\nCommands:\n");
            assert!(is_group || text.contains("Example"), "{name} has no example");
            insta::assert_snapshot!(name, text);
        }
    });
}
