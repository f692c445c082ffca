//! `cloister status`: the daemon's parts, pool and reaper in a plain table.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use crate::api::dto::health::{
    EgressPicture, GpusBody, InstanceBody, PartBody, PartState, PoolPicture, ReaperPicture, RolloutPicture,
    TenantsPicture, state_name,
};
use crate::api::dto::{ErrorBody, HealthBody};
use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::socket::{SocketFlags, ask};
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::cli::variables::Variables;

const EVERY: Duration = Duration::from_secs(1);
/// ANSI: cursor home, clear what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// How to show it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cloister status
  cloister status --watch
  cloister status --json | jq .pool.running")]
pub struct StatusFlags {
    /// Show it again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    socket: SocketFlags,
}

/// Shows the daemon once, or until Ctrl-C.
pub async fn run(flags: &StatusFlags, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let path = flags.socket.path(variables);
    if !flags.watch {
        let text = picture(&path, flags.socket.json).await?;
        write!(streams.out, "{text}")?;
        return Ok(exit::OK);
    }
    loop {
        // A daemon that is being restarted comes back.
        let text = picture(&path, flags.socket.json).await.unwrap_or_else(|error| format!("{error}\n"));
        let clear = if streams.terminal { CLEAR } else { "" };
        write!(streams.out, "{clear}{text}")?;
        streams.out.flush()?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(exit::OK),
        }
    }
}

async fn picture(path: &Path, json: bool) -> Result<String, ClientError> {
    let (status, text) = ask(path, "/healthz").await?;
    match serde_json::from_str::<HealthBody>(&text) {
        Ok(_) if json => Ok(format!("{text}\n")),
        Ok(health) => Ok(in_tables(&health)),
        Err(_) => Err(match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => ClientError::Refused { message: printable(&body.error), code: body.code },
            Err(_) => ClientError::Foreign { at: path.display().to_string(), status },
        }),
    }
}

fn in_tables(health: &HealthBody) -> String {
    let yes = |good: bool, word: &str| if good { word.to_owned() } else { format!("not {word}") };
    let mut text = format!(
        "cloister {}: {}, {}{}\n",
        printable(&health.version),
        yes(health.live, "live"),
        yes(health.ready, "ready"),
        if health.draining { ", draining" } else { "" },
    );
    for warning in &health.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    text.push('\n');
    text.push_str(&parts(&health.parts));
    text.push('\n');
    text.push_str(&sandboxes(health));
    if health.tenants.tokens > 0 {
        text.push('\n');
        text.push_str(&tenants(&health.tenants));
    }
    if let Some(picture) = &health.egress {
        text.push('\n');
        text.push_str(&egress(picture));
    }
    if !health.images.is_empty() {
        text.push('\n');
        text.push_str(&images(&health.images));
    }
    if !health.instances.is_empty() {
        text.push('\n');
        text.push_str(&instances(&health.instances));
    }
    if let Some(told) = &health.gpus {
        text.push('\n');
        text.push_str(&gpus(told));
    }
    text
}

fn sandboxes(health: &HealthBody) -> String {
    let is_off = |part: &&PartBody| part.name == "sandbox_pool" && part.state == PartState::Off;
    if let (None, Some(part)) = (&health.pool, health.parts.iter().find(is_off)) {
        return format!("sandboxes are off: {}\n", printable(&part.reasons.join("; ")));
    }
    let pool = health.pool.as_ref().map_or_else(|| "the pool does not answer\n".to_owned(), pool);
    let reaper = health.reaper.as_ref().map_or_else(|| "the reaper does not answer\n".to_owned(), reaper);
    format!("{pool}\n{reaper}")
}

fn tenants(picture: &TenantsPicture) -> String {
    let counts = picture.counts;
    let mut numbers = vec![picture.tenants.to_string(), picture.tokens.to_string()];
    let refused = [counts.refused_rate, counts.refused_concurrency, counts.refused_cpu];
    numbers.extend([counts.calls].iter().chain(&refused).map(ToString::to_string));
    let heading = row(["TENANTS", "TOKENS", "CALLS", "REFUSED: RATE", "AT ONCE", "CPU TIME"]);
    table(&[heading, numbers])
}

fn egress(picture: &EgressPicture) -> String {
    let numbers = vec![
        picture.gates.to_string(),
        picture.connections.to_string(),
        picture.allowed.to_string(),
        picture.refused.to_string(),
        picture.secrets_put.to_string(),
        picture.secrets_withheld.to_string(),
        format!("{:.1} MiB", picture.bytes as f64 / f64::from(1 << 20)),
    ];
    table(&[row(["WAYS OUT", "CONNECTIONS", "ALLOWED", "REFUSED", "SECRETS PUT", "WITHHELD", "MOVED"]), numbers])
}

