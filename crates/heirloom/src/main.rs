//! The command: parse, dispatch, exit code.

mod args;
mod clock;
mod command;
mod outside;
mod picture;
mod show;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, TokenizerCommand};
use show::Show;

/// Pages of freed memory are kept, so that a step in its steady state meets no page fault.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are not failures; everything else is the user's move.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let show = Show { json: cli.json, quiet: cli.quiet };
    let threads = match cli.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let done = match &cli.command {
        Command::Plan(args) => command::plan::run(args, threads, show),
        Command::Train(args) => command::train::run(args, threads, show),
        Command::Resume(args) => command::resume::run(args, threads, show),
        Command::Eval(args) => command::eval::run(args, threads, show),
        Command::Explain(args) => command::explain::run(args, threads, show),
        Command::Predict(args) => command::predict::run(args, threads, show),
        Command::Tokenize(args) => command::tokenize::run(args, threads, show),
        Command::Grow(args) => command::grow::run(args, threads, show),
        Command::Ledger(args) => command::ledger::run(args, show),
        Command::Generate(args) => command::generate::run(args, threads, show),
        Command::Tokenizer(args) => match &args.what {
            TokenizerCommand::Train(args) => command::tokenizer_train::run(args, threads, show),
            TokenizerCommand::Compare(args) => command::tokenizer_compare::run(args, show),
        },
        Command::Cache(args) => command::cache::run(args, threads, show),
        Command::Verify(args) => command::verify::run(args, show),
        Command::Demo(args) => command::demo::run(args, threads, show),
        Command::Bench(args) => command::bench::run(args, threads, show),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            show::failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}
