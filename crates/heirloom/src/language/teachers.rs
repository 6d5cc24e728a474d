//! The teachers of a language model's run: found, opened, and each checked against what it must be.
//!
//! In: what a recipe or a plan says of each. Out: models, kept answers, what a plan must know of them,
//! and the teachers of a job. Never: answers of one teacher taken for another's.

use std::path::PathBuf;
use std::sync::Arc;

use heirloom_answers::{Expected, Kept, Kind};
use heirloom_data::text::PairedRows;
use heirloom_data::tokens::Tokenizer;
use heirloom_data::vocabulary::{Choice, Side, compare};
use heirloom_models::DecoderConfig;
use heirloom_recipe::{
    KeptFacts, LanguageModelFacts, LanguagePlan, LanguageTeacherFacts, LanguageTeacherPlan, Recipe,
    Teacher, TeacherVocabulary,
};
use heirloom_train::{LanguageConfig, LanguageTeacher, TeacherReads, kept_term};

use super::kept::head_of;
use super::{difference, facts_of, tokenizer_facts};
use crate::elsewhere::Named;
use crate::failure::Failure;
use crate::places::Places;

/// A model folder.
pub(super) struct TeacherModel {
    pub(super) path: PathBuf,
    pub(super) config: LanguageConfig,
    pub(super) facts: LanguageModelFacts,
}

/// A teacher whose folders are there, before the text is read.
pub(super) struct NamedTeacher<'a> {
    /// What its keys begin with.
    key: String,
    written: &'a Teacher,
    pub(super) model: Option<TeacherModel>,
    /// Its own, where its folder has one.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Where its kept answers are.
    pub(super) cache: Option<Named>,
}

impl<'a> NamedTeacher<'a> {
    /// Looks for what is written, and reads the model's config.
    pub(super) fn find(
        key: String,
        written: &'a Teacher,
        places: &Places,
    ) -> Result<Self, Failure> {
        let of = |name: &str, at: Option<&str>| {
            at.map(|path| places.model(&format!("{key}.{name}"), path)).transpose()
        };
        let path = of("model", written.model.as_ref().map(|at| at.value.as_str()))?;
        let cache = written.cache.as_ref();
        let cache = cache.map(|at| Named::find(&format!("{key}.cache"), &at.value, places));
        let cache = cache.transpose()?;
        let tokenizer = path.as_deref().and_then(|path| Tokenizer::open(path).ok());
        let model = match path {
            None => None,
            Some(path) => {
                let (config, facts) = facts_of(&path)?;
                Some(TeacherModel { path, config, facts })
            }
        };
        Ok(Self { key, written, model, tokenizer, cache })
    }

    /// Opens what was kept of it, which must be as `expected` says and of the model that is named.
    pub(super) fn open(
        self,
        places: &Places,
        expected: &Expected,
    ) -> Result<OpenedTeacher, Failure> {
        let Self { key, written, model, tokenizer, cache } = self;
        let (mut kept, mut head) = (None, None);
        if let Some(cache) = cache {
            let teacher = model.as_ref().map(|model| model.facts.digest);
            let opened = cache.open(&Expected { teacher, ..*expected })?;
            let named = written.model.as_ref().map(|at| at.value.as_str());
            head = head_of(&opened, places, (&format!("{key}.model"), named))?;
            kept = Some(Arc::new(opened));
        }
        Ok(OpenedTeacher { model, tokenizer, kept, head })
    }
}

/// A teacher that was opened.
pub(super) struct OpenedTeacher {
    pub(super) model: Option<TeacherModel>,
    tokenizer: Option<Tokenizer>,
    pub(super) kept: Option<Arc<Kept>>,
    /// The head of kept hidden states: its folder as it is named and where it was found, and its config
    /// without layers.
    head: Option<(String, PathBuf, DecoderConfig)>,
}

impl OpenedTeacher {
    /// Opens again what a plan names, and refuses what has changed since.
    pub(super) fn again(
        plan: &LanguageTeacherPlan,
        places: &Places,
        expected: &Expected,
    ) -> Result<Self, Failure> {
        let mut opened = Self { model: None, tokenizer: None, kept: None, head: None };
        match plan {
            LanguageTeacherPlan::Nobody => (),
            LanguageTeacherPlan::Model { path, digest, .. } => {
                let path = places.model("teacher.model", path)?;
                let (config, facts) = facts_of(&path)?;
                if facts.digest != *digest {
                    return Err(Failure::changed("model", &path, *digest, facts.digest));
                }
                opened.model = Some(TeacherModel { path, config, facts });
            }
            LanguageTeacherPlan::Kept { path, digest, teacher, head, .. } => {
                let named = Named::find("teacher.cache", path, places)?;
                let kept = named.open(&Expected { teacher: Some(*teacher), ..*expected })?;
                let found = kept.lasting_digest();
                if found != *digest {
                    let what = "teacher's kept answers";
                    return Err(Failure::changed(what, kept.folder(), *digest, found));
                }
                opened.head = head_of(&kept, places, ("teacher.model", head.as_deref()))?;
                opened.kept = Some(Arc::new(kept));
            }
        }
        Ok(opened)
    }

