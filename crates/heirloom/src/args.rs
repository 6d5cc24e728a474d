//! Every flag, with its help.

mod text;

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(crate) use text::{TextArgs, TextFormat, TokenizeArgs, TokenizerKind, TokenizerTrainArgs};

/// Passes knowledge between language models: fine-tune, distil, grow, evaluate, predict, generate.
#[derive(Debug, Parser)]
#[command(name = "heirloom", version, max_term_width = 100)]
#[command(after_help = "Relative paths in recipes are looked for below $HEIRLOOM_DATA (data) and \
$HEIRLOOM_MODELS (models, tokenizers) first, then below the working directory; copies of what lies at \
addresses are below $HEIRLOOM_CACHE, or else ~/.cache/heirloom.\n\n\
Exit codes: 0 done; 1 a bug of ours; 2 the recipe or command cannot work; 3 data or weights are \
not what they should be; 4 the disk or the network said no; 5 diverged; 6 does not fit in memory; 75 stopped on \
request, saved, can go on.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Threads to compute with; 0 is one per core
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    pub(crate) threads: usize,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say less on stderr: no progress bar, no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Decide every number of a recipe and print them, with all problems; creates nothing
    Plan(RecipeArgs),
    /// Train a recipe into its run folder
    Train(TrainArgs),
    /// Go on with a run that was stopped or killed
    Resume(ResumeArgs),
    /// Measure a model folder or a run's best model on labelled data, or a language model on text
    Eval(EvalArgs),
    /// Show whom a run's balance policy trusts (λ), or what its regularizer teaches in place of labels,
    /// over the training set and at both ends of it; of a language model token by token
    Explain(ExplainArgs),
    /// Read texts from stdin (JSONL or plain lines), print predictions as JSONL
    Predict(PredictArgs),
    /// Make tokens of text once, ahead of training, and say how much there is
    Tokenize(TokenizeArgs),
    /// Make a larger model of a trained one, with what it knows
    Grow(GrowArgs),
    /// Say what growing saved against a run from scratch, at equal loss
    Ledger(LedgerArgs),
    /// Continue prompts with a decoder, token by token
    Generate(GenerateArgs),
    /// Train a tokenizer, or compare two
    Tokenizer(TokenizerArgs),
    /// Keep a language model teacher's answers to a text, for runs to learn from without it
    Cache(CacheArgs),
    /// Check every byte of a run folder, checkpoint, model folder, kept answers or kept tokens
    Verify(VerifyArgs),
    /// Train a teacher and distil students on a generated task; needs nothing but the program
    Demo(DemoArgs),
    /// Time one training step, or its products, on this machine
    Bench(BenchArgs),
}

/// A recipe and changes to it.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// Change a key of the recipe, as in --set training.learning_rate=3e-5 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// What `train` takes.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Run folder, in place of the recipe's output.dir
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Twenty steps on at most 200 examples into a folder that is thrown away
    #[arg(long, conflicts_with = "into")]
    pub(crate) smoke: bool,
}

/// What `resume` takes.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run folder
    pub(crate) run: PathBuf,
    /// Change a key of the plan where that is allowed (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// What `eval` takes.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// A model folder, here or below HEIRLOOM_MODELS, or a run folder (then its best model)
    pub(crate) model: PathBuf,
    /// Recipe that says which data, columns and metric; a run folder knows its own
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Change a key of the recipe (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// File to evaluate on, in the task's folder; default: the validation files
    #[arg(long, value_name = "NAME")]
    pub(crate) file: Option<String>,
    /// Compare with a second model on the same examples (paired)
    #[arg(long, value_name = "DIR")]
    pub(crate) against: Option<PathBuf>,
    /// Measure a language model on these files of text, here or below HEIRLOOM_DATA (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "set"])]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens of a row for --text, at most as many as the model reads
    #[arg(long, default_value_t = 512, value_name = "N", requires = "text")]
    pub(crate) sequence_length: u64,
    /// Draw a reliability diagram of all models into a new SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) curve: Option<PathBuf>,
}

/// What `explain` takes.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The run folder; of a run over several seeds, one of its seed-N
    pub(crate) run: PathBuf,
    /// Examples, or tokens, to show at each end
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) top: usize,
}

/// What `predict` takes.
#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// A model folder, here or below HEIRLOOM_MODELS, or a run folder (then its best model)
    pub(crate) model: PathBuf,
    /// Longest input in tokens
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) max_length: usize,
}

