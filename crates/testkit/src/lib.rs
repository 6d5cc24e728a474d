//! What tests share: a comparison that names the worst element, a disk that fails on request, an
//! allocator that counts, and a server that keeps files.

mod bucket;
mod close;
mod counting;
mod crash;
mod disk;

pub use bucket::Bucket;
pub use close::close;
pub use counting::{Allocations, Counting, minor_faults};
pub use crash::{Contents, Crash, Names};
pub use disk::{Cause, Fault, FaultDisk, Lasting};
