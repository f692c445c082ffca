//! A sandbox's way out as its bundle has it: one bound socket, the forwarder before it, and the variables that lead there.

use std::path::PathBuf;

use super::host;
use super::spec::UNPRIVILEGED;
use crate::domain::egress::Policy;
use crate::domain::environment::Runtime;
use crate::domain::id::SlotId;
use crate::ports::egress::{EgressGates, Passage, WayOut};
use crate::ports::sandbox::SandboxError;

/// Where the socket is bound in the sandbox: over a file of the runner's own, for the gofer would make one in the image on
/// the host. The forwarders (`runtimes/*/egress.js`) have it, too.
pub(super) const SOCKET: &str = "/runtime/egress.sock";
/// Where the certificate of the sandbox's own authority is bound, over a file of the runner's own as well.
pub(super) const AUTHORITY: &str = "/runtime/authority.pem";
/// Where the forwarder listens in the sandbox, for every program that takes a proxy from its environment.
pub(super) const FORWARDER: &str = "127.0.0.1:3128";
/// The runner's word for starting the forwarder.
pub(super) const ARGUMENT: &str = "egress";

/// A way out that is open.
#[derive(Debug, Clone)]
pub(super) struct Egress {
    /// On the host.
    pub socket: PathBuf,
    /// On the host; None: the proxy ends no TLS of this sandbox.
    pub authority: Option<PathBuf>,
    pub policy: Policy,
}

impl Egress {
    /// Opens it for the user that the sandbox's files belong to. Blocks.
    pub(super) fn open(
        gates: &dyn EgressGates,
        slot: SlotId,
        passage: Passage,
        host_ids: Option<u32>,
    ) -> Result<Self, SandboxError> {
        let owner = host_ids.map_or(UNPRIVILEGED, |first| first + UNPRIVILEGED);
        let policy = passage.policy.clone();
        let opened = gates.open(slot, passage, owner).map_err(host("opening the sandbox's way out"))?;
        let WayOut { socket, authority } = opened;
        Ok(Self { socket, authority, policy })
    }

    /// What Deno's own `--allow-net` must admit: the rules, and the way to the proxy.
    pub(super) fn allow_net(&self) -> String {
        match &self.policy {
            Policy::Any => "--allow-net".to_owned(),
            Policy::Only(rules) => {
                let rules: String = rules.iter().map(|rule| format!(",{rule}")).collect();
                format!("--allow-net={FORWARDER},unix:{SOCKET}{rules}")
            }
        }
    }
}

/// By either spelling programs find the proxy. The host's authorities are trusted beside the runtime's own, a company's
/// among them, and the sandbox's.
pub(super) fn environment(egress: &Egress, runtime: Runtime) -> Vec<String> {
    let mut entries: Vec<String> = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]
        .map(|name| format!("{name}=http://{FORWARDER}"))
        .into();
    let trusted: &[&str] = match (runtime, egress.authority.is_some()) {
        (Runtime::Deno, false) => &["DENO_TLS_CA_STORE=mozilla,system"],
        (Runtime::Deno, true) => &["DENO_TLS_CA_STORE=mozilla,system", "DENO_CERT=/runtime/authority.pem"],
        (Runtime::Bun, false) => &["NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt"],
        // It takes one file there: the host's are asked for by another word then.
        (Runtime::Bun, true) => &["NODE_USE_SYSTEM_CA=1", "NODE_EXTRA_CA_CERTS=/runtime/authority.pem"],
    };
    entries.extend(trusted.iter().map(|&entry| entry.to_owned()));
    entries
}
