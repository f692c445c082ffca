//! The one thread that speaks to the driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use slog::{Logger, info, warn};
use tokio::sync::watch;

use super::Published;
use super::xid::{Cure, cure};
use crate::ports::gpu::{Gpu, GpuPicture};

/// How often events are taken between looks: of two that wait, NVML tells the later one only.
const EVENTS_EVERY: Duration = Duration::from_millis(250);
/// The most events of one GPU that are taken at a time.
const EVENTS_AT_ONCE: usize = 16;
/// So many looks in a row with an error that says nothing definite, and the GPU is unfit.
const FAILED_LOOKS: u32 = 5;
const GONE: &str = "the driver has lost it: restart the host";

/// What is known of a GPU for as long as the daemon runs, whatever becomes of its handle.
#[derive(Default)]
struct Known {
    uuid: String,
    name: String,
    xid: Option<u64>,
    faults: u64,
    /// An XID that only a reset or a restart of the host cures.
    condemned: Option<String>,
    failed_looks: u32,
}

/// A GPU as it is open now.
struct Card<'nvml> {
    device: Result<Device<'nvml>, NvmlError>,
    events: Option<EventSet<'nvml>>,
}

/// Answers looks until nobody can ask any more.
pub(super) fn serve(library: Option<&Path>, asked: &Receiver<u64>, published: &watch::Sender<Published>, log: &Logger) {
    let mut known = BTreeMap::new();
    while let Ok(number) = asked.recv() {
        match open(library) {
            Ok(nvml) => {
                info!(log, "gpu.driver"; "version" => nvml.sys_driver_version().unwrap_or_default());
                attend(&nvml, number, asked, published, &mut known, log);
            }
            Err(absent) => {
                published.send_replace((number, absent));
            }
        }
    }
}

fn open(library: Option<&Path>) -> Result<Nvml, GpuPicture> {
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(path.as_os_str());
    }
    builder.init().map_err(|error| match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => GpuPicture::NoDriver,
        other => GpuPicture::Unwell(other.to_string()),
    })
}

/// Serves looks with one open library, until it has to be opened anew or nobody can ask any more.
fn attend(
    nvml: &Nvml,
    mut number: u64,
    asked: &Receiver<u64>,
    published: &watch::Sender<Published>,
    known: &mut BTreeMap<u32, Known>,
    log: &Logger,
) {
    let mut cards: BTreeMap<u32, Card<'_>> = BTreeMap::new();
    loop {
        let count = match nvml.device_count() {
            Ok(count) => count,
            Err(error) => {
                published.send_replace((number, GpuPicture::Unwell(error.to_string())));
                return;
            }
        };
        let mut gpus = Vec::new();
        // One that vanished from the count is looked at all the same: its absence is what should be told.
        let most = known.keys().next_back().map_or(0, |last| last + 1).max(count);
        for index in 0..most {
            let known = known.entry(index).or_default();
            let card = cards.entry(index).or_insert_with(|| open_card(nvml, index));
            take_events(card, index, known, log);
            let mut gpu = look(card, index, known);
            if index >= count {
                gpu.unfit.get_or_insert_with(|| GONE.to_owned());
            }
            gpus.push(gpu);
            if known.failed_looks > 0 {
                // A handle from before a reset is good for nothing.
                cards.remove(&index);
            }
        }
        published.send_replace((number, GpuPicture::Gpus(gpus)));
        loop {
            match asked.recv_timeout(EVENTS_EVERY) {
                Ok(next) => {
                    number = next;
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    for (index, card) in &mut cards {
                        take_events(card, *index, known.entry(*index).or_default(), log);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Each card has an event set of its own, so that one that cannot be followed does not hide another's events.
fn open_card(nvml: &Nvml, index: u32) -> Card<'_> {
    let device = nvml.device_by_index(index);
    let events = device.as_ref().ok().and_then(|device| {
        let set = nvml.create_event_set().ok()?;
        device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()
    });
    Card { device, events }
}

fn take_events(card: &mut Card<'_>, index: u32, known: &mut Known, log: &Logger) {
    for _ in 0..EVENTS_AT_ONCE {
        let Some(events) = &card.events else { return };
        match events.wait(0) {
            Ok(event) => note(event.event_data, index, known, log),
            Err(NvmlError::Timeout) => return,
            // The look tells why.
            Err(_) => card.events = None,
        }
    }
}

fn note(xid: Option<XidError>, index: u32, known: &mut Known, log: &Logger) {
    let Some(XidError::Value(xid)) = xid else { return };
    let cure = cure(xid);
    warn!(log, "gpu.xid"; "gpu" => index, "xid" => xid, "cure" => ?cure);
    known.xid = Some(xid);
    match cure {
        Cure::RestartProcess => known.faults = known.faults.saturating_add(1),
        Cure::ResetGpu => {
            let text = format!("XID {xid} needs a reset (nvidia-smi --gpu-reset -i {index}), then restart the daemon");
            known.condemned = Some(text);
        }
        Cure::RestartHost => known.condemned = Some(format!("XID {xid} needs a restart of the host")),
        Cure::None => {}
    }
}

fn look(card: &Card<'_>, index: u32, known: &mut Known) -> Gpu {
    let mut gpu = Gpu {
        index,
        uuid: String::new(),
        name: String::new(),
        memory_total: None,
        memory_used: None,
        temperature: None,
        xid: known.xid,
        faults: known.faults,
        unfit: None,
    };
    let trouble = match &card.device {
        Ok(device) => measure(device, &mut gpu, known).err().map(|error| trouble(&error, index)),
        Err(error) => Some(trouble(error, index)),
    };
    known.failed_looks = if trouble.is_some() { known.failed_looks.saturating_add(1) } else { 0 };
    let lasts = known.failed_looks >= FAILED_LOOKS;
    let told = trouble.filter(|trouble| trouble.definite || lasts).map(|trouble| trouble.text);
    gpu.unfit = told.or_else(|| known.condemned.clone());
    gpu.uuid.clone_from(&known.uuid);
    gpu.name.clone_from(&known.name);
    gpu
}

/// What a look failed with.
struct Trouble {
    text: String,
    /// It says what is wrong with the GPU. Anything else may be over with the next look.
    definite: bool,
}

fn trouble(error: &NvmlError, index: u32) -> Trouble {
    let definite = |text: String| Trouble { text, definite: true };
    match error {
        NvmlError::GpuLost => definite("it fell off the bus (GPU is lost): restart the host".to_owned()),
        NvmlError::ResetRequired => definite(format!("it needs a reset: nvidia-smi --gpu-reset -i {index}")),
        NvmlError::InvalidArg | NvmlError::NotFound => definite(GONE.to_owned()),
        other => Trouble { text: format!("the driver fails to tell of it: {other}"), definite: false },
    }
}

fn measure(device: &Device<'_>, gpu: &mut Gpu, known: &mut Known) -> Result<(), NvmlError> {
    if known.uuid.is_empty() {
        known.uuid = device.uuid()?;
        known.name = told(device.name())?.unwrap_or_default();
    }
    if let Some(memory) = told(device.memory_info())? {
        (gpu.memory_total, gpu.memory_used) = (Some(memory.total), Some(memory.used));
    }
    gpu.temperature = told(device.temperature(TemperatureSensor::Gpu))?;
    Ok(())
}

/// None for what this GPU, driver or user is not told.
fn told<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
