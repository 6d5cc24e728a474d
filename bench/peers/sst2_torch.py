"""Fine-tunes or distils a BERT classifier on SST-2 with transformers, as a rival.

In: SST-2's train.tsv and dev.tsv, a student folder, optionally a teacher.
Out: a folder `save_pretrained` writes, and one JSON object on stdout.
Never: tunes anything on dev; dev is scored once, after the last step.

The job of sst2_job.py in the loop a careful user writes. The teacher answers once, before training,
in batches of similar length, only about what the run will train on.
--group-by-length batches sentences of similar length (mega-batches of 50
batches, shuffled, sorted inside, batches shuffled), which wastes less padding.

python bench/peers/sst2_torch.py --data SST-2 --student FOLDER --out DIR
    [--layers 0,2,4] [--teacher FOLDER --alpha 0.5 --temperature 2]
    [--epochs 1] [--max-steps N] [--lr 5e-5] [--seed 0] [--threads 2] [--group-by-length]
Needs: torch, transformers.
"""

import torch
import torch.nn.functional as F
from sst2_job import LARGEST_NORM, Job, Texts, optimiser_of, parser_of, predict, seconds_since_start
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup


def answers(job, plan):
    """The teacher's distributions for every example of the plan; other rows are zero."""
    arguments = job.arguments
    teacher = AutoModelForSequenceClassification.from_pretrained(arguments.teacher)
    tokenizer = AutoTokenizer.from_pretrained(arguments.teacher)
    asked = sorted({i for indices in plan for i in indices})
    texts = Texts(tokenizer, [job.train_texts[i] for i in asked], arguments.max_length)
    logits = predict(teacher, texts, 64)
    soft = torch.zeros(len(job.train_texts), logits.shape[1])
    soft[asked] = (logits / arguments.temperature).softmax(-1)
    return soft


def main():
    arguments = parser_of("Fine-tunes or distils on SST-2 with transformers.").parse_args()
    job = Job(arguments)
    # All batches are drawn first, so that a short run asks the teacher only
    # about what it will train on.
    plan = job.plan()
    started = seconds_since_start()
    soft = answers(job, plan) if arguments.teacher else None
    teacher_seconds = seconds_since_start() - started

    model = job.student()
    optimiser = optimiser_of(model, arguments.lr, arguments.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimiser, job.warmup_steps, job.steps)

    model.train()
    losses, real, padded = [], 0, 0
    started = seconds_since_start()
    for indices in plan:
        batch = job.texts.batch(indices)
        logits = model(**batch).logits
        loss = F.cross_entropy(logits, job.labels[indices])
        if soft is not None:
            t = arguments.temperature
            kd = t * t * F.kl_div((logits / t).log_softmax(-1), soft[indices], reduction="batchmean")
            loss = arguments.alpha * kd + (1 - arguments.alpha) * loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        real += sum(job.texts.lengths[i] for i in indices)
        padded += batch["input_ids"].numel()
    train_seconds = seconds_since_start() - started

    tail = losses[-100:]
    job.report(
        model, started, train_seconds,
        teacher_seconds=round(teacher_seconds, 3) if arguments.teacher else None,
        examples=sum(map(len, plan)),
        tokens_real=real,
        tokens_padded=padded,
        real_tokens_per_second=round(real / train_seconds, 1),
        loss_first=losses[0],
        loss_last_100_mean=sum(tail) / len(tail),
    )


if __name__ == "__main__":
    main()
