//! What tests share: a comparison that names the worst element, and a disk that fails on request.

mod close;
mod crash;
mod disk;

pub use close::close;
pub use crash::{Contents, Crash, Names};
pub use disk::{Cause, Fault, FaultDisk, Lasting};
