"""What the rivals on SST-2 share: the data, the job's settings, and the report.

In: SST-2's train.tsv and dev.tsv, a student folder. Out: batches, a model, one JSON object.
Never: tunes anything on dev; dev is scored once, after the last step.

The job: batches padded to their longest sentence, AdamW (fused) without decay on biases and
LayerNorm, linear warm-up over a tenth of the steps and linear decay to 0, gradients clipped to 1.
With a teacher the loss of a batch is
alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy.

Needs: torch, transformers.
"""

import argparse
import json
import os
import random
import resource
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import torch
import transformers
from transformers import AutoTokenizer, BertForSequenceClassification, DataCollatorWithPadding

MEGA = 50
LARGEST_NORM = 1.0


def seconds_since_start():
    """Seconds since this process was started, its imports included."""
    started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    now = float(Path("/proc/uptime").read_text().split()[0])
    return now - started / os.sysconf("SC_CLK_TCK")


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


def parser_of(description):
    """The flags of every rival."""
    parser = argparse.ArgumentParser(description=description)
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
    return parser


class Job:
    """The data, tokenised, and how many steps there are."""

    def __init__(self, arguments):
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(arguments.seed)
        self.arguments = arguments
        started = seconds_since_start()
        self.train_texts, train_labels = read(arguments.data / "train.tsv")
        dev_texts, dev_labels = read(arguments.data / "dev.tsv")
        self.tokenizer = AutoTokenizer.from_pretrained(arguments.student)
        self.texts = Texts(self.tokenizer, self.train_texts, arguments.max_length)
        self.dev = Texts(self.tokenizer, dev_texts, arguments.max_length)
        self.labels, self.dev_labels = torch.tensor(train_labels), torch.tensor(dev_labels)
        steps_per_epoch = -(-len(self.train_texts) // arguments.batch)
        self.steps = min(arguments.epochs * steps_per_epoch, arguments.max_steps or sys.maxsize)
        self.warmup_steps = int(0.1 * self.steps)
        self.tokenise_seconds = seconds_since_start() - started

    def plan(self):
        """The batches of all steps, as indices."""
        shuffler = random.Random(self.arguments.seed)
        plan = []
        while len(plan) < self.steps:
            plan += epoch_batches(self.texts.lengths, self.arguments.batch, self.arguments.group_by_length, shuffler)
        return plan[:self.steps]

    def student(self):
        """The model that is trained, with the layers that were asked for."""
        model = BertForSequenceClassification.from_pretrained(
            self.arguments.student, num_labels=2, dtype=torch.float32)
        if self.arguments.layers:
            keep_layers(model, self.arguments.layers)
        return model

    def report(self, model, before_training_seconds, train_seconds, **more):
        """Scores dev, saves the model, prints the JSON object."""
        arguments = self.arguments
        started = seconds_since_start()
        predicted = predict(model, self.dev, 64).argmax(-1)
        eval_seconds = seconds_since_start() - started
        right = (predicted == self.dev_labels).sum().item()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        model.save_pretrained(arguments.out)
        self.tokenizer.save_pretrained(arguments.out)
        print(json.dumps({
            "dev_accuracy": right / len(self.dev_labels),
            "dev_examples": len(self.dev_labels),
            "before_training_seconds": round(before_training_seconds, 3),
            "train_seconds": round(train_seconds, 3),
            "eval_seconds": round(eval_seconds, 3),
            "tokenise_seconds": round(self.tokenise_seconds, 3),
            "steps": self.steps,
            "peak_rss_mb": round(peak, 1),
            **more,
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