/// What `grow` takes.
#[derive(Debug, Args)]
#[command(after_help = "Methods, and what they do:\n  \
preserve       computes the same: whole copies in width, read in unequal shares; added layers \
start as the identity\n  \
hypercloning   computes the same: whole copies in width alone\n  \
net2net        random copies (the same where sizes double), added layers start as the identity\n  \
lemon          like preserve; other than multiples of the hidden size in decoders alone\n  \
bert2bert-fpi  random copies, layers stacked\n  \
bert2bert-aki  the same, and copies take the weights of the layer above\n  \
stack          the layers again above themselves (StackBERT, G_stack)\n  \
interleave     each layer again right above itself\n  \
compound       whole copies in width, layers stacked\n  \
llama-pro      added layers start as the identity, and are meant to be trained alone\n  \
mslt           copies of the top layers, meant to be trained alone\n  \
solar          the model without its top, then without its bottom\n  \
pad, msg       new units that nothing reads yet; the same, in hidden size, in decoders alone\n\n\
What is not named follows: heads keep their size, and the intermediate size grows with the hidden \
size. An embedding model whose hidden size grows n-fold gives each number n times, so cosines stay \
as they are. A decoder is measured by its next-token logits. The result is a folder that `transformers` loads, with the plan in growth.toml.\n\n\
Examples:\n  \
heirloom grow all-MiniLM-L6-v2 --layers 12 --hidden 768 --out grown\n  \
heirloom grow all-MiniLM-L6-v2 --layers 12 --method stack --dry-run\n  \
heirloom grow Qwen3-0.6B --layers 36 --kv-heads 16 --out grown\n  \
heirloom grow other-model --plan grown/growth.toml --out grown-too")]
pub(crate) struct GrowArgs {
    /// A model folder, here or below HEIRLOOM_MODELS, or a run folder (then its newest checkpoint,
    /// with the optimiser's moments)
    pub(crate) model: PathBuf,
    /// Layers
    #[arg(long, value_name = "N")]
    pub(crate) layers: Option<usize>,
    /// Hidden size
    #[arg(long, value_name = "N")]
    pub(crate) hidden: Option<usize>,
    /// Attention heads
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// Heads of keys and values, where a decoder has fewer of them
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<usize>,
    /// Units inside a feed-forward layer
    #[arg(long, value_name = "N")]
    pub(crate) intermediate: Option<usize>,
    /// How to grow; see below
    #[arg(long, default_value = "preserve", value_name = "NAME")]
    pub(crate) method: String,
    /// Decides which units are copied and what new entries start from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Noise between copies that sums to zero, so that they learn apart, over the size of weights
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) noise: f64,
    /// Of a run folder: grow the checkpoint of this step, in place of the newest
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,
    /// Of a run folder: what becomes of the optimiser's moments: exact (copies stay alike),
    /// asymmetric (they learn apart) or drop [default: asymmetric]
    #[arg(long, value_name = "HOW")]
    pub(crate) moments: Option<String>,
    /// Grow by this plan, a TOML file, in place of sizes and method
    #[arg(long, value_name = "FILE", conflicts_with_all = ["layers", "hidden", "heads", "kv_heads", "intermediate", "method", "seed", "noise"])]
    pub(crate) plan: Option<PathBuf>,
    /// Folder for the grown model; new or empty
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// Say what would be done and predict what comes of it; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What `ledger` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Savings are shares of the baseline's cost: uncounted with the small model \
for nothing, counted with all of it, amortised with its part by --reuses. Costs are operations by \
shape, tokens, and seconds; a loss between two evaluations lies on a line over the logarithm of the \
cost.\n\nheirloom ledger runs/grown --baseline runs/scratch --target 0.6 --target 0.5\n  \
heirloom ledger runs/small runs/grown-from-it --baseline runs/scratch --target 0.5"
)]
pub(crate) struct LedgerArgs {
    /// Run folders that follow one another: what comes before the last growth, or before the last
    /// run, is the small model's
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Run folder of the same model from scratch, with a schedule of its own
    #[arg(long, value_name = "RUN")]
    pub(crate) baseline: PathBuf,
    /// Validation loss at which costs are compared (repeatable)
    #[arg(long, required = true, value_name = "LOSS")]
    pub(crate) target: Vec<f64>,
    /// Models that grow from the small one, for the amortised saving
    #[arg(long, default_value_t = 1, value_name = "M")]
    pub(crate) reuses: u64,
    /// Count the last run whole, though it grew or none came before it
    #[arg(long)]
    pub(crate) whole: bool,
    /// Draw the losses of all over the operations that they took into a new SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) curve: Option<PathBuf>,
    /// Another run folder for the picture (repeatable)
    #[arg(long, value_name = "RUN", requires = "curve")]
    pub(crate) beside: Vec<PathBuf>,
}

