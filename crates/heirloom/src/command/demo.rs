//! `heirloom demo`.

use heirloom::failure::Failure;

use crate::args::DemoArgs;
use crate::show::Show;

pub(crate) fn run(_: &DemoArgs, _: usize, _: Show) -> Result<u8, Failure> {
    Err(Failure::bug("demo is being written"))
}
