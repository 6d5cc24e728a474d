//! What tests share: a comparison that names the worst element, and a disk that fails on request.

mod close;

pub use close::close;
