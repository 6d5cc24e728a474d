//! The names that keys of a recipe can have, and columns.
//!
//! In: nothing. Out: enums with their names in recipes and plans, one list each. Never: says what a
//! choice leads to; that is for the crates that do it.

use crate::problem::Problems;
use crate::section::{Read, Wanted, choice};
use crate::tree::{Node, Value};

choice! {
    /// What is predicted.
    TaskKind {
        /// One of several labels.
        Classification = "classification",
        /// Any number of labels.
        MultiLabel = "multi_label",
        /// A number.
        Regression = "regression",
    }
}

choice! {
    /// The format of a data file.
    Format {
        /// Fields between tabs.
        Tsv = "tsv",
        /// Fields between commas.
        Csv = "csv",
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// Apache Parquet.
        Parquet = "parquet",
        /// The label, one space, the text to the end of the line (TREC).
        LabelFirst = "label_first",
    }
}

choice! {
    /// The encoding of a data file.
    Encoding {
        /// UTF-8.
        Utf8 = "utf-8",
        /// ISO 8859-1.
        Latin1 = "latin-1",
    }
}

choice! {
    /// What evaluation measures.
    Metric {
        /// Share of right answers.
        Accuracy = "accuracy",
        /// F1 of the second label (of two), or the mean over labels.
        F1 = "f1",
        /// Both of the above.
        AccuracyAndF1 = "accuracy_and_f1",
        /// Matthews correlation.
        Matthews = "matthews",
        /// Pearson and Spearman correlation.
        PearsonSpearman = "pearson_spearman",
        /// F1 over all decisions.
        F1Micro = "f1_micro",
        /// Mean squared error.
        Mse = "mse",
    }
}

impl Metric {
    /// The names of its values, the deciding one first.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Self::Accuracy => &["accuracy"],
            Self::F1 => &["f1"],
            Self::AccuracyAndF1 => &["accuracy", "f1"],
            Self::Matthews => &["matthews"],
            Self::PearsonSpearman => &["pearson", "spearman"],
            Self::F1Micro => &["f1_micro"],
            Self::Mse => &["mse"],
        }
    }

    /// Whether it can be measured on such a task.
    pub(crate) fn suits(self, kind: TaskKind) -> bool {
        match kind {
            TaskKind::Classification => !matches!(self, Self::PearsonSpearman | Self::Mse),
            TaskKind::MultiLabel => matches!(self, Self::F1Micro | Self::Accuracy | Self::F1),
            TaskKind::Regression => matches!(self, Self::PearsonSpearman | Self::Mse),
        }
    }
}

choice! {
    /// What to do with a line that cannot be read.
    OnBadLine {
        /// Stop and name it.
        Error = "error",
        /// Count it and go on.
        Skip = "skip",
    }
}

choice! {
    /// What choices during training look at.
    EvaluateOn {
        /// The validation file.
        Validation = "validation",
        /// The part of the training file that was held out.
        Split = "split",
    }
}

choice! {
    /// What a label that is made wrong becomes.
    LabelNoiseKind {
        /// One of the others, each equally likely.
        Symmetric = "symmetric",
        /// The next one; after the last, the first.
        Asymmetric = "asymmetric",
    }
}

choice! {
    /// What a language model learns of text.
    TextKind {
        /// The next token.
        Causal = "causal",
        /// Tokens that are hidden, from both sides.
        Masked = "masked",
    }
}

choice! {
    /// The format of a file of documents.
    TextFormat {
        /// Plain text.
        Plain = "plain",
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// A JSON list of objects.
        Json = "json",
        /// Apache Parquet.
        Parquet = "parquet",
    }
}

choice! {
    /// What parts documents of plain text.
    Documents {
        /// Nothing: a file is a document.
        File = "file",
        /// Lines without a visible character.
        BlankLine = "blank_line",
        /// Lines that hold the marker and nothing else.
        Marker = "marker",
    }
}

choice! {
    /// What a document is made of.
    DocumentShape {
        /// Running text.
        Text = "text",
        /// Messages with roles, of which the assistant's are learnt.
        Messages = "messages",
        /// Alpaca's instruction, input and output, of which the output is learnt.
        Instruction = "instruction",
        /// A prompt and a completion, which is learnt.
        Completion = "completion",
    }
}

choice! {
    /// How documents fill rows.
    Packing {
        /// End to end, and no token looks into another document.
        Documents = "documents",
        /// As one stream, whose documents are not told apart.
        Stream = "stream",
    }
}

