"""Fine-tunes or distils a BERT classifier on SST-2 with transformers, as a rival.

In: SST-2's train.tsv and dev.tsv, a student folder, optionally a teacher.
Out: a folder `save_pretrained` writes, and one JSON object on stdout.
Never: tunes anything on dev; dev is scored once, after the last step.

The job a careful user writes: dynamic padding per batch, AdamW without decay
on biases and LayerNorm, linear warm-up over a tenth of the steps and linear
decay to 0, gradients clipped to 1. The teacher answers once, before training,
in batches of similar length; with --teacher the loss of a batch is
alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy.
--group-by-length batches sentences of similar length (mega-batches of 50
batches, shuffled, sorted inside, batches shuffled), which wastes less padding.

python bench/peers/sst2_torch.py --data SST-2 --student FOLDER --out DIR
    [--layers 0,2,4] [--teacher FOLDER --alpha 0.5 --temperature 2]
    [--epochs 1] [--max-steps N] [--lr 5e-5] [--seed 0] [--threads 2] [--group-by-length]
Needs: torch, transformers.
"""

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import torch
import torch.nn.functional as F
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

MEGA = 50


def read(path):
    """(texts, labels) of a file with a header `sentence<TAB>label`."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    pairs = [line.rsplit("\t", 1) for line in lines]
    return [text for text, _ in pairs], [int(label) for _, label in pairs]


def sorted_batches(lengths, size):
    """Batches of indices from longest to shortest, for passes without training."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i:i + size] for i in range(0, len(order), size)]


def epoch_batches(lengths, size, grouped, shuffler):
    """The batches of one epoch in their random order."""
    order = list(range(len(lengths)))
    shuffler.shuffle(order)
    if grouped:
        mega = size * MEGA
        order = [i for at in range(0, len(order), mega)
                 for i in sorted(order[at:at + mega], key=lambda i: -lengths[i])]
    batches = [order[i:i + size] for i in range(0, len(order), size)]
    if grouped:
        shuffler.shuffle(batches)
    return batches


class Texts:
    """Tokenised sentences that come out as padded batches.

    Only the ids stay, tokenised a thousand texts at a time: the tokenizer's
    own answers also hold offsets and strings, some 270 MB for this corpus.
    """

    def __init__(self, tokenizer, texts, max_length):
        self.ids = []
        for at in range(0, len(texts), 1000):
            self.ids += tokenizer(texts[at:at + 1000], truncation=True, max_length=max_length)["input_ids"]
        self.lengths = [len(ids) for ids in self.ids]
        self.pad = DataCollatorWithPadding(tokenizer)

    def batch(self, indices):
        return self.pad([{"input_ids": self.ids[i]} for i in indices])


def predict(model, texts, size):
    """Logits of every text, in the order of the texts."""
    model.eval()
    logits = torch.empty(len(texts.lengths), model.config.num_labels)
    with torch.inference_mode():
        for indices in sorted_batches(texts.lengths, size):
            logits[indices] = model(**texts.batch(indices)).logits.float()
    return logits


def keep_layers(model, layers):
    """Leaves only the named layers, in the given order; first is 0."""
    encoder = model.bert.encoder
    if any(not 0 <= i < len(encoder.layer) for i in layers):
        sys.exit(f"--layers: the student has layers 0 to {len(encoder.layer) - 1}, got {layers}")
    encoder.layer = torch.nn.ModuleList([encoder.layer[i] for i in layers])
    model.config.num_hidden_layers = len(layers)


def optimiser_of(model, rate, decay):
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def main():
    parser = argparse.ArgumentParser(description="Fine-tunes or distils on SST-2 with transformers.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--layers", type=lambda text: [int(i) for i in text.split(",")])
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--alpha", type=float, default=0.5, help="the teacher's share of the loss")
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, help="stop, and end the schedule, after this many steps")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    shuffler = random.Random(arguments.seed)
    started = time.perf_counter()

    train_texts, train_labels = read(arguments.data / "train.tsv")
    dev_texts, dev_labels = read(arguments.data / "dev.tsv")
    tokenizer = AutoTokenizer.from_pretrained(arguments.student)
    # All batches are drawn first, so that a short run asks the teacher only
    # about what it will train on.
    steps_per_epoch = -(-len(train_texts) // arguments.batch)
    steps = min(arguments.epochs * steps_per_epoch, arguments.max_steps or sys.maxsize)
    texts = Texts(tokenizer, train_texts, arguments.max_length)
    dev = Texts(tokenizer, dev_texts, arguments.max_length)
    plan = []
    while len(plan) < steps:
        plan += epoch_batches(texts.lengths, arguments.batch, arguments.group_by_length, shuffler)
    plan = plan[:steps]
    labels = torch.tensor(train_labels)
    tokenise_seconds = time.perf_counter() - started

    started = time.perf_counter()
    soft = None
    if arguments.teacher:
        teacher = AutoModelForSequenceClassification.from_pretrained(arguments.teacher)
        own = AutoTokenizer.from_pretrained(arguments.teacher)
        asked = sorted({i for indices in plan for i in indices})
        answers = predict(teacher, Texts(own, [train_texts[i] for i in asked], arguments.max_length), 64)
        soft = torch.zeros(len(train_texts), answers.shape[1])
        soft[asked] = (answers / arguments.temperature).softmax(-1)
        del teacher, own, answers
    teacher_seconds = time.perf_counter() - started

    model = BertForSequenceClassification.from_pretrained(arguments.student, num_labels=2, dtype=torch.float32)
    if arguments.layers:
        keep_layers(model, arguments.layers)
    optimiser = optimiser_of(model, arguments.lr, arguments.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimiser, int(0.1 * steps), steps)

    model.train()
    losses, real, padded = [], 0, 0
    started = time.perf_counter()
    for indices in plan:
        batch = texts.batch(indices)
        logits = model(**batch).logits
        loss = F.cross_entropy(logits, labels[indices])
        if soft is not None:
            t = arguments.temperature
            kd = t * t * F.kl_div((logits / t).log_softmax(-1), soft[indices], reduction="batchmean")
            loss = arguments.alpha * kd + (1 - arguments.alpha) * loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        real += sum(texts.lengths[i] for i in indices)
        padded += batch["input_ids"].numel()
    train_seconds = time.perf_counter() - started

    started = time.perf_counter()
    predicted = predict(model, dev, 64).argmax(-1)
    eval_seconds = time.perf_counter() - started
    right = (predicted == torch.tensor(dev_labels)).sum().item()

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    tail = losses[-100:]
    print(json.dumps({
        "dev_accuracy": right / len(dev_labels),
        "dev_examples": len(dev_labels),
        "train_seconds": round(train_seconds, 3),
        "eval_seconds": round(eval_seconds, 3),
        "teacher_seconds": round(teacher_seconds, 3) if arguments.teacher else None,
        "tokenise_seconds": round(tokenise_seconds, 3),
        "steps": len(plan),
        "examples": sum(map(len, plan)),
        "tokens_real": real,
        "tokens_padded": padded,
        "real_tokens_per_second": round(real / train_seconds, 1),
        "peak_rss_mb": round(peak, 1),
        "loss_first": losses[0],
        "loss_last_100_mean": sum(tail) / len(tail),
        "distilled": arguments.teacher is not None,
        "layers": model.config.num_hidden_layers,
        "parameters": sum(p.numel() for p in model.parameters()),
        "lr": arguments.lr,
        "seed": arguments.seed,
        "threads": arguments.threads,
        "group_by_length": arguments.group_by_length,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }))


if __name__ == "__main__":
    main()
