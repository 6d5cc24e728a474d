//! Why a run could not start or go on.

use heirloom_base::Step;

/// A loss or gradient that is not a number, and what is known of where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The step that was not taken.
    pub step: Step,
    /// Terms whose sum is not finite.
    pub terms: Vec<String>,
    /// The first parameter whose gradient is not finite.
    pub parameter: Option<String>,
    /// Indices, in the training set, of the step's examples.
    pub examples: Vec<u32>,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Longer lists say how many more there are.
        const SHOWN: usize = 8;
        write!(f, "step {} is not finite", self.step.0)?;
        if !self.terms.is_empty() {
            write!(f, ": {}", self.terms.join(", "))?;
        }
        if let Some(parameter) = &self.parameter {
            write!(f, "; first gradient that is not finite: `{parameter}`")?;
        }
        let shown: Vec<String> = self.examples.iter().take(SHOWN).map(u32::to_string).collect();
        write!(f, "; training examples {}", shown.join(", "))?;
        if self.examples.len() > SHOWN {
            write!(f, " and {} more", self.examples.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// One variant per cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training diverged and the plan says stop.
    #[error(
        "{0}; the weights are those before this step; lower `training.learning_rate`, or set \
         `training.on_nonfinite = \"skip\"` to leave such steps out"
    )]
    Diverged(NotFinite),
    /// Too many steps were left out.
    #[error("{0}; {1} steps were left out, which is the plan's `training.nonfinite_limit`")]
    TooManySkipped(NotFinite, u64),
    /// The first hypergradient of a run moves nothing.
    #[error(
        "the hypergradient of step {} is zero or not finite: the second set has nothing to teach; \
         with AdamW's preconditioner let `objective.balance.meta.warmup_steps` go before, else look \
         at what the second set's loss depends on",
        step.0
    )]
    NoHypergradient {
        /// The step.
        step: Step,
    },
    /// The first hypergradient of a run is not the slope of the second set's loss.
    #[error(
        "the hypergradient of step {} says that the second set's loss changes by {said:.3e} along it, \
         finite differences say {found:.3e}: apart by more than {} %; try another \
         `objective.balance.meta.radius`",
        step.0,
        100.0 * bound
    )]
    WrongHypergradient {
        /// The step.
        step: Step,
        /// The slope by the hypergradient.
        said: f64,
        /// The slope by differences.
        found: f64,
        /// The largest relative difference allowed.
        bound: f64,
    },
    /// A run folder that cannot be, since there is a file.
    #[error(
        "`{}` cannot be a run's folder: `{}` is a file; name another with `--into` or `output.dir`",
        path.display(),
        file.display()
    )]
    NotAFolder {
        /// The folder asked for.
        path: std::path::PathBuf,
        /// The file in its place, or above it.
        file: std::path::PathBuf,
    },
    /// A checkpoint is whole but of another run.
    #[error("`{folder}` holds {found}, expected {expected}; is it a checkpoint of another plan?")]
    Foreign {
        /// The checkpoint.
        folder: String,
        /// What it holds.
        found: String,
        /// What this run needs.
        expected: String,
    },
    /// The plan names a policy or a regularizer that this program does not bring.
    #[error(
        "`{key}` is \"own\": the plan was made for a program that brings `{called}`, and this one brings \
         {}; run that program, or name one of Heirloom's",
        brought.as_ref().map_or("none".to_owned(), |brought| format!("`{brought}`"))
    )]
    OwnMissing {
        /// The key that asks for it.
        key: &'static str,
        /// Its name.
        called: String,
        /// The name of what is brought instead.
        brought: Option<String>,
    },
    /// A program brings what the plan does not name.
    #[error(
        "the program brings `{called}`, but `{key}` of the plan does not ask for it; write \"own\" there, \
         and `called = \"{called}\"` beside it"
    )]
    OwnUnasked {
        /// The key that would ask for it.
        key: &'static str,
        /// Its name.
        called: String,
    },
    /// What a program brings needs something that the plan does not have.
    #[error("`{called}`, the program's own for `{key}`, needs {needs}")]
    OwnNeeds {
        /// The key that asks for it.
        key: &'static str,
        /// Its name.
        called: String,
        /// What.
        needs: String,
    },
    /// A pattern of `[[training.group]]` names no parameter.
    #[error(
        "`{pattern}` of `training.group` matches none of the student's {count} parameters; the nearest \
         is `{nearest}`, and `*` stands for any text"
    )]
    NoSuchParameter {
        /// As it was written.
        pattern: String,
        /// The nearest name.
        nearest: String,
        /// How many there are.
        count: usize,
    },
    /// A stage of the plan cannot be.
    #[error("`stage.{stage}`: {source}")]
    Stage {
        /// Which one, from 0.
        stage: usize,
        /// Why.
        source: heirloom_growth::Error,
    },
    /// A method that a stage would try cannot be.
    #[error("`stage.{stage}.candidates`: `{method}`: {source}")]
    Candidate {
        /// Which stage, from 0.
        stage: usize,
        /// The method.
        method: String,
        /// Why.
        source: heirloom_growth::Error,
    },
    /// A model that does not grow.
    #[error(transparent)]
    Growth(#[from] heirloom_growth::Error),
    /// Moments that are not the student's.
    #[error(
        "`{file}` has {found} for `{name}`, whose shape is {expected:?}; grow the checkpoint again, or \
         begin without `student.moments`"
    )]
    Moments {
        /// The file.
        file: String,
        /// The parameter.
        name: String,
        /// What it has.
        found: String,
        /// The parameter's shape.
        expected: Vec<usize>,
    },
    /// Weights or configs.
    #[error(transparent)]
    Model(#[from] heirloom_models::Error),
    /// A file of a teacher's answers.
    #[error("`{file}`: {source}")]
    Cache {
        /// The file.
        file: String,
        /// What is wrong with it; boxed because it is much larger than the others.
        source: Box<heirloom_data::Error>,
    },
    /// Kept answers of a language model; boxed as the above.
    #[error(transparent)]
    Answers(Box<heirloom_answers::Error>),
    /// Data.
    #[error(transparent)]
    Data(#[from] heirloom_data::Error),
    /// The disk, or what is on it.
    #[error(transparent)]
    Store(#[from] heirloom_store::StoreError),
}

impl From<heirloom_answers::Error> for Error {
    fn from(error: heirloom_answers::Error) -> Self {
        Self::Answers(Box::new(error))
    }
}

impl Error {
    /// Whose move it is; see the command's exit codes.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Diverged(_)
            | Self::TooManySkipped(..)
            | Self::NoHypergradient { .. }
            | Self::WrongHypergradient { .. } => 5,
            Self::Foreign { .. } => 3,
            Self::OwnMissing { .. } | Self::OwnUnasked { .. } | Self::OwnNeeds { .. } => 2,
            Self::NotAFolder { .. } | Self::NoSuchParameter { .. } => 2,
            Self::Stage { source, .. } | Self::Candidate { source, .. } | Self::Growth(source) => {
                source.exit_code()
            }
            Self::Moments { .. } => 3,
            Self::Model(error) => error.exit_code(),
            Self::Data(error) => error.exit_code(),
            Self::Cache { source: error, .. } => error.exit_code(),
            Self::Answers(error) => error.exit_code(),
            Self::Store(error) => error.exit_code(),
        }
    }
}
