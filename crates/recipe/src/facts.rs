//! What was found outside: everything a plan depends on that is not in the recipe.
//!
//! In: gathered by the caller, who may open files. Out: plain data. Never: opens a file itself.

use heirloom_base::{Bytes, Digest, Tokens};

use crate::plan::ModelShape;

/// What was found outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Examples to train on, after the split.
    pub train_examples: u64,
    /// How many of them have no label; they are all that `unlabelled_limit` leaves.
    pub unlabelled_examples: u64,
    /// Their tokens, each example cut to `max_length`.
    pub train_tokens: Tokens,
    /// Steps of one pass over the training set, counted by packing what split and limits leave of
    /// it; for batches of a number of tokens. Where it is `None`, they are estimated.
    pub steps_per_epoch: Option<u64>,
    /// Examples of the set that choices look at.
    pub validation_examples: u64,
    /// The label names: those of the recipe, or the sorted distinct values of the training file.
    /// Empty for a regression.
    pub labels: Vec<String>,
    /// Digest of all data files.
    pub data: Digest,
    /// The tokenizer that will be used.
    pub tokenizer: TokenizerFacts,
    /// The teacher's own tokenizer, where its folder has one.
    pub teacher_tokenizer: Option<TokenizerFacts>,
    /// The first token at which the two differ.
    pub first_difference: Option<TokenDifference>,
    /// The student's folder, where the recipe names one.
    pub student: Option<ModelFacts>,
    /// The teacher's folder, where the recipe names one.
    pub teacher: Option<ModelFacts>,
    /// The other teachers' folders, in the recipe's order.
    pub other_teachers: Vec<TeacherFacts>,
    /// For each teacher of a task, in the recipe's order: digest of the file of its answers, where it
    /// has one in place of a model.
    pub answers: Vec<Option<Digest>>,
    /// Memory available, for [`cost`](crate::cost()).
    pub memory: Bytes,
    /// Cores available.
    pub threads: u64,
}

/// One of several teachers.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherFacts {
    /// Its folder; `None` where it is a file of answers.
    pub model: Option<ModelFacts>,
    /// Its own tokenizer, where its folder has one.
    pub tokenizer: Option<TokenizerFacts>,
    /// The first token at which that and the run's differ.
    pub first_difference: Option<TokenDifference>,
}

/// A tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// Tokens it knows.
    pub vocab_size: u64,
    /// Digest of its vocabulary and rules.
    pub digest: Digest,
}

/// A token at which two vocabularies differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDifference {
    /// Its id.
    pub id: u64,
    /// The student's token, if it has one there.
    pub student: Option<String>,
    /// The teacher's token, if it has one there.
    pub teacher: Option<String>,
}

impl TokenDifference {
    pub(crate) fn words(&self) -> String {
        let token =
            |token: &Option<String>| token.as_ref().map_or("nothing".into(), |t| format!("{t:?}"));
        format!(
            "token {} is {} for the teacher, {} for the student",
            self.id,
            token(&self.teacher),
            token(&self.student)
        )
    }
}

/// A model's folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// Its shape.
    pub shape: ModelShape,
    /// Its labels in order; empty where it has no classifier.
    pub labels: Vec<String>,
    /// Digest of its weights, and of the moments beside them.
    pub digest: Digest,
    /// How it has grown, where that was written beside it.
    pub grown: Option<GrownFacts>,
}

/// What stands beside the weights of a grown model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrownFacts {
    /// Steps of the optimiser that its moments have heard of; 0 where they were dropped.
    pub updates: u64,
    /// Parameters whose learning rate is to be multiplied, by factor.
    pub rates: Vec<GrownRate>,
    /// Parameters without moments.
    pub fresh: Vec<String>,
    /// Parameters that are to stay as they are.
    pub frozen: Vec<String>,
}

/// Parameters with one factor of the learning rate.
#[derive(Clone, Debug, PartialEq)]
pub struct GrownRate {
    /// The factor.
    pub factor: f64,
    /// Their names.
    pub parameters: Vec<String>,
}