choice! {
    /// What becomes of an example that is longer than a row.
    OnLong {
        /// Stop and name it.
        Error = "error",
        /// Learn its beginning.
        Cut = "cut",
        /// Leave it out.
        Drop = "drop",
    }
}

choice! {
    /// What becomes of tokens that a teacher's kept answer does not name.
    Missing {
        /// They are one token, on both sides.
        TailBucket = "tail_bucket",
        /// What they have goes to the others in their shares.
        Renormalise = "renormalise",
        /// They are left out.
        Zero = "zero",
    }
}

choice! {
    /// An architecture to start afresh from: encoders, then decoders.
    Architecture {
        /// BERT.
        Bert = "bert",
        /// RoBERTa.
        Roberta = "roberta",
        /// DistilBERT.
        Distilbert = "distilbert",
        /// GPT-2.
        Gpt2 = "gpt2",
        /// LLaMA.
        Llama = "llama",
        /// Mistral.
        Mistral = "mistral",
        /// Qwen2.
        Qwen2 = "qwen2",
        /// Qwen3.
        Qwen3 = "qwen3",
    }
}

impl Architecture {
    /// The encoder of this name; `None` for a decoder.
    pub fn encoder(self) -> Option<ModelType> {
        match self {
            Self::Bert => Some(ModelType::Bert),
            Self::Roberta => Some(ModelType::Roberta),
            Self::Distilbert => Some(ModelType::Distilbert),
            Self::Gpt2 | Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => None,
        }
    }
}

/// The architecture of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelType {
    /// BERT.
    Bert,
    /// RoBERTa.
    Roberta,
    /// DistilBERT.
    Distilbert,
}

impl std::fmt::Display for ModelType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::Distilbert => "distilbert",
        })
    }
}

choice! {
    /// The activation of the feed-forward layers.
    Activation {
        /// The exact Gaussian error linear unit.
        Gelu = "gelu",
        /// Its approximation by a hyperbolic tangent.
        GeluNew = "gelu_new",
        /// The rectifier.
        Relu = "relu",
    }
}

choice! {
    /// Where the teacher's answers come from.
    Logits {
        /// Computed once, kept in a file.
        Cache = "cache",
        /// Computed at every step.
        Live = "live",
    }
}

choice! {
    /// The loss on the labels.
    LabelLoss {
        /// Cross-entropy of the softmax.
        CrossEntropy = "cross_entropy",
        /// Mean squared error.
        Mse = "mse",
        /// Binary cross-entropy of each label's sigmoid.
        Bce = "bce",
    }
}

choice! {
    /// How the teacher's distribution p and the student's q are compared.
    DivergenceKind {
        /// KL(p ‖ q).
        ForwardKl = "forward_kl",
        /// KL(q ‖ p).
        ReverseKl = "reverse_kl",
        /// The mean of the two.
        SymmetricKl = "symmetric_kl",
        /// KL divergence of both from a mixture of both.
        JensenShannon = "jensen_shannon",
        /// KL divergence of p from a mixture of both.
        SkewKl = "skew_kl",
        /// KL divergence of q from a mixture of both.
        SkewReverseKl = "skew_reverse_kl",
        /// The α-β divergence.
        AlphaBeta = "alpha_beta",
        /// Half of the sum of absolute differences.
        TotalVariation = "total_variation",
        /// Decoupled distillation: the label against the rest, and the rest by itself.
        Dkd = "dkd",
        /// Mean squared difference of the logits.
        MseLogits = "mse_logits",
    }
}

choice! {
    /// How label and teacher are weighed.
    PolicyKind {
        /// By `alpha`, the same for all (Hinton et al. 2015).
        Fixed = "fixed",
        /// By a share that changes over the run (Clark et al. 2019).
        Schedule = "schedule",
        /// First the teacher, then the labels (Jafari et al. 2021).
        AnnealingKd = "annealing_kd",
        /// From a margin around the teacher to the labels (Jafari et al. 2022).
        ContinuationKd = "continuation_kd",
        /// By a variance of each loss (Kendall et al. 2018).
        Uncertainty = "uncertainty",
        /// By the size of each loss's gradient (Chen et al. 2018).
        GradNorm = "grad_norm",
        /// Less of the teacher where the student knows the label better (Zhou et al. 2021).
        Wsl = "wsl",
        /// By the teacher's margin (Lukasik et al. 2021).
        AdaKd = "ada_kd",
        /// By the student's uncertainty (Li et al. 2021).
        DynamicKd = "dynamic_kd",
        /// By `alpha`, at a learnt temperature (Li et al. 2023).
        Ctkd = "ctkd",
        /// By what helps a second set, loss by loss (Lu et al. 2021).
        RwKd = "rw_kd",
        /// By what helps a second set, sample by sample (Ren et al. 2018).
        L2rw = "l2rw",
        /// By a network of losses or logits (Shu et al. 2019).
        MetaWeightNet = "meta_weight_net",
        /// By a network of student, teacher and label (Hu et al. 2024).
        TgeoKd = "tgeo_kd",
        /// By a policy that a program brings with the library.
        Own = "own",
    }
}

