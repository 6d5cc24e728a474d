//! `heirloom predict`.

use heirloom::failure::Failure;

use crate::args::PredictArgs;
use crate::show::Show;

pub(crate) fn run(_: &PredictArgs, _: usize, _: Show) -> Result<u8, Failure> {
    Err(Failure::bug("predict is being written"))
}
