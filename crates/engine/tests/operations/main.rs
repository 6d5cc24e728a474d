//! Every operation, on both devices: gradients against finite differences, the fast device against
//! the reference.

mod agreement;
mod columns;
mod decoder;
mod divergences;
mod gradients;
mod row_weights;
mod rows;
mod soft;
mod sorted;
mod sparse;
