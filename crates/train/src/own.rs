//! What a program brings of its own: a balance policy, a label regularizer.
//!
//! In: a name, and how one is made as it is before the first step. Out: the same for every run of a
//! job: one for each seed, and one for a student that has grown. Never: used where the plan does not
//! name it. A run folder says in its plan what decided its steps, and only the program that brings
//! something of that name goes on with it.

use std::fmt;
use std::sync::Arc;

use heirloom_balance::Policy;
use heirloom_recipe::{BalancePlan, LanguagePlan, Plan, PolicyPlan, RegularizerPlan};
use heirloom_regularize::Target;

use crate::{Error, OwnRecord};

/// A program's own policy and regularizer, each by its name; neither in [`Own::default`].
#[derive(Clone, Debug, Default)]
pub struct Own {
    policy: Option<Named<dyn Policy>>,
    regularizer: Option<Named<dyn Target>>,
}

/// Something that can be made as often as it is needed.
struct Named<T: ?Sized> {
    called: String,
    make: Arc<dyn Fn() -> Box<T> + Send + Sync>,
}

impl<T: ?Sized> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self { called: self.called.clone(), make: Arc::clone(&self.make) }
    }
}

impl<T: ?Sized> fmt::Debug for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.called)
    }
}

/// The key whose value `own` asks for a policy.
const POLICY: &str = "objective.balance.policy";
/// The key whose value `own` asks for a regularizer.
const REGULARIZER: &str = "objective.regularizer.method";

impl Own {
    /// Brings a policy for plans with `objective.balance.policy = "own"` and this name. `make` gives
    /// it as it is before the first step.
    #[must_use]
    pub fn with_policy<P: Policy + 'static>(
        mut self,
        called: &str,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(move || Box::new(make()) as Box<dyn Policy>);
        self.policy = Some(Named { called: called.to_owned(), make });
        self
    }

    /// Brings a regularizer for plans with `objective.regularizer.method = "own"` and this name,
    /// likewise.
    #[must_use]
    pub fn with_regularizer<T: Target + 'static>(
        mut self,
        called: &str,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(move || Box::new(make()) as Box<dyn Target>);
        self.regularizer = Some(Named { called: called.to_owned(), make });
        self
    }

    /// Whether nothing is brought.
    pub fn is_empty(&self) -> bool {
        self.policy.is_none() && self.regularizer.is_none()
    }

    /// What the record says of it.
    pub(crate) fn record(&self) -> Option<OwnRecord> {
        let policy = self.policy.as_ref().map(|own| own.called.clone());
        let regularizer = self.regularizer.as_ref().map(|own| own.called.clone());
        let record = OwnRecord { kind: "own".to_owned(), policy, regularizer };
        (!self.is_empty()).then_some(record)
    }

    /// The policy before it has learnt anything.
    pub fn policy(&self) -> Option<Box<dyn Policy>> {
        self.policy.as_ref().map(|own| (own.make)())
    }

    /// The regularizer before it has gathered anything.
    pub fn regularizer(&self) -> Option<Box<dyn Target>> {
        self.regularizer.as_ref().map(|own| (own.make)())
    }

    /// Refuses a plan that names another policy or regularizer than are brought, or does not have
    /// what they need.
    ///
    /// # Errors
    /// [`Error::OwnMissing`], [`Error::OwnUnasked`], [`Error::OwnNeeds`].
    pub fn check(&self, plan: &Plan) -> Result<(), Error> {
        let objective = &plan.objective;
        self.check_policy(objective.balance.as_ref())?;
        let regularizer = match &objective.regularizer {
            Some(RegularizerPlan::Own { called }) => Some(called),
            _ => None,
        };
        agree(REGULARIZER, regularizer, self.regularizer.as_ref().map(|own| &own.called))?;
        if let Some(made) = self.regularizer() {
            let asked = made.needs();
            if asked.second_set && objective.regularizer_meta.is_none() {
                return needs(
                    REGULARIZER,
                    regularizer,
                    "a second set, [objective.regularizer.meta]",
                );
            }
            if asked.teacher && plan.teachers().next().is_none() {
                return needs(REGULARIZER, regularizer, "a [teacher]");
            }
            if asked.earlier {
                let what = "the logits of an earlier model, which no run has";
                return needs(REGULARIZER, regularizer, what);
            }
            if asked.features && !plan.training.stages.is_empty() {
                let what = "what the classifier sees, whose width may change: no [[stage]]";
                return needs(REGULARIZER, regularizer, what);
            }
        }
        Ok(())
    }

    /// The same for a language model, whose policy sees tokens and of each its losses.
    ///
    /// # Errors
    /// As [`Own::check`].
    pub fn check_language(&self, plan: &LanguagePlan) -> Result<(), Error> {
        let called = self.check_policy(plan.objective.balance.as_ref())?;
        // No such plan asks for a regularizer.
        agree(REGULARIZER, None, self.regularizer.as_ref().map(|own| &own.called))?;
        let Some(asked) = self.policy().map(|made| made.needs()) else { return Ok(()) };
        if asked.features {
            let what = "what a classifier sees of a sample, which a token does not have";
            return needs(POLICY, called.as_ref(), what);
        }
        if asked.together {
            let what = "all tokens of a step at once, of which it is shown a part at a time";
            return needs(POLICY, called.as_ref(), what);
        }
        Ok(())
    }

    /// The name of the policy that the plan asks for.
    fn check_policy(&self, balance: Option<&BalancePlan>) -> Result<Option<String>, Error> {
        let called = match balance.map(|balance| &balance.policy) {
            Some(PolicyPlan::Own { called }) => Some(called),
            _ => None,
        };
        agree(POLICY, called, self.policy.as_ref().map(|own| &own.called))?;
        let has_second_set = balance.is_some_and(|balance| balance.meta.is_some());
        if self.policy().is_some_and(|made| made.needs().alignments) && !has_second_set {
            needs(POLICY, called, "a second set, [objective.balance.meta]")?;
        }
        Ok(called.cloned())
    }
}

/// What is brought asks for something that is not there.
fn needs(key: &'static str, called: Option<&String>, what: &str) -> Result<(), Error> {
    let called = called.cloned().unwrap_or_default();
    Err(Error::OwnNeeds { key, called, needs: what.to_owned() })
}

/// Whether what is brought is what the plan names.
fn agree(
    key: &'static str,
    planned: Option<&String>,
    brought: Option<&String>,
) -> Result<(), Error> {
    match (planned, brought) {
        (Some(planned), brought) if brought != Some(planned) => {
            Err(Error::OwnMissing { key, called: planned.clone(), brought: brought.cloned() })
        }
        (None, Some(brought)) => Err(Error::OwnUnasked { key, called: brought.clone() }),
        _ => Ok(()),
    }
}