/// What `generate` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Prompts from a file make data to train on (sequence-level distillation): FILE.jsonl \
has an object with the field `prompt` on each line, any other file a prompt on each line. The same command \
given again goes on where it was stopped, and ends with the same file.\n\n\
Examples:\n  \
heirloom generate teacher --prompt \"Once upon a time\"\n  \
heirloom generate teacher --prompts prompts.jsonl --jsonl said.jsonl --temperature 1"
)]
pub(crate) struct GenerateArgs {
    /// A model folder with a decoder and its tokenizer
    pub(crate) model: PathBuf,
    /// Text to continue (repeatable)
    #[arg(long, required_unless_present = "prompts", value_name = "TEXT")]
    pub(crate) prompt: Vec<String>,
    /// Prompts to continue, one on each line
    #[arg(long, value_name = "FILE", conflicts_with = "prompt", requires = "jsonl")]
    pub(crate) prompts: Option<PathBuf>,
    /// Where prompts and completions go, one object on each line
    #[arg(long, value_name = "FILE", requires = "prompts")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Prompts of a file that are continued together
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Most tokens after each prompt
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) new_tokens: usize,
    /// Divides the logits before a token is drawn; 0 takes the most probable
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Draw from the N most probable tokens; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) top_k: usize,
    /// Draw from the fewest tokens that hold this probability together
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f64,
    /// Seed of the random words; equal calls give equal texts
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// End a text at this token, besides those that config.json names (repeatable)
    #[arg(long, value_name = "ID")]
    pub(crate) stop_token: Vec<u32>,
}

/// What `tokenizer` takes.
#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    #[command(subcommand)]
    pub(crate) what: TokenizerCommand,
}

/// What can be done with a tokenizer.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Train one on text; `transformers` loads its folder too
    Train(TokenizerTrainArgs),
    /// Say how two vocabularies relate, where they first differ, and what `teacher.vocabulary` could be
    Compare(TokenizerCompareArgs),
}

/// What `tokenizer compare` takes.
#[derive(Debug, Args)]
pub(crate) struct TokenizerCompareArgs {
    /// The student: a folder with a tokenizer, and with config.json where there is a model
    pub(crate) left: PathBuf,
    /// The teacher, likewise
    pub(crate) right: PathBuf,
    /// A text to count tokens in
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
}