    /// What a plan must know of it, beside the run's tokenizer.
    pub(super) fn facts(&self, ours: &Tokenizer) -> LanguageTeacherFacts {
        let kept = |kept: &Arc<Kept>| {
            let about = kept.about();
            KeptFacts {
                digest: kept.lasting_digest(),
                teacher: about.teacher,
                width: about.width() as u64,
                drawn: matches!(about.kind, Kind::Samples { .. }),
                head: self.head.as_ref().map(|(name, ..)| name.clone()),
            }
        };
        LanguageTeacherFacts {
            model: self.model.as_ref().map(|model| model.facts),
            kept: self.kept.as_ref().map(kept),
            tokenizer: self.tokenizer.as_ref().map(tokenizer_facts),
            first_difference: self.tokenizer.as_ref().and_then(|theirs| difference(ours, theirs)),
        }
    }

    /// The teacher of a job whose plan says this of it.
    pub(super) fn for_job(
        self,
        plan: &LanguageTeacherPlan,
        beside: &Beside<'_>,
    ) -> Result<LanguageTeacher, Failure> {
        Ok(match (self.kept, self.head, self.model) {
            (Some(kept), Some((_, path, config)), _) => {
                LanguageTeacher::States { path, config: LanguageConfig::Decoder(config), kept }
            }
            (Some(kept), None, _) => LanguageTeacher::Answers(kept),
            (None, _, Some(model)) => {
                let reads = reads(plan, &model, beside)?;
                let TeacherModel { path, config, .. } = model;
                LanguageTeacher::Model { path, config, reads }
            }
            (None, _, None) => unreachable!("a plan's teacher has a model or kept answers"),
        })
    }
}

/// Refuses to say what becomes of tokens that answers do not name where all name every token.
pub(super) fn check_missing(recipe: &Recipe, teachers: &[OpenedTeacher]) -> Result<(), Failure> {
    let names_some = |teacher: &OpenedTeacher| teacher.kept.is_some() && teacher.head.is_none();
    let states = teachers.iter().any(|teacher| teacher.head.is_some());
    if recipe.objective.missing.is_some() && states && !teachers.iter().any(names_some) {
        return Err(Failure::usage(
            "`objective.missing` is written, and the answers are hidden states, which name every token; \
             leave it out",
        ));
    }
    Ok(())
}

/// Refuses a loss that kept answers cannot give.
pub(super) fn check_kept_terms(plan: &LanguagePlan) -> Result<(), Failure> {
    for teacher in plan.teachers() {
        let LanguageTeacherPlan::Kept { path, drawn, .. } = teacher else { continue };
        if let Some(why) = kept_term(plan, teacher).and_then(|term| term.refusal(*drawn)) {
            return Err(Failure::usage(format!(
                "`objective.divergence` cannot be taken of the answers in `{path}`: {why}; see \
                 `objective.missing`, or take \"forward_kl\""
            )));
        }
    }
    Ok(())
}

/// What a teacher's tokens are compared with.
pub(super) struct Beside<'a> {
    /// The run's tokenizer.
    pub(super) tokenizer: &'a Tokenizer,
    /// V of the student.
    pub(super) student: usize,
    /// The rows of both, where the teacher reads tokens of its own.
    pub(super) pairs: Option<&'a Arc<PairedRows>>,
}

/// What a model reads where the student reads a row, beside whose tokens its own are to be as `plan`
/// says.
fn reads(
    plan: &LanguageTeacherPlan,
    model: &TeacherModel,
    beside: &Beside<'_>,
) -> Result<TeacherReads, Failure> {
    if let Some(pairs) = beside.pairs {
        return Ok(TeacherReads::Own(Arc::clone(pairs)));
    }
    let choice = match plan {
        LanguageTeacherPlan::Model { vocabulary: TeacherVocabulary::Pad, .. } => Choice::Pad,
        LanguageTeacherPlan::Model { vocabulary: TeacherVocabulary::Intersect, .. } => {
            Choice::Intersect
        }
        _ => return Ok(TeacherReads::Same),
    };
    // A folder without a tokenizer is taken to have the run's.
    let own = Tokenizer::open(&model.path).ok();
    let (tokenizer, rows) = (beside.tokenizer, Some(model.config.vocab_size()));
    let found = compare([
        Side { tokenizer, rows: Some(beside.student) },
        Side { tokenizer: own.as_ref().unwrap_or(tokenizer), rows },
    ]);
    let map = found.map(choice).map_err(|refused| {
        let refused = heirloom_data::Error::from(refused);
        Failure { code: refused.exit_code(), message: format!("`teacher.vocabulary`: {refused}") }
    })?;
    Ok(TeacherReads::Mapped(Arc::new(map.to_teacher().to_vec())))
}
