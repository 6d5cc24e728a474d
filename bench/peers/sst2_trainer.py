"""Fine-tunes or distils a BERT classifier on SST-2 with transformers' Trainer, as a rival.

In: SST-2's train.tsv and dev.tsv, a student folder, optionally a teacher.
Out: a folder `save_pretrained` writes, and one JSON object on stdout.
Never: tunes anything on dev; dev is scored once, after the last step. Writes no checkpoint and no
log while it trains.

The job of sst2_job.py with Trainer's own loop, sampler and decay groups. The teacher, where there is
one, answers inside each step, without gradient, as is usual with a Trainer whose `compute_loss` is
overridden.
--group-by-length is Trainer's own: mega-batches of 50 batches, each sorted from long to short.

python bench/peers/sst2_trainer.py --data SST-2 --student FOLDER --out DIR
    [--layers 0,2,4] [--teacher FOLDER --alpha 0.5 --temperature 2]
    [--epochs 1] [--max-steps N] [--lr 5e-5] [--seed 0] [--threads 2] [--group-by-length]
Needs: torch, transformers, accelerate.
"""

import dataclasses

import torch
import torch.nn.functional as F
from sst2_job import LARGEST_NORM, Job, parser_of, seconds_since_start
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments


class Examples(torch.utils.data.Dataset):
    """Ids and label of each sentence."""

    def __init__(self, job):
        self.ids, self.labels = job.texts.ids, job.labels.tolist()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, at):
        return {"input_ids": self.ids[at], "labels": self.labels[at]}


class Distiller(Trainer):
    """Trainer with the teacher's share in the loss."""

    def __init__(self, teacher, alpha, temperature, **more):
        super().__init__(**more)
        self.teacher, self.alpha, self.temperature = teacher.eval(), alpha, temperature

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        outputs, t = model(**inputs), self.temperature
        with torch.no_grad():
            soft = (self.teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits / t).softmax(-1)
        kd = t * t * F.kl_div((outputs.logits / t).log_softmax(-1), soft, reduction="batchmean")
        loss = self.alpha * kd + (1 - self.alpha) * outputs.loss
        return (loss, outputs) if return_outputs else loss


def grouping(wanted):
    """The setting that groups by length; transformers 5 gave it another name."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    if "train_sampling_strategy" in names:
        return {"train_sampling_strategy": "group_by_length" if wanted else "random"}
    return {"group_by_length": wanted}


def main():
    arguments = parser_of("Fine-tunes or distils on SST-2 with transformers' Trainer.").parse_args()
    job = Job(arguments)
    settings = TrainingArguments(
        output_dir=str(arguments.out), max_steps=job.steps, per_device_train_batch_size=arguments.batch,
        learning_rate=arguments.lr, weight_decay=arguments.weight_decay, optim="adamw_torch_fused",
        lr_scheduler_type="linear", warmup_steps=job.warmup_steps, max_grad_norm=LARGEST_NORM,
        seed=arguments.seed, use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, **grouping(arguments.group_by_length),
    )
    common = dict(model=job.student(), args=settings, train_dataset=Examples(job), data_collator=job.texts.pad,
                  processing_class=job.tokenizer)
    if arguments.teacher:
        teacher = AutoModelForSequenceClassification.from_pretrained(arguments.teacher, dtype=torch.float32)
        trainer = Distiller(teacher, arguments.alpha, arguments.temperature, **common)
    else:
        trainer = Trainer(**common)

    started = seconds_since_start()
    done = trainer.train()
    train_seconds = seconds_since_start() - started
    job.report(trainer.model, started, train_seconds, loss_mean=done.training_loss)


if __name__ == "__main__":
    main()