choice! {
    /// How a share goes from its first value to its last.
    Course {
        /// In a line.
        Linear = "linear",
        /// Along half a cosine.
        Cosine = "cosine",
        /// At once.
        Step = "step",
    }
}

choice! {
    /// Whose uncertainty weighs the teacher.
    Adoption {
        /// Each sample's own.
        Sample = "sample",
        /// The mean of the step.
        Batch = "batch",
        /// The most uncertain part of a step hears the teacher, the rest does not.
        Select = "select",
    }
}

choice! {
    /// What is uncertain.
    Doubt {
        /// The entropy.
        Entropy = "entropy",
        /// Minus the difference of the two largest probabilities.
        Margin = "margin",
        /// Minus the largest probability.
        LeastConfidence = "least_confidence",
    }
}

choice! {
    /// What weights sum to.
    Normalize {
        /// Each sample's two to one.
        Terms = "terms",
        /// All of a step to its size.
        Batch = "batch",
        /// To nothing: they stay as they are measured.
        None = "none",
    }
}

choice! {
    /// What a network of weights sees.
    Sight {
        /// The two losses.
        Losses = "losses",
        /// The teacher's logits.
        TeacherLogits = "teacher_logits",
    }
}

choice! {
    /// What a network of weights gives.
    NetworkOutput {
        /// Both weights, each from 0 to 1.
        Weights = "weights",
        /// The teacher's share; the label has the rest.
        Share = "share",
    }
}

choice! {
    /// Whose tokenizer a teacher reads with.
    TeacherTokenizer {
        /// The run's, with which the student reads.
        Shared = "shared",
        /// The one in its folder.
        Own = "own",
    }
}

choice! {
    /// What is done where a teacher's vocabulary is not the student's.
    TeacherVocabulary {
        /// It is refused.
        Refuse = "refuse",
        /// Ids that stand for no token are never possible.
        Pad = "pad",
        /// Distributions are compared over the tokens that both have.
        Intersect = "intersect",
    }
}

choice! {
    /// Where a second set comes from.
    MetaFrom {
        /// A part of the training set.
        Split = "split",
        /// Other batches of the training set.
        Train = "train",
        /// A file of its own.
        File = "file",
    }
}

choice! {
    /// Where a second set's gradient is taken.
    MetaAt {
        /// At the weights as they are.
        Here = "here",
        /// At those that the coming step would lead to.
        Ahead = "ahead",
    }
}

choice! {
    /// How a loss's alignment with the second set is measured.
    EstimatorKind {
        /// By two forward passes beside the weights.
        FiniteDifference = "finite_difference",
        /// Through the last layer alone, in closed form.
        LastLayer = "last_layer",
    }
}

choice! {
    /// How hidden states are compared.
    HiddenKind {
        /// Mean squared difference.
        Mse = "mse",
        /// One minus the cosine.
        Cosine = "cosine",
        /// Squared difference of the vectors at unit length (patient distillation).
        NormalizedMse = "normalized_mse",
        /// KL divergence of the relations among positions (MiniLM).
        AttentionRelation = "attention_relation",
    }
}

choice! {
    /// How the share of new texts among a student's own goes over a run.
    ReplayRatio {
        /// From all to none.
        Falling = "falling",
        /// Half.
        Constant = "constant",
        /// From none to all.
        Rising = "rising",
    }
}

choice! {
    /// Positions that are compared.
    Position {
        /// All but padding.
        All = "all",
        /// The classifier's token.
        First = "first",
    }
}

choice! {
    /// Vectors that are related.
    Relation {
        /// Query with query.
        Query = "query",
        /// Key with key.
        Key = "key",
        /// Value with value.
        Value = "value",
        /// Query with key: the attention itself.
        QueryKey = "query_key",
    }
}

