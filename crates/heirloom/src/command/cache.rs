//! `heirloom cache`: a decoder's answers to a text, kept for runs that learn from them.
//!
//! In: a teacher, a text or kept tokens, what to keep. Out: a folder here or at an address, what a token
//! takes in it, and how far what is kept is from what the teacher said.
//! Never: answers beside others that were kept otherwise, or work that was done before.

use std::path::Path;
use std::sync::Arc;

use heirloom::answer::model_folder;
use heirloom::answers::{
    self, About, Held, Kept, Kind, Measured, Progress, Shard, Values, Wanted, is_part,
};
use heirloom::elsewhere::{Copied, is_address};
use heirloom::failure::Failure;
use heirloom::language::{KeptTokens, led, open_text, rows_of_runs};
use heirloom::opened::weights_digest;
use heirloom::places::Places;
use heirloom_base::{Bytes, Digest};
use heirloom_data::text::{Corpus, OnLong, Pack, PackedRows, Reading, Rows, find_or_write, open};
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::{Decoder, DecoderConfig};
use heirloom_store::{Disk, Holder, Mirror, RealDisk, RunLock, TensorFolder};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::{STOPPED, recipe_at};
use crate::args::{CacheArgs, CacheCommand, CachePack, CacheValues};
use crate::clock::{Clock, now};
use crate::outside::Stop;
use crate::show::Show;

/// Rows that are answered again to see how far off what is kept is.
const MEASURED_ROWS: usize = 8;

/// What was done.
#[derive(Serialize)]
struct Done {
    folder: String,
    /// Rows with an answer, and rows of the text; likewise their tokens.
    rows: u64,
    of_rows: u64,
    tokens: u64,
    of_tokens: u64,
    /// Tokens that this process has answered, and how many in a second.
    answered: u64,
    tokens_per_second: Option<f64>,
    /// `None` while other machines are at work.
    whole: Option<Whole>,
}

/// What is there when all machines are done.
#[derive(Serialize)]
struct Whole {
    digest: String,
    bytes: u64,
    /// Tokens at which something is learnt: only these have an answer.
    learnt: u64,
    bytes_per_token: f64,
    /// `None` for hidden states.
    error: Option<Error>,
}

/// Means over some tokens, in nats; see `heirloom_answers::Distance`.
#[derive(Serialize)]
struct Error {
    tokens: u64,
    /// `None` where it is infinite, as for draws.
    forward_kl: Option<f64>,
    backward_kl: f64,
    lost_mass: f64,
}

