//! A handler's permissions as Deno's own flags. They are a second wall: the sandbox below stands without them.

use super::egress::{Egress, SOCKET};
use crate::domain::environment::{Grant, Permissions};

/// What the runner itself needs: the handler's modules, its own files, and its two descriptors.
const READS: &str = "/workspace,/runtime,/proc/self/fd/4";
const WRITES: &str = "/proc/self/fd/3";

/// Deno's flags for `permissions`. Bun has none: there the sandbox is the only wall.
///
/// `allowHrtime` has no flag any more (Deno 2 always gives the fine clock, and
/// warns of the flag on stderr).
/// Without a way out there is no `--allow-net` either: nothing could be reached. With one its forwarder writes to the
/// socket.
pub(super) fn deno_flags(permissions: &Permissions, egress: Option<&Egress>) -> Vec<String> {
    let socket = if egress.is_some() { format!(",{SOCKET}") } else { String::new() };
    let mut flags = vec![read_flag(permissions), write_flag(permissions.allow_write.as_ref()) + &socket];
    flags.extend(env_flag(permissions.allow_env.as_ref()));
    flags.extend(egress.map(Egress::allow_net));
    flags.extend(plain_flag("--allow-run", permissions.allow_run.as_ref()));
    flags.extend(plain_flag("--allow-ffi", permissions.allow_ffi.as_ref()));
    flags
}

/// Who may write /tmp may read there what it wrote.
fn read_flag(permissions: &Permissions) -> String {
    let own = match permissions.allow_write {
        Some(Grant::Switch(true)) => format!("{READS},/tmp"),
        Some(_) | None => READS.to_owned(),
    };
    match &permissions.allow_read {
        Some(Grant::Switch(true)) => "--allow-read".to_owned(),
        Some(Grant::Only(paths)) => with_paths("--allow-read", &own, paths),
        Some(Grant::Switch(false)) | None => format!("--allow-read={own}"),
    }
}

/// Nothing but /tmp can be written in the sandbox, so that is what the switch opens.
fn write_flag(grant: Option<&Grant>) -> String {
    match grant {
        Some(Grant::Switch(true)) => format!("--allow-write={WRITES},/tmp"),
        Some(Grant::Only(paths)) => with_paths("--allow-write", WRITES, paths),
        Some(Grant::Switch(false)) | None => format!("--allow-write={WRITES}"),
    }
}

/// Without a word about it the environment is open: it holds constants and what the caller sent along, nothing else.
fn env_flag(grant: Option<&Grant>) -> Option<String> {
    match grant {
        None => Some("--allow-env".to_owned()),
        Some(_) => plain_flag("--allow-env", grant),
    }
}

fn plain_flag(flag: &str, grant: Option<&Grant>) -> Option<String> {
    match grant? {
        Grant::Switch(true) => Some(flag.to_owned()),
        Grant::Only(names) if !names.is_empty() => Some(format!("{flag}={}", names.join(","))),
        Grant::Switch(false) | Grant::Only(_) => None,
    }
}

/// A relative path is meant from the handler's own root.
fn with_paths(flag: &str, own: &str, paths: &[String]) -> String {
    let mut text = format!("{flag}={own}");
    for path in paths {
        let root = if path.starts_with('/') { "" } else { "/workspace/" };
        text.push(',');
        text.push_str(root);
        text.push_str(path);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::egress::Policy;

    fn only(names: &[&str]) -> Option<Grant> {
        Some(Grant::Only(names.iter().map(|&name| name.to_owned()).collect()))
    }

    #[test]
    fn without_permissions_the_runner_gets_what_it_needs_and_no_more() {
        assert_eq!(
            deno_flags(&Permissions::default(), None),
            ["--allow-read=/workspace,/runtime,/proc/self/fd/4", "--allow-write=/proc/self/fd/3", "--allow-env"]
        );
    }

    #[test]
    fn lists_are_added_and_switches_open() {
        let permissions = Permissions {
            allow_net: None,
            allow_env: only(&["HOME"]),
            allow_read: only(&["data", "/etc"]),
            allow_write: Some(Grant::Switch(true)),
            allow_run: Some(Grant::Switch(true)),
            allow_ffi: Some(Grant::Switch(false)),
            allow_hrtime: Some(true),
        };
        assert_eq!(
            deno_flags(&permissions, None),
            [
                "--allow-read=/workspace,/runtime,/proc/self/fd/4,/tmp,/workspace/data,/etc",
                "--allow-write=/proc/self/fd/3,/tmp",
                "--allow-env=HOME",
                "--allow-run",
            ]
        );
    }

    fn way_out(grant: Grant) -> Egress {
        Egress {
            socket: "/run/cloister/egress/1".into(),
            authority: None,
            policy: Policy::of(Some(&grant)).expect("a policy"),
        }
    }

    #[test]
    fn a_way_out_is_open_to_its_forwarder_and_to_the_handler_for_what_is_listed() {
        let listed = way_out(Grant::Only(vec!["API.example:443".into(), "*.b.example".into()]));
        assert_eq!(
            deno_flags(&Permissions::default(), Some(&listed)),
            [
                "--allow-read=/workspace,/runtime,/proc/self/fd/4",
                "--allow-write=/proc/self/fd/3,/runtime/egress.sock",
                "--allow-env",
                "--allow-net=127.0.0.1:3128,unix:/runtime/egress.sock,api.example:443,*.b.example",
            ]
        );
        let all = Permissions { allow_read: Some(Grant::Switch(true)), ..Permissions::default() };
        let flags = deno_flags(&all, Some(&way_out(Grant::Switch(true))));
        assert!(flags.contains(&"--allow-read".to_owned()) && flags.contains(&"--allow-net".to_owned()), "{flags:?}");
    }

    #[test]
    fn an_empty_list_grants_nothing() {
        let permissions = Permissions { allow_run: only(&[]), allow_env: only(&[]), ..Permissions::default() };
        let flags = deno_flags(&permissions, None);
        assert!(
            flags.iter().all(|flag| !flag.starts_with("--allow-run") && !flag.starts_with("--allow-env")),
            "{flags:?}"
        );
    }
}
