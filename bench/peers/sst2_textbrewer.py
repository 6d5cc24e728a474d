"""Distils a BERT classifier on SST-2 with TextBrewer, as a rival.

In: SST-2's train.tsv and dev.tsv, a student folder, a teacher folder with the student's tokenizer.
Out: a folder `save_pretrained` writes, and one JSON object on stdout.
Never: tunes anything on dev; dev is scored once, after the last step.

The job of sst2_job.py with TextBrewer's BasicDistiller. Its teacher's term is cross-entropy
with the teacher's distribution, which has the gradient of KL; T^2 is in the weight.
The teacher answers inside each step, as is its default; with --cache-logits it answers
before the first step, about the padded batches of the run, and that is not counted as training.

python bench/peers/sst2_textbrewer.py --data SST-2 --student FOLDER --teacher FOLDER --out DIR
    [--layers 0,2,4] [--alpha 0.5 --temperature 2] [--cache-logits]
    [--epochs 1] [--max-steps N] [--lr 5e-5] [--seed 0] [--threads 2] [--group-by-length]
Needs: torch, transformers, textbrewer (0.2.1.post1, with tensorboard, which it imports).
"""

import torch
from sst2_job import LARGEST_NORM, Job, optimiser_of, parser_of, seconds_since_start
from textbrewer import BasicDistiller, DistillationConfig, TrainingConfig
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup


class Batches:
    """The batches of all steps, padded when they are asked for."""

    def __init__(self, job):
        self.job, self.plan = job, job.plan()

    def __len__(self):
        return len(self.plan)

    def __iter__(self):
        for indices in self.plan:
            # TextBrewer takes plain dictionaries only.
            yield {**self.job.texts.batch(indices), "labels": self.job.labels[indices]}


class Timed(BasicDistiller):
    """Knows how long the teacher took to answer beforehand."""

    teacher_seconds = 0.0

    def cache_logits(self, *given):
        started = seconds_since_start()
        super().cache_logits(*given)
        self.teacher_seconds += seconds_since_start() - started


def adapted(batch, outputs):
    """What TextBrewer wants of a model's outputs."""
    return {"logits": (outputs.logits,), "losses": (outputs.loss,)}


def main():
    parser = parser_of("Distils on SST-2 with TextBrewer.")
    parser.add_argument("--cache-logits", action="store_true", help="ask the teacher before the first step")
    arguments = parser.parse_args()
    if not arguments.teacher:
        parser.error("--teacher is missing; TextBrewer only distils")
    job = Job(arguments)
    batches = Batches(job)
    model = job.student()
    teacher = AutoModelForSequenceClassification.from_pretrained(arguments.teacher, dtype=torch.float32)
    arguments.out.mkdir(parents=True, exist_ok=True)
    distiller = Timed(
        TrainingConfig(device="cpu", output_dir=str(arguments.out), ckpt_frequency=1),
        DistillationConfig(
            temperature=arguments.temperature, kd_loss_type="ce", hard_label_weight=1 - arguments.alpha,
            kd_loss_weight=arguments.alpha * arguments.temperature**2, is_caching_logits=arguments.cache_logits,
        ),
        teacher, model, adapted, adapted,
    )
    optimiser = optimiser_of(model, arguments.lr, arguments.weight_decay)
    # All steps are one epoch to TextBrewer, which caches answers only where it counts in epochs.
    started = seconds_since_start()
    with distiller:
        distiller.train(
            optimiser, batches, num_epochs=1, max_grad_norm=LARGEST_NORM,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": job.warmup_steps, "num_training_steps": job.steps},
        )
    asking = distiller.teacher_seconds
    job.report(model, started + asking, seconds_since_start() - started - asking,
               teacher_seconds=round(asking, 3) if arguments.cache_logits else None)


if __name__ == "__main__":
    main()
