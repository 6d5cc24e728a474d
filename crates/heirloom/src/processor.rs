//! The device that a plan asks for.
//!
//! In: the plan's precision, and what the device is for. Out: a device, and what a person should
//! know of it. Never: prints.

use heirloom_engine::{Cpu, Precision};
use heirloom_train::{Device, Work};

/// A device for `work` with `threads` threads. Answers that are kept serve runs of any precision,
/// and are computed in `f32`.
pub fn device(work: Work, precision: heirloom_recipe::Precision, threads: usize) -> Device {
    let precision = match work {
        Work::Training => of(precision),
        Work::KeptAnswers => Precision::F32,
    };
    Box::new(Cpu::new(threads).with_precision(precision))
}

/// The engine's name for a plan's precision.
pub fn of(precision: heirloom_recipe::Precision) -> Precision {
    match precision {
        heirloom_recipe::Precision::F32 => Precision::F32,
        heirloom_recipe::Precision::Bf16 => Precision::Bf16,
    }
}

/// What computes the products, where it is not the usual: whoever asked for speed is told when
/// there is none to gain.
pub fn note(precision: Precision) -> Option<&'static str> {
    match (precision, Cpu::has_bf16()) {
        (Precision::F32, _) => None,
        (Precision::Bf16, true) => Some("bf16: by the processor's own instruction (AVX512-BF16)"),
        (Precision::Bf16, false) => Some(
            "note: bf16: this processor has no AVX512-BF16; factors are rounded and multiplied in \
             f32, which is no faster than `precision = \"f32\"`",
        ),
    }
}
