//! `heirloom eval`.

use heirloom::failure::Failure;

use crate::args::EvalArgs;
use crate::show::Show;

pub(crate) fn run(_: &EvalArgs, _: usize, _: Show) -> Result<u8, Failure> {
    Err(Failure::bug("eval is being written"))
}
