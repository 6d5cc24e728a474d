//! Growth against small models written plainly.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

mod decoders;
mod operators;
mod plans;
mod preservation;
mod small;
mod tape;
mod trajectory;