choice! {
    /// The learning rate's course after the warm-up.
    Schedule {
        /// Down to 0 in a line.
        Linear = "linear",
        /// Down to 0 in a half cosine.
        Cosine = "cosine",
        /// Level.
        Constant = "constant",
    }
}

choice! {
    /// Which average of a run's weights is judged and kept in place of the last ones.
    AverageKind {
        /// None: the weights themselves.
        None = "none",
        /// Stochastic weight averaging (Izmailov et al. 2018): all of a part of the run alike.
        Swa = "swa",
        /// An exponential moving average: the newest most.
        Ema = "ema",
    }
}

choice! {
    /// When to evaluate.
    EvalStrategy {
        /// After every pass over the training set, and at the end.
        Epoch = "epoch",
        /// Every `eval_steps` steps, and at the end.
        Steps = "steps",
        /// At the end.
        End = "end",
        /// Not at all.
        Never = "never",
    }
}

choice! {
    /// What to do with a step that is not finite.
    OnNonfinite {
        /// Stop.
        Stop = "stop",
        /// Leave the weights as they are and go on.
        Skip = "skip",
    }
}

choice! {
    /// What the factors of linear layers' products are rounded to; all else is 32-bit floats.
    Precision {
        /// 32-bit floats, as they are.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

/// A column of a data file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By its number, from 0.
    Number(u32),
    /// By its name.
    Name(String),
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "column {number}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl Read for Column {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::String(name) => return Some(Self::Name(name.clone())),
            Value::Integer(number) => match u32::try_from(*number) {
                Ok(number) => return Some(Self::Number(number)),
                Err(_) => wanted.refuse(&node, None, problems),
            },
            _ => wanted.refuse(&node, None, problems),
        }
        None
    }

    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.show(),
        }
    }
}

choice! {
    /// What becomes of the optimiser's moments where a model grows.
    GrownMoments {
        /// Every copy has its share: the grown model goes on as the small one would, copies locked.
        Exact = "exact",
        /// The first copy keeps its share, the others begin at zero and so learn apart.
        Asymmetric = "asymmetric",
        /// All begin at zero.
        Drop = "drop",
    }
}

choice! {
    /// What the label becomes, or what is added to its loss.
    RegularizerKind {
        /// A share of the label is spread over all classes (Szegedy et al. 2016).
        LabelSmoothing = "label_smoothing",
        /// A share of the label is spread as the classes are in the training set.
        Prior = "prior",
        /// The entropy of the answer is rewarded (Pereyra et al. 2017).
        ConfidencePenalty = "confidence_penalty",
        /// A skewed divergence from the uniform answer (Meister et al. 2020).
        GeneralizedEntropy = "generalized_entropy",
        /// A teacher made by hand, peaked at the label (Yuan et al. 2020).
        TfKd = "tf_kd",
        /// The mean of what was answered rightly for the label's class (Zhang et al. 2021).
        OnlineLabelSmoothing = "online_label_smoothing",
        /// The other classes by their rank, after Zipf (Liang et al. 2022).
        Zipf = "zipf",
        /// Logits far below the largest are penalised (Liu et al. 2022).
        Margin = "margin",
        /// The largest logit is pulled towards the mean (Zhou et al. 2025).
        MaxSup = "max_sup",
        /// A share of the label goes to the answer itself (Reed et al. 2015).
        Bootstrap = "bootstrap",
        /// A share goes to the answer itself, softened (Lu et al. 2023).
        Labo = "labo",
        /// A share goes to the best compromise between the answer and chosen distributions.
        Entropic = "entropic",
        /// Label smoothing whose share is learnt from a second set.
        LearnedSmoothing = "learned_smoothing",
        /// LABO whose share and temperature are learnt from a second set (Lu et al. 2023).
        LearnedLabo = "learned_labo",
        /// A distribution for each label, learnt from a second set.
        PerClass = "per_class",
        /// A distribution for each example by a small network, learnt from a second set (Zheng et
        /// al. 2021).
        PerInstance = "per_instance",
        /// A loss that a program brings with the library.
        Own = "own",
    }
}

choice! {
    /// Which classes smoothing spreads its share over.
    Smoothed {
        /// All of them, the label's own too: ε/K each.
        All = "all",
        /// All but the label's: ε/(K − 1) each.
        Others = "others",
    }
}

choice! {
    /// What tf_kd softens.
    Softening {
        /// The logarithms of the probabilities, as a temperature does.
        Logits = "logits",
        /// The probabilities themselves, as the published code does; nearly uniform.
        Probabilities = "probabilities",
    }
}