/// What `cache` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group(ArgGroup::new("keeps").required(true).args(["top_k", "samples", "states"])))]
#[command(group(ArgGroup::new("reads").required(true).args(["text", "tokens", "recipe"])))]
#[command(
    after_help = "The folder says of which teacher, tokenizer, text and temperature its answers are, \
and a run that has others refuses it. A call that was stopped or killed goes on where it was when it \
is repeated, and ends with the same bytes. Of a recipe's text the rows are kept that its steps will read; \
more seeds or steps add rows to the same folder.\n\n\
Examples:\n  \
heirloom cache --teacher big --text novels/*.txt --out kept --top-k 64 --temperature 2\n  \
heirloom cache --teacher big --tokens tokens-1f2e --out kept --samples 50 --shard 3/8\n  \
heirloom cache --teacher big --recipe novels-cached.toml --out novels-kept --top-k 64\n  \
heirloom cache --teacher big --recipe novels-cached.toml --seeds 2,3 --out novels-kept --top-k 64\n  \
heirloom cache verify kept"
)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CacheCommand>,
    /// A model folder with a decoder and its tokenizer, here or below HEIRLOOM_MODELS
    #[arg(long, required = true, value_name = "DIR")]
    pub(crate) teacher: Option<PathBuf>,
    /// Files or folders of plain text, JSON Lines or Parquet
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens that were kept before, of the teacher's tokenizer, in place of text
    #[arg(long, value_name = "DIR")]
    pub(crate) tokens: Option<PathBuf>,
    /// The rows that the runs of a recipe will read, at its temperature, in place of both; a folder
    /// that has other rows of theirs already is added to
    #[arg(long, value_name = "FILE", conflicts_with_all = ["length", "pack", "end_token", "temperature"])]
    pub(crate) recipe: Option<PathBuf>,
    /// Change a key of the recipe (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    pub(crate) set: Vec<String>,
    /// The rows that runs with these seeds will read, in place of the recipe's own
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        requires = "recipe",
        conflicts_with = "all"
    )]
    pub(crate) seeds: Vec<u64>,
    /// All rows of the recipe's text, however few its runs will read
    #[arg(long, requires = "recipe")]
    pub(crate) all: bool,
    /// Folder for the answers, or the address of one: s3://BUCKET/FOLDER, gs://…, az://… (a build with
    /// `--features remote`)
    #[arg(long, required = true, value_name = "DIR")]
    pub(crate) out: Option<String>,
    /// Keep the K likeliest tokens of each answer, and what all others have together
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep N draws from each answer: on average they teach what the whole answer does
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<u32>,
    /// Keep the last hidden states
    #[arg(long)]
    pub(crate) states: bool,
    /// Divides the teacher's logits; a run must have the same
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Draw at this many times the temperature, and weigh the draws accordingly
    #[arg(long, default_value_t = 1.0, value_name = "T", requires = "samples")]
    pub(crate) proposal_temperature: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What numbers are kept as; by default a byte each, hidden states as bf16
    #[arg(long, value_enum)]
    pub(crate) values: Option<CacheValues>,
    /// Tokens of a row
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub(crate) length: usize,
    /// How documents become rows
    #[arg(long, value_enum, default_value_t = CachePack::Documents)]
    pub(crate) pack: CachePack,
    /// A special token after each document of a text
    #[arg(long, value_name = "TOKEN", conflicts_with = "tokens")]
    pub(crate) end_token: Option<String>,
    /// Do the work of machine I of N that fill the folder together
    #[arg(long, default_value = "1/1", value_name = "I/N")]
    pub(crate) shard: String,
    /// Tokens that the teacher reads at a time
    #[arg(long, default_value_t = heirloom::language::BATCH_TOKENS, value_name = "N")]
    pub(crate) batch_tokens: u64,
}

/// What else `cache` does.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Check every byte of a folder of kept answers, or of one at an address, which is copied here
    Verify(KeptArgs),
}

/// What `cache verify` takes.
#[derive(Debug, Args)]
pub(crate) struct KeptArgs {
    /// The folder, or its address
    pub(crate) folder: String,
}

/// Kinds of kept numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheValues {
    /// One byte for the logarithm of a probability
    Byte,
    /// The upper half of a single-precision number
    Bf16,
    /// Single precision
    F32,
}

/// How documents become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CachePack {
    /// End to end, with their boundaries
    Documents,
    /// End to end, without
    Stream,
    /// Each whole in one row; the ends of longer ones are left out
    Whole,
}

/// What `verify` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The folder
    pub(crate) folder: PathBuf,
}

/// What `demo` takes.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Seed of the generated texts and of training
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Share of the full size, for tests
    #[arg(long, default_value_t = 1.0, hide = true)]
    pub(crate) scale: f64,
}

/// What `bench` takes.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: BenchCommand,
}

/// What can be timed.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One distillation step: student forward, loss against given teacher logits, backward, AdamW
    Step(BenchStepArgs),
    /// The matrix products of that step's layers alone, at the best rate of several repeats
    Products(BenchProductsArgs),
    /// A language model's head with its losses: all logits at once against chunks of rows
    Head(BenchHeadArgs),
    /// Kept answers of a language model: bytes of a token and what is lost, by kind; no times
    Cache(BenchCacheArgs),
}

