//! What the run of a language model needs of memory, part by part.

use heirloom_answers::Kind;
use heirloom_base::Bytes;
use heirloom_recipe::{Batch, Cost, Counts, cost_of};
use heirloom_train::{LanguageJob, LanguageTeacher, language_memory};

use super::shapes;
use crate::failure::Failure;
use crate::gather::available_memory;
use crate::process;

/// What the run needs of memory, refused where there is not enough.
pub(super) fn memory(job: &LanguageJob) -> Result<Cost, Failure> {
    // Where the student is largest; for a moment both models' moments in double precision besides.
    let (_, configs) = heirloom_train::growth_plans(&job.plan.training, &job.student)?;
    let growing = match configs.as_slice() {
        // What the small one's step, evaluation and teacher took is there until the large one's is.
        [.., small, large] => {
            let small = &LanguageJob { student: small.clone(), ..job.clone() };
            let [activations, _, evaluation] = language_memory(small);
            let teacher = of_teachers(job);
            let small = shapes::parameters(&small.student);
            16 * (2 * small + shapes::parameters(large))
                + activations.0
                + evaluation.0
                + 4 * teacher
                + shapes::room(large, job.plan.training.threads as usize).0
        }
        _ => 0,
    };
    let largest = configs.last().unwrap_or(&job.student).clone();
    let job = &LanguageJob { student: largest, ..job.clone() };
    let (plan, threads) = (&job.plan, job.plan.training.threads as usize);
    let [activations, recomputed, evaluation] = language_memory(job);
    let resident = process::resident_memory().map_or(0, |memory| memory.0);
    let room = shapes::room(&job.student, threads);
    // A batch's indices on the device, and its rows in the host's memory.
    let tokens = plan.text.sequence_length.max(match plan.training.micro_batch {
        Batch::Tokens(tokens) => tokens,
        Batch::Sequences(rows) => rows * plan.text.sequence_length,
    });
    let indices = Bytes(4 * 16 * tokens);
    let with = |part: Bytes| Bytes(part.0 + room.0 + indices.0);
    let counts = Counts {
        student_parameters: shapes::parameters(&job.student),
        teacher_parameters: of_teachers(job),
        activations: with(activations),
        activations_recomputed: with(recomputed),
        answering: Bytes(0),
        other: Bytes(resident + evaluation.0 + of_the_host(job) + growing),
    };
    // What opening text and tokenizers took for a moment may have been more than the run will take.
    let parts = 4 * (4 * counts.student_parameters + counts.teacher_parameters)
        + counts.activations.0
        + counts.other.0;
    let before = process::peak_memory().map_or(0, |memory| memory.0).saturating_sub(parts);
    let counts = Counts { other: Bytes(counts.other.0 + before), ..counts };
    // What is resident already is not taken from what is available now.
    let available = Bytes(available_memory().0.saturating_add(resident));
    Ok(cost_of(&plan.training, plan.text.sequence_length, &counts, available)?)
}

/// Parameters of all teachers that are in memory beside the student.
fn of_teachers(job: &LanguageJob) -> u64 {
    if job.plan.objective.is_without_teacher() {
        return 0;
    }
    let models = job.teachers.iter().filter_map(LanguageTeacher::model);
    models.map(|(_, config)| shapes::parameters(config)).sum()
}

/// Memory of the host's own while a run goes on: the rows of a step, pieces of the largest tensor on
/// their way into a checkpoint, and a little for threads and files.
fn of_the_host(job: &LanguageJob) -> u64 {
    /// Numbers of a tensor that are written at a time; a transposed one is held twice.
    const PIECE: u64 = 1 << 20;
    /// Stacks of threads, buffers of files, text of records.
    const LITTLE: u64 = 2 << 20;
    let (training, length) = (&job.plan.training, job.plan.text.sequence_length);
    let tokens = match training.batch {
        Batch::Tokens(tokens) => tokens,
        Batch::Sequences(rows) => rows * length,
    };
    // Tokens and labels, of rows and of a batch.
    let rows = 2 * 8 * tokens;
    let kept = job.teachers.iter().filter_map(LanguageTeacher::kept);
    let answers = kept.map(|kept| match kept.about().kind {
        Kind::States { width } => 4 * tokens * u64::from(width),
        _ => 0,
    });
    rows + answers.sum::<u64>() + 3 * 4 * shapes::largest(&job.student).min(PIECE) + LITTLE
}
