//! What a run of a task needs of memory, part by part, before any of it is asked for.

use heirloom_base::Bytes;
use heirloom_engine::Cpu;
use heirloom_models::{Buffers, Capacity, EncoderConfig, Purpose};
use heirloom_objective::Objective;
use heirloom_recipe::{Cost, Counts, Evaluate, TeacherPlan, cost};
use heirloom_train::{
    EVALUATION_TOKENS, Job, Predictor, TeacherJob, Trainer, head_of, student_purpose, terms,
};

use crate::failure::Failure;
use crate::process;
use crate::second_set;

/// What the run needs of memory where its student is largest, refused where there is not enough, and
/// where a stage cannot be.
pub(super) fn memory_of_all_stages(job: &Job) -> Result<Cost, Failure> {
    let (_, configs) = heirloom_train::growth_plans(&job.plan.training, &job.student_config)?;
    let [small @ .., large] = configs.as_slice() else { return memory(job, 0) };
    let Some(small) = small.last() else { return memory(job, 0) };
    // What the small one's step took is there until the large one's is.
    let beside = memory(&Job { student_config: small.clone(), ..job.clone() }, 0)?.activations.0;
    // The small model's state, and for a moment both models' moments in double precision.
    let head = head_of(&job.plan);
    let (before, after) = (parameters(small, head), parameters(large, head));
    let growing = beside + 4 * FLOAT * before + 4 * FLOAT * (before + after);
    memory(&Job { student_config: large.clone(), ..job.clone() }, growing)
}

/// What the run needs of memory, `more` besides, refused where there is not enough.
fn memory(job: &Job, more: u64) -> Result<Cost, Failure> {
    let (plan, student) = (&job.plan, &job.student_config);
    let head = head_of(plan);
    let (terms, projected) = terms(&plan.objective);
    let inside = Objective::looks_inside(&terms);
    let capacity = Trainer::capacity(job);
    let (tokens, sequences) = (capacity.tokens as u64, capacity.sequences as u64);
    let threads = plan.training.threads as usize;
    let taps = Objective::taps(&terms);
    let buffers = |config: &EncoderConfig, capacity, purpose| {
        Buffers::bytes_needed(config, &head, capacity, &purpose).0
    };
    let (mut live, mut answering) = (Vec::new(), 0);
    let mut other = process::resident_memory().unwrap_or(Bytes(5 * plan.examples.train_tokens.0)).0;
    for (plan_of, teacher) in job.teachers() {
        let (TeacherPlan::Model { logits, batch_tokens, .. }, TeacherJob::Model(teacher)) =
            (plan_of, teacher)
        else {
            other += FLOAT * (job.train.len() * head.width(student)) as u64;
            continue;
        };
        if *logits == heirloom_recipe::Logits::Live || inside {
            live.push(teacher);
        } else {
            let read = teacher.own.as_ref().map_or(&job.train, |own| &own.train);
            let capacity = Predictor::capacity(*batch_tokens as usize, read);
            // One after the other, each on a device of its own.
            answering = answering.max(
                FLOAT * parameters(&teacher.config, head)
                    + buffers(&teacher.config, capacity, Purpose::Infer)
                    + room(&teacher.config, capacity, threads),
            );
            // The answers, in memory and as the bytes of their file.
            other += 2 * FLOAT * (job.train.len() * head.width(student)) as u64;
        }
    }
    // A batch's indices on the device and in the host's memory; labels and a teacher's answers.
    let mut activations = room(student, capacity, threads)
        + FLOAT * (10 * tokens + 4 * sequences + 4 * sequences * head.width(student) as u64);
    // Further teachers' answers and weights of rows.
    activations +=
        FLOAT * sequences * (job.other_teachers.len() * (1 + head.width(student))) as u64;
    let mut projections = 0;
    for teacher in &live {
        let purpose = if inside { Purpose::Inspect } else { Purpose::Infer };
        activations += buffers(&teacher.config, capacity, purpose);
        let (ours, theirs) = (student.hidden_size as u64, teacher.config.hidden_size as u64);
        let learned = projected.iter().filter(|projected| **projected).count() as u64;
        projections = learned * ours * theirs;
        // Gathered and projected states and their gradients.
        activations += if learned > 0 { 3 * FLOAT * tokens * ours.max(theirs) } else { 0 };
    }
    if let (Some(validation), true) = (&job.validation, plan.training.evaluate != Evaluate::Never) {
        let capacity = Predictor::capacity(EVALUATION_TOKENS, validation);
        other += buffers(student, capacity, Purpose::Infer);
    }
    let kept = buffers(student, capacity, student_purpose(plan, taps.clone()));
    let recomputed = buffers(student, capacity, Purpose::Recompute(taps));
    let table = (student.vocab_size * student.hidden_size) as u64;
    other += more;
    other += second_set::memory(plan, parameters(student, head) - table, table);
    let counts = Counts {
        student_parameters: parameters(student, head) + projections,
        teacher_parameters: live.iter().map(|teacher| parameters(&teacher.config, head)).sum(),
        activations: Bytes(activations + kept),
        activations_recomputed: Bytes(activations + recomputed),
        answering: Bytes(answering),
        other: Bytes(other),
    };
    // What is resident already is not taken from what is available now.
    let available =
        available_memory().0.saturating_add(process::resident_memory().map_or(0, |m| m.0));
    Ok(cost(plan, &counts, Bytes(available))?)
}

/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;

/// Memory of the device's own: panels of the largest product. The right factor of a layer's forward
/// pass is its weights, that of its weights' gradient the layer's input.
fn room(config: &EncoderConfig, capacity: Capacity, threads: usize) -> u64 {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let widest = f.max(3 * c);
    [(c, widest), (capacity.tokens, f.max(c))]
        .into_iter()
        .map(|(inner, columns)| Cpu::product_room(inner, columns, threads))
        .max()
        .unwrap_or(0)
}

/// Parameters of a model, counted on a device that holds nothing else for a moment.
fn parameters(config: &EncoderConfig, head: heirloom_models::Head) -> u64 {
    let layer = 4 * (config.hidden_size * config.hidden_size + config.hidden_size)
        + 2 * config.hidden_size * config.intermediate_size
        + config.intermediate_size
        + 5 * config.hidden_size;
    let tables = config.vocab_size + config.max_positions + config.token_types + 2;
    let head = (config.hidden_size + 1) * (config.hidden_size + head.width(config));
    (tables * config.hidden_size + config.layers * layer + head) as u64
}

/// Memory that the system says is available, or a guess of 8 GB where it does not say.
pub fn available_memory() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok()
    });
    kilobytes.map_or(Bytes(8_000_000_000), |kilobytes| Bytes(kilobytes * 1024))
}
