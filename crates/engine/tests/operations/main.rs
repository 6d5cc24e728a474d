//! Every operation, on both devices: gradients against finite differences, the fast device against
//! the reference.

mod agreement;
mod gradients;
mod rows;