pub(crate) fn run(args: &CacheArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    if let Some(CacheCommand::Verify(args)) = &args.command {
        return verify(&args.folder, show);
    }
    let (Some(teacher), Some(out)) = (&args.teacher, &args.out) else {
        unreachable!("required without a command of its own")
    };
    let stop = Stop::listen()?;
    let shard = shard(&args.shard)?;
    let folder = model_folder(teacher)?;
    let config = DecoderConfig::open(&folder)?;
    let tokenizer = Tokenizer::open(&folder)?;
    let copied = match is_address(out) {
        true => Some(at_address(out)?),
        false => None,
    };
    let here = copied.as_ref().map_or(Path::new(out), Copied::folder);
    for folder in [here.to_owned(), here.join(shard.lock())] {
        if !folder.is_dir() {
            RealDisk.create_dir(&folder).map_err(heirloom_store::StoreError::from)?;
        }
    }
    let lock = here.join(shard.lock());
    let _lock = RunLock::take(&lock, &Holder::this_process(&now()))?;
    let Text { rows, temperature, template, wanted } = rows(args, &tokenizer, &lock)?;
    let rows = &*rows;
    let longest = (0..rows.len()).map(|row| rows.length(row)).max().unwrap_or(0);
    if longest > config.max_positions {
        return Err(Failure::usage(format!(
            "rows of {longest} tokens are longer than the teacher's {} positions; make rows shorter",
            config.max_positions
        )));
    }
    let about = about(args, &folder, &config, &tokenizer, (rows, longest, temperature, template))?;
    let named = teacher.display().to_string();
    let wanted = Wanted { rows: wanted.as_deref(), teacher: Some(&named) };
    let mirror = copied.as_ref().map(|copied| Mirror::new(&RealDisk, copied.from(), here));
    let disk: &dyn Disk = mirror.as_ref().map_or(&RealDisk, |mirror| mirror);
    if let (Some(copied), Some(mirror)) = (&copied, &mirror) {
        begun_elsewhere(copied, mirror)?;
    }
    let held = Held::begin(disk, here, &about, wanted)?;
    let tokens = held.rows().into_iter().map(|row| rows.length(row as usize) as u64).sum();
    show.say(&planned(&held, tokens));

    let mut device = Cpu::new(threads);
    let model = Decoder::new(&mut device, config);
    model.load(&mut device, &TensorFolder::open(&folder)?, &|name| name.to_owned())?;
    let clock = Clock::start();
    let bar = Bar::new(show, "tokens");
    let mut last = Progress::default();
    let place = (disk, here, shard);
    let ended = answers::keep(&mut device, &model, rows, &held, place, &mut |progress| {
        last = progress;
        bar.at(progress.tokens, progress.of);
        !stop.asked()
    })?;
    let seconds = clock.seconds();
    bar.end();
    if !ended {
        show.say(&format!(
            "stopped after {} of {} tokens; the same command goes on",
            last.tokens, last.of
        ));
        return Ok(STOPPED);
    }
    let whole = match Kept::open_any(here) {
        Ok(kept) => Some(whole(&kept, &mut device, &model, rows)?),
        Err(answers::Error::Unfinished { parts, .. }) => {
            let there = disk.list(here).map_err(heirloom_store::StoreError::from)?;
            let there = there.iter().filter(|entry| is_part(&entry.name)).count() as u64;
            let rest = match parts.saturating_sub(there) {
                0 => format!(
                    "all {parts} files are there; `heirloom cache verify {out}` checks those of other \
                     machines too"
                ),
                missing => format!("of {parts} files {missing} are missing"),
            };
            show.say(&format!("note: shard {} is done; {rest}", args.shard));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let answered = last.answered;
    let rate = (answered > 0 && seconds > 0.0).then(|| answered as f64 / seconds);
    let done = Done {
        folder: out.clone(),
        rows: held.len() as u64,
        of_rows: about.row_count,
        tokens,
        of_tokens: about.token_count,
        answered,
        tokens_per_second: rate,
        whole,
    };
    if show.json {
        show.json(&done);
    } else {
        show.data(&said(&done));
    }
    Ok(0)
}

/// An address for answers, and the folder for their copy here.
fn at_address(address: &str) -> Result<Copied, Failure> {
    let copied = Copied::new(address, &Places::from_environment())?;
    if copied.is_read_only() {
        return Err(Failure::usage(format!(
            "`--out` is {address}, and a web server is read from alone; keep the answers in a folder, and \
             put that where the server finds it"
        )));
    }
    Ok(copied)
}

/// Brings here what other machines have said of the answers, and puts there what an earlier process has
/// finished and not put there.
fn begun_elsewhere(copied: &Copied, mirror: &Mirror<'_>) -> Result<(), Failure> {
    match copied.about() {
        Ok(_) => {
            mirror.catch_up(is_part).map_err(heirloom_store::StoreError::from)?;
            Ok(())
        }
        Err(answers::Error::NotThere { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What will be kept, before the teacher reads anything.
fn planned(held: &Held, tokens: u64) -> String {
    let about = held.about();
    let most = Bytes(about.most_bytes(tokens));
    if !about.listed {
        return format!("answers to all {} rows, {tokens} tokens: {most} at most", about.row_count);
    }
    let added = match held.added() {
        added if added == held.len() => String::new(),
        0 => ", all listed before".to_owned(),
        added => format!(", {added} of them new"),
    };
    format!(
        "answers to {} of {} rows{added}, {tokens} of {} tokens: {most} at most; --all keeps all",
        held.len(),
        about.row_count,
        about.token_count
    )
}

/// What is answered.
struct Text {
    rows: Arc<dyn Rows>,
    temperature: f64,
    /// Digest of the chat template, where the rows came through one.
    template: Option<Digest>,
    /// The rows that runs will read; `None` for all.
    wanted: Option<Vec<u32>>,
}

/// The rows of the text, of the kept tokens or of the recipe's runs, and the temperature.
fn rows(args: &CacheArgs, tokenizer: &Tokenizer, beside: &Path) -> Result<Text, Failure> {
    if let Some(path) = &args.recipe {
        let recipe = recipe_at(path, &args.set)?;
        let text = recipe.text()?;
        let folder = Places::from_environment().data("text.path", &text.path)?;
        // Those of the recipe's own runs, where one has been.
        let runs = KeptTokens::beside(Path::new(&recipe.output_dir()));
        let kept = KeptTokens { new: Some(beside.to_owned()), ..runs };
        let opened = open_text(text, &folder, tokenizer, &kept)?;
        let seeds = if args.seeds.is_empty() { recipe.seeds() } else { args.seeds.clone() };
        let template = opened.template;
        let wanted = match (args.all, &opened.text.first) {
            (true, _) => None,
            (false, None) => Some(rows_of_runs(&recipe, &*opened.train, &seeds)?),
            (false, Some(first)) => {
                let (rows, of) = (Arc::clone(&opened.train), (tokenizer, template));
                let (rows, _) = led(first, rows, of, &Places::from_environment())?;
                Some(rows_of_runs(&recipe, &*rows, &seeds)?)
            }
        };
        let temperature = recipe.objective.temperature();
        return Ok(Text { rows: opened.train, temperature, template, wanted });
    }
    let shards = match &args.tokens {
        Some(folder) => open(&RealDisk, folder, None, tokenizer)?,
        None => {
            let reading = Reading { end: args.end_token.clone(), ..Reading::plain() };
            let corpus = Corpus::open(&args.text, reading)?;
            find_or_write(&RealDisk, beside, &corpus, tokenizer, &mut |_| ())?.0
        }
    };
    let shards = Arc::new(shards);
    let all = shards.all();
    let pack = match args.pack {
        CachePack::Documents => Pack::Documents,
        CachePack::Stream => Pack::Stream,
        CachePack::Whole => Pack::Whole { on_long: OnLong::Cut },
    };
    let rows = PackedRows::new(shards, &all, pack, args.length)?;
    let temperature = args.temperature;
    Ok(Text { rows: Arc::new(rows), temperature, template: None, wanted: None })
}

fn about(
    args: &CacheArgs,
    folder: &Path,
    config: &DecoderConfig,
    tokenizer: &Tokenizer,
    (rows, longest, temperature, template): (&dyn Rows, usize, f64, Option<Digest>),
) -> Result<About, Failure> {
    let kind = match (args.top_k, args.samples) {
        (Some(k), _) => Kind::TopK { k },
        (_, Some(draws)) => Kind::Samples { draws, proposal: args.proposal_temperature },
        (None, None) => Kind::States { width: config.hidden_size as u32 },
    };
    let values = match (args.values, kind) {
        (Some(CacheValues::Byte), _) => Values::Byte,
        (Some(CacheValues::Bf16), _) | (None, Kind::States { .. }) => Values::Bf16,
        (Some(CacheValues::F32), _) => Values::F32,
        (None, _) => Values::Byte,
    };
    let keeps_ln_p = match kind {
        Kind::TopK { .. } => true,
        Kind::Samples { proposal, .. } => proposal != 1.0,
        Kind::States { .. } => false,
    };
    let vocabulary = config.vocab_size as u32;
    let lengths = || (0..rows.len()).map(|row| rows.length(row));
    Ok(About {
        teacher: weights_digest(folder)?,
        tokenizer: tokenizer.digest(),
        rows: rows.digest(),
        chat_template: template,
        temperature,
        vocabulary,
        kind,
        values,
        error_bound: if keeps_ln_p { values.error_bound() } else { 0.0 },
        seed: if args.samples.is_some() { args.seed } else { 0 },
        row_count: rows.len() as u64,
        token_count: lengths().map(|length| length as u64).sum(),
        rows_per_part: About::rows_that_fit(kind, values, vocabulary, longest),
        batch_tokens: args.batch_tokens,
        listed: false,
    })
}

fn shard(text: &str) -> Result<Shard, Failure> {
    let parts = text.split_once('/').and_then(|(number, of)| {
        let (number, of) = (number.parse().ok()?, of.parse().ok()?);
        (number >= 1 && number <= of).then_some(Shard { number, of })
    });
    parts.ok_or_else(|| {
        Failure::usage(format!("`--shard` is {text}, expected a machine and how many: 1/4 to 4/4"))
    })
}

fn whole(
    kept: &Kept,
    device: &mut Cpu,
    model: &Decoder,
    rows: &dyn Rows,
) -> Result<Whole, Failure> {
    let held = kept.held().rows();
    let count = MEASURED_ROWS.min(held.len());
    let which: Vec<usize> = (0..count).map(|at| held[at * held.len() / count] as usize).collect();
    let error = answers::measure(device, model, rows, kept, &which)?;
    let (bytes, learnt) = (kept.bytes(), kept.answered()?);
    Ok(Whole {
        digest: kept.digest().to_string(),
        bytes,
        learnt,
        bytes_per_token: bytes as f64 / learnt.max(1) as f64,
        error: error.map(|Measured { tokens, forward, backward, rest }| Error {
            tokens,
            forward_kl: forward.is_finite().then_some(forward),
            backward_kl: backward,
            lost_mass: rest,
        }),
    })
}

fn said(done: &Done) -> String {
    let mut text = match done.rows == done.of_rows {
        true => format!("answers to {} tokens in `{}`\n", done.tokens, done.folder),
        false => format!(
            "answers to {} rows of {}, {} tokens of {}, in `{}`\n",
            done.rows, done.of_rows, done.tokens, done.of_tokens, done.folder
        ),
    };
    if let Some(rate) = done.tokens_per_second {
        text += &format!("  {rate:.0} tokens a second, {} now\n", done.answered);
    }
    let Some(whole) = &done.whole else { return text };
    text += &format!(
        "  {:.1} bytes a token with something to learn ({} tokens, {})\n",
        whole.bytes_per_token,
        whole.learnt,
        Bytes(whole.bytes)
    );
    if let Some(error) = &whole.error {
        let forward = match error.forward_kl {
            Some(forward) => format!("{forward:.5}"),
            None => "infinite".to_owned(),
        };
        text += &format!(
            "  KL(teacher, kept) {forward}, KL(kept, teacher) {:.5} nats, unknown tokens have {:.4}: \
             means over {} tokens\n",
            error.backward_kl, error.lost_mass, error.tokens
        );
    }
    text + &format!("  digest {}\n", whole.digest)
}

/// `heirloom cache verify`.
fn verify(name: &str, show: Show) -> Result<u8, Failure> {
    let kept = if is_address(name) {
        let copied = Copied::new(name, &Places::from_environment())?;
        let bar = Bar::new(show, "files");
        copied.bring(&mut |fetched| {
            bar.at(fetched.files, fetched.of);
            true
        })?;
        bar.end();
        Kept::open_any(copied.folder())?
    } else {
        Kept::open_any(Path::new(name))?
    };
    kept.check()?;
    let about = kept.about();
    if show.json {
        show.json(&json!({
            "whole": true,
            "digest": kept.digest().to_string(),
            "about": about,
            "rows": kept.held().len(),
            "tokens": kept.tokens(),
            "bytes": kept.bytes(),
        }));
    } else {
        show.data(&format!(
            "`{name}` is whole: answers to {} tokens, {} rows of {}, {}, digest {}\n",
            kept.tokens(),
            kept.held().len(),
            about.row_count,
            Bytes(kept.bytes()),
            kept.digest()
        ));
    }
    Ok(0)
}

/// How far it is, for a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(show: Show, of_what: &str) -> Self {
        Self(show.has_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = format!("{{bar:24}} {{pos}}/{{len}} {of_what} · {{eta}} left");
            let style = ProgressStyle::with_template(&template);
            bar.set_style(style.expect("a fixed template").progress_chars("━╸ "));
            bar
        }))
    }

    fn at(&self, done: u64, of: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(of);
            bar.set_position(done);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
