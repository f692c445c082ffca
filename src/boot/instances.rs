//! The instances of a host: how many, on which GPU each, and by which limits they live.

use std::time::Duration;

use crate::config::Comfy;
use crate::domain::instance::{InstancePolicy, InstanceSpec};

/// The instances, each with a name, a GPU and a port of its own. `devices` are the host's GPUs as
/// `CUDA_VISIBLE_DEVICES` names them; more instances than GPUs share them in turn. To be called once.
pub fn specs(comfy: &Comfy, devices: &[String]) -> Vec<InstanceSpec> {
    // ComfyUI on the CPU is told of no GPU, and none can be unfit for it.
    let on_cpu = comfy.args.iter().any(|arg| arg == "--cpu");
    let devices = if on_cpu { &[] } else { devices };
    let many = if comfy.instances == 0 { devices.len().max(1) } else { usize::from(comfy.instances) };
    (0..many)
        .zip(comfy.port..=u16::MAX)
        .map(|(number, port)| {
            let device = match devices.len() {
                0 => on_cpu.then(String::new),
                gpus => devices.get(number % gpus).cloned(),
            };
            // A child's name lives as long as the daemon, and there are a few of them.
            InstanceSpec { name: Box::leak(format!("comfy-{number}").into_boxed_str()), device, port }
        })
        .collect()
}

/// The limits of each of them.
pub fn policy(comfy: &Comfy) -> InstancePolicy {
    InstancePolicy {
        start_deadline: comfy.start_deadline,
        job_deadline: comfy.job_deadline,
        no_progress: comfy.no_progress,
        interrupt_grace: comfy.interrupt_grace,
        abort_grace: Duration::from_secs(3).min(comfy.stop_grace),
        stop_grace: comfy.stop_grace,
        recycle_after_jobs: comfy.recycle_after_jobs,
        recycle_above: comfy.recycle_above_mib.map(|mib| mib << 20),
        ..InstancePolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn comfy(set: &[(&str, &str)]) -> Comfy {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let sources = Sources {
            file: None,
            standard_file: "/nonexistent".into(),
            environment: set.iter().map(pair).collect(),
            flags: Vec::new(),
            serving: false,
        };
        let config: Config = crate::config::load(&sources).unwrap().config;
        config.comfy
    }

    fn placed(set: &[(&str, &str)], devices: &[&str]) -> Vec<(&'static str, Option<String>, u16)> {
        let devices: Vec<String> = devices.iter().map(|&device| device.to_owned()).collect();
        specs(&comfy(set), &devices).into_iter().map(|spec| (spec.name, spec.device, spec.port)).collect()
    }

    #[test]
    fn there_is_one_for_each_gpu_and_at_least_one() {
        let gpu = |name: &str| Some(name.to_owned());
        assert_eq!(placed(&[], &[]), [("comfy-0", None, 8188)]);
        let two = [("comfy-0", gpu("GPU-a"), 8188), ("comfy-1", gpu("GPU-b"), 8189)];
        assert_eq!(placed(&[], &["GPU-a", "GPU-b"]), two);
        let shared = placed(&[("CLOISTER__COMFY__INSTANCES", "3"), ("COMFY_PORT", "9000")], &["GPU-a", "GPU-b"]);
        assert_eq!(shared[2], ("comfy-2", gpu("GPU-a"), 9002));
    }

    #[test]
    fn on_the_cpu_no_gpu_is_shown_or_counted() {
        assert_eq!(placed(&[("COMFYUI_ARGS", "--cpu")], &["GPU-a", "GPU-b"]), [("comfy-0", Some(String::new()), 8188)]);
    }

    #[test]
    fn nothing_set_means_no_recycling() {
        let policy = policy(&comfy(&[("CLOISTER__COMFY__RECYCLE_ABOVE_MIB", "2")]));
        assert_eq!((policy.recycle_after_jobs, policy.recycle_above), (None, Some(2 << 20)));
    }
}
