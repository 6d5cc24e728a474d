//! Work in full precision in the middle of a run that rounds.
//!
//! In: a device, and what is to be done. Out: what comes of it. Never: another precision afterwards.

use heirloom_engine::{Device, Precision};

/// Does `work` with the factors of products as they are, whatever the run rounds its own to.
pub(crate) fn in_full<T>(device: &mut dyn Device, work: impl FnOnce(&mut dyn Device) -> T) -> T {
    let before = device.set_precision(Precision::F32);
    let result = work(device);
    device.set_precision(before);
    result
}
