//! Whether an instance's GPU may be used.

use actix::prelude::*;

use super::ComfyProcess;
use crate::domain::instance::Event;
use crate::ports::gpu::{Gpu, GpuPicture};

/// So many looks in a row without an answer of the driver, and its GPUs are unfit. One may just have been slow.
const UNWELL_LOOKS: u32 = 3;

impl ComfyProcess {
    /// Looks at the GPU, unless a look is under way.
    pub(super) fn look_at_gpu(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let gpus = std::sync::Arc::clone(&self.deps.gpus);
        let look = async move { gpus.look().await }.into_actor(self);
        ctx.spawn(look.map(|picture, actor, ctx| {
            actor.looking = false;
            actor.unwell = if matches!(picture, GpuPicture::Unwell(_)) { actor.unwell.saturating_add(1) } else { 0 };
            if (1..UNWELL_LOOKS).contains(&actor.unwell) {
                return;
            }
            let (unfit, faults) = fitness(&picture, actor.deps.spec.device.as_deref());
            actor.step(Event::GpuLooked { unfit, faults }, ctx);
        }));
    }
}

/// Why the GPUs of a `CUDA_VISIBLE_DEVICES` value must not be used, and how many of their errors a restart of the
/// process cures. A process without a value sees all of them.
pub(super) fn fitness(picture: &GpuPicture, device: Option<&str>) -> (Option<String>, u64) {
    let gpus = match picture {
        GpuPicture::NoDriver => return (None, 0),
        GpuPicture::Unwell(reason) => return (Some(format!("the GPU driver gives no answer: {reason}")), 0),
        GpuPicture::Gpus(gpus) => gpus,
    };
    let names: Option<Vec<&str>> = device.map(|value| value.split(',').map(str::trim).collect());
    let seen = |gpu: &&Gpu| names.as_ref().is_none_or(|names| names.iter().any(|name| is(gpu, name)));
    let seen: Vec<&Gpu> = gpus.iter().filter(seen).collect();
    let unfit = seen.iter().find_map(|gpu| {
        let reason = gpu.unfit.as_ref()?;
        Some(format!("GPU {} is not fit for work: {reason}", gpu.index))
    });
    let missing = || {
        let known = |name: &&str| gpus.iter().any(|gpu| is(gpu, name));
        let name = names.as_ref()?.iter().find(|name| is_a_gpu(name) && !known(name))?;
        Some(format!("GPU {name} is not there"))
    };
    (unfit.or_else(missing), seen.iter().map(|gpu| gpu.faults).sum())
}

/// A UUID may be shortened, as CUDA allows.
fn is(gpu: &Gpu, name: &str) -> bool {
    match name.parse::<u32>() {
        Ok(index) => gpu.index == index,
        Err(_) => name.starts_with("GPU-") && gpu.uuid.starts_with(name),
    }
}

/// Whether a name means a whole GPU: `-1` hides them all, and a `MIG-…` is a part of one.
fn is_a_gpu(name: &str) -> bool {
    name.starts_with("GPU-") || name.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, unfit: Option<&str>) -> Gpu {
        Gpu {
            index,
            uuid: format!("GPU-{index}abc"),
            name: "double".into(),
            memory_total: None,
            memory_used: None,
            temperature: None,
            xid: None,
            faults: u64::from(index) + 1,
            unfit: unfit.map(str::to_owned),
        }
    }

    #[test]
    fn an_instance_is_judged_by_its_own_gpus() {
        let picture = GpuPicture::Gpus(vec![gpu(0, None), gpu(1, Some("it is lost"))]);
        let lost = || Some("GPU 1 is not fit for work: it is lost".to_owned());
        for (device, expected) in [
            (Some("0"), (None, 1)),
            (Some("1"), (lost(), 2)),
            (Some("GPU-0"), (None, 1)),
            (Some("GPU-1abc"), (lost(), 2)),
            (Some("0, 1"), (lost(), 3)),
            (None, (lost(), 3)),
            (Some("2"), (Some("GPU 2 is not there".to_owned()), 0)),
            (Some("GPU-2"), (Some("GPU GPU-2 is not there".to_owned()), 0)),
            (Some("-1"), (None, 0)),
            (Some(""), (None, 0)),
            (Some("MIG-0abc"), (None, 0)),
        ] {
            assert_eq!(fitness(&picture, device), expected, "{device:?}");
        }
        assert_eq!(fitness(&GpuPicture::NoDriver, Some("0")), (None, 0));
        assert!(fitness(&GpuPicture::Unwell("slow".into()), None).0.is_some());
    }
}
