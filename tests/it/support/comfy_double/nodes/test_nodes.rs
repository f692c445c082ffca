//! Nodes that take their time, fail, or take the process along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Data, Image, Ran, Stop, keep_memory, save, seconds};
use crate::faults::{befall, spawn_children};
use crate::files::{JPEG, png};
use crate::progress::Picture;
use crate::switches::{Children, Fault};

/// The nodes of the recorded test pack.
pub fn run(call: &mut Call<'_, '_>) -> Result<Ran, Stop> {
    match call.class {
        "TestSteps" => {
            let (preview, pause) = (call.text("preview"), seconds(call.float("delay")));
            steps(call, pause, &preview)?;
        }
        "TestBlock" => block(call),
        "TestFail" => fail(call)?,
        "TestText" => call.progress.text(call.node, &call.text("text")),
        _ => return Ok(Ran::one(Data::Opaque)),
    }
    Ok(Ran::one(Data::Image(call.image())))
}

/// A sampler that needs no model: its steps, and a preview after each.
pub fn sample(call: &mut Call<'_, '_>) -> Result<Ran, Stop> {
    let preview = if call.progress.job.extra_data["preview_method"] == "none" { "none" } else { "JPEG" };
    steps(call, Duration::from_millis(20), preview)?;
    Ok(Ran::one(Data::Opaque))
}

fn steps(call: &mut Call<'_, '_>, pause: Duration, preview: &str) -> Result<(), Stop> {
    let most = call.int("steps");
    for step in 1..=most {
        std::thread::sleep(pause);
        call.breathe()?;
        let color = ((step as u32 * 40) % 256) << 16 | 0x5078;
        let picture = match preview {
            "JPEG" => Some(Picture { jpeg: true, bytes: Arc::from(JPEG) }),
            "PNG" => Some(Picture { jpeg: false, bytes: Arc::from(png::flat(64, 64, color, &[])) }),
            _ => None,
        };
        call.progress.step(call.node, step, most, picture);
    }
    Ok(())
}

fn block(call: &Call<'_, '_>) {
    let pause = seconds(call.float("seconds"));
    match call.text("mode").as_str() {
        "busy" => {
            let end = Instant::now() + pause;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        "gil" => drop(befall(call.server(), &Fault::Freeze(pause))),
        _ => std::thread::sleep(pause),
    }
}

fn fail(call: &Call<'_, '_>) -> Result<(), Stop> {
    let amount = call.int("amount");
    match call.text("kind").as_str() {
        "raise" => return Err(Stop::failed("ValueError", format!("{}\n", call.text("text")))),
        "sysexit" | "keyboard" => return Err(Stop::Dead),
        "os_exit" => drop(befall(call.server(), &Fault::Exit(amount as i32))),
        "segv" => drop(befall(call.server(), &Fault::Segv)),
        "abort" => drop(befall(call.server(), &Fault::Abort)),
        "oom_error" => return Err(out_of_gpu_memory()),
        "alloc" => allocate(amount)?,
        _ => {}
    }
    Ok(())
}

fn out_of_gpu_memory() -> Stop {
    let told = "CUDA out of memory. (simulated)\nThis error means you ran out of memory on your GPU.\n\nTIPS: If the \
                workflow worked before you might have accidentally set the batch_size to a large number.";
    Stop::failed("torch.OutOfMemoryError", told)
}

/// So many quarters of a gibibyte at once, given back when the node returns.
fn allocate(amount: u64) -> Result<(), Stop> {
    const PIECE: usize = 256 << 20;
    let mut kept = Vec::new();
    for _ in 0..amount {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(PIECE).is_err() {
            let told =
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 268435456 bytes. Error code 12";
            return Err(Stop::failed("RuntimeError", format!("{told} (Cannot allocate memory)\n")));
        }
        piece.resize(PIECE, 1u8);
        kept.push(piece);
    }
    Ok(())
}

/// The double's own nodes.
pub fn double(call: &Call<'_, '_>) -> Result<Ran, Stop> {
    match call.class {
        "DoubleSave" => return save::save_as_told(call),
        "DoubleSpawn" => {
            let detached = call.plain("detached") == true;
            spawn_children(&Children { count: call.int("count") as u32, detached });
        }
        "DoubleFill" => save::fill(call)?,
        _ => keep_memory(call.int("mib") as usize),
    }
    Ok(Ran::default())
}

impl From<Image> for Data {
    fn from(image: Image) -> Self {
        Self::Image(image)
    }
}