/// What `bench step` takes.
#[derive(Debug, Args)]
pub(crate) struct BenchStepArgs {
    /// Shape of the student
    #[arg(long, value_enum)]
    pub(crate) model: BenchModel,
    /// Sequences per step
    #[arg(long, default_value_t = 32)]
    pub(crate) batch: usize,
    /// Tokens per sequence
    #[arg(long, default_value_t = 128)]
    pub(crate) seq: usize,
    /// Time the forward pass alone
    #[arg(long)]
    pub(crate) infer: bool,
    /// What the factors of linear layers' products are rounded to
    #[arg(long, value_enum, default_value_t = BenchPrecision::F32)]
    pub(crate) precision: BenchPrecision,
    /// What a language model hears of a teacher beside the next token
    #[arg(long, value_enum, default_value_t = BenchTeacher::Full)]
    pub(crate) teacher: BenchTeacher,
    /// Tokens of an answer that are kept, with --teacher kept
    #[arg(long, default_value_t = 64, value_name = "K")]
    pub(crate) top_k: usize,
    /// Dropout probability
    #[arg(long, default_value_t = 0.1)]
    pub(crate) dropout: f32,
    /// Steps that are timed
    #[arg(long, default_value_t = 7)]
    pub(crate) steps: usize,
    /// Steps before them
    #[arg(long, default_value_t = 3)]
    pub(crate) warmup: usize,
    /// Keep only what is between the layers and compute the rest again in the backward pass
    #[arg(long, conflicts_with = "infer")]
    pub(crate) activation_checkpointing: bool,
    /// Say how much of a step each kind of operation takes
    #[arg(long)]
    pub(crate) profile: bool,
    /// Clip the gradient to this length; 0 neither measures nor clips it
    #[arg(long, default_value_t = 0.0, value_name = "LENGTH")]
    pub(crate) max_grad_norm: f64,
    /// Write the model and the batch here before the first step, so that another program can
    /// compute the same steps; DIR is new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) dump: Option<PathBuf>,
}

/// What `bench products` takes.
#[derive(Debug, Args)]
pub(crate) struct BenchProductsArgs {
    /// Shape of the student
    #[arg(long, value_enum)]
    pub(crate) model: BenchModel,
    /// Sequences per step
    #[arg(long, default_value_t = 32)]
    pub(crate) batch: usize,
    /// Tokens per sequence
    #[arg(long, default_value_t = 128)]
    pub(crate) seq: usize,
    /// What factors are rounded to
    #[arg(long, value_enum, default_value_t = BenchPrecision::F32)]
    pub(crate) precision: BenchPrecision,
    /// How often each product is computed; the best counts
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: usize,
}

/// What `bench head` takes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BenchHeadArgs {
    /// Tokens of the batch
    #[arg(long, default_value_t = 1024)]
    pub(crate) tokens: usize,
    /// Words of the vocabulary
    #[arg(long, default_value_t = 32_000)]
    pub(crate) vocab: usize,
    /// Width of the hidden states, student's and teacher's
    #[arg(long, default_value_t = 512)]
    pub(crate) width: usize,
    /// Memory for the logits of a chunk and their gradient
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub(crate) budget: usize,
    /// How often each way is timed
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: usize,
    /// Leave out the way that has all logits at once, which may not fit in memory
    #[arg(long)]
    pub(crate) chunked_only: bool,
}

/// What `bench cache` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchCacheArgs {
    /// Measure this decoder's answers in place of made-up ones: a model folder, here or below
    /// HEIRLOOM_MODELS
    #[arg(long, value_name = "DIR", requires = "text", conflicts_with = "vocab")]
    pub(crate) teacher: Option<PathBuf>,
    /// Files of text that it answers
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "teacher")]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens of a row of that text, at most as many as the teacher reads
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) length: usize,
    /// Words of the vocabulary of made-up answers
    #[arg(long, default_value_t = 50_257)]
    pub(crate) vocab: usize,
    /// Tokens whose answers are kept
    #[arg(long, default_value_t = 512)]
    pub(crate) tokens: usize,
    /// Divides the logits
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub(crate) temperature: f64,
}

/// Shapes that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchModel {
    /// 4 layers, hidden 256, 4 heads, FFN 1024
    BertMini,
    /// 6 layers, hidden 768, 12 heads, FFN 3072
    Distilbert,
    /// 12 layers, hidden 768, 12 heads, FFN 3072
    BertBase,
    /// A decoder: 6 layers, hidden 384, 6 heads, FFN 1536, a tied head of 16,384 words
    #[value(name = "gpt-small-v16k")]
    GptSmallV16k,
}

/// What a timed step knows of a teacher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BenchTeacher {
    /// Nothing: cross-entropy alone
    None,
    /// All logits of every token
    Full,
    /// The likeliest tokens of every token, and what the others have together
    Kept,
}

/// Precisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BenchPrecision {
    /// Single precision, as they are
    F32,
    /// bfloat16; no faster than f32 without AVX512-BF16
    Bf16,
}