fn images(images: &[RolloutPicture]) -> String {
    let digest = |text: &Option<String>| {
        let hex = text.as_deref().map(|text| text.trim_start_matches("sha256:").chars().take(12).collect::<String>());
        hex.map_or_else(|| "-".to_owned(), |hex| printable(&hex))
    };
    let mut rows = vec![row(["IMAGE OF", "SERVES", "ON TRIAL", "STARTS", "PROBLEM"])];
    rows.extend(images.iter().map(|image| {
        let starts =
            if image.on_trial.is_some() { format!("{} of {}", image.passed, image.needed) } else { "-".into() };
        let problem = printable(image.problem.as_deref().unwrap_or_default());
        vec![image.runtime.to_string(), digest(&image.serving), digest(&image.on_trial), starts, problem]
    }));
    table(&rows)
}

fn instances(instances: &[InstanceBody]) -> String {
    let mut rows = vec![row(["INSTANCE", "STATE", "PORT", "JOBS", "MEMORY", "JOB IN HAND", "REASONS"])];
    rows.extend(instances.iter().map(|instance| {
        vec![
            printable(&instance.name),
            printable(&instance.state),
            instance.port.to_string(),
            instance.jobs.to_string(),
            instance.memory_mib.map_or_else(|| "-".to_owned(), |mib| format!("{mib} MiB")),
            instance.job.as_deref().map_or_else(|| "-".to_owned(), printable),
            printable(&instance.complaints.join("; ")),
        ]
    }));
    table(&rows)
}

fn gpus(told: &GpusBody) -> String {
    match (told.driver.as_str(), told.gpus.as_slice()) {
        ("absent", _) => return "no GPU driver\n".to_owned(),
        ("unwell", _) => {
            let reason = told.reason.as_deref().unwrap_or("it does not say why");
            return format!("the GPU driver gives no answer: {}\n", printable(reason));
        }
        (_, []) => return "no GPUs\n".to_owned(),
        _ => {}
    }
    let mib = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| (bytes >> 20).to_string());
    let mut rows = vec![row(["GPU", "NAME", "MEMORY", "TEMPERATURE", "LAST XID", "UNFIT"])];
    rows.extend(told.gpus.iter().map(|gpu| {
        vec![
            gpu.index.to_string(),
            printable(&gpu.name),
            format!("{} of {} MiB", mib(gpu.memory_used), mib(gpu.memory_total)),
            gpu.temperature.map_or_else(|| "-".to_owned(), |degrees| format!("{degrees} °C")),
            gpu.xid.map_or_else(|| "-".to_owned(), |xid| xid.to_string()),
            printable(gpu.unfit.as_deref().unwrap_or_default()),
        ]
    }));
    table(&rows)
}

fn parts(parts: &[PartBody]) -> String {
    let mut rows = vec![row(["PART", "STATE", "RESTARTS", "LAST BEAT", "REASONS"])];
    rows.extend(parts.iter().map(|part| {
        let beat = part.beat_age_ms.map_or_else(|| "-".to_owned(), |age| format!("{age} ms ago"));
        let name = if part.essential { part.name.clone() } else { format!("{} (optional)", part.name) };
        vec![
            printable(&name),
            state_name(part.state).to_owned(),
            part.restarts.to_string(),
            beat,
            printable(&part.reasons.join("; ")),
        ]
    }));
    table(&rows)
}

fn pool(pool: &PoolPicture) -> String {
    let counts = [
        pool.running,
        pool.queued,
        pool.booting,
        pool.standing,
        pool.warming,
        pool.destroying,
        pool.wedged,
        pool.set_ups,
        pool.set_ups_queued,
    ];
    let mut numbers: Vec<String> = counts.iter().map(ToString::to_string).collect();
    numbers.push(pool.executions_total.to_string());
    let heading = row([
        "RUNNING",
        "QUEUED",
        "BOOTING",
        "STANDING",
        "WARMING",
        "DESTROYING",
        "WEDGED",
        "SET-UPS",
        "WAITING SET-UPS",
        "CALLS SO FAR",
    ]);
    table(&[heading, numbers])
}

fn reaper(reaper: &ReaperPicture) -> String {
    let counts = [
        reaper.rounds,
        reaper.expired_environments,
        reaper.broken_records,
        reaper.orphan_volumes,
        reaper.orphan_slots,
        reaper.package_sets,
        reaper.reaped_zombies,
        reaper.forgotten_executions,
    ];
    let heading = row(["REAPED: ROUNDS", "EXPIRED", "BROKEN", "VOLUMES", "SLOTS", "PACKAGES", "ZOMBIES", "OLD CALLS"]);
    let mut text = table(&[heading, counts.iter().map(ToString::to_string).collect()]);
    for failure in &reaper.last_failures {
        text.push_str(&format!("  not removed: {}\n", printable(failure)));
    }
    text
}
