"""Runs the SST-2 student's job here and by its rivals, turn by turn, from start to accuracy.

In: how many steps and rounds; $HEIRLOOM_DATA with glue/SST-2, $HEIRLOOM_MODELS with
all-MiniLM-L6-v2, as the recipes want them; for --job distil a teacher's folder.
Out: a table on stdout, and with --out a JSON file with every run and a description of the machine.
Never: lets one run find what another left: each has a new folder, so a teacher answers anew.

The job is that of recipes/sst2-labels.toml or recipes/sst2-distil.toml: layers 0, 2 and 4 of MiniLM,
batch 32, lr 2e-4. Orders of examples differ between the programs, so accuracies are those of
different runs; over 872 sentences each has a standard error of about 0.012.

What the columns mean. Before training: from the start of the process to the first step, with
imports, tokenising, loading and, where it answers beforehand, the teacher. Training: the steps alone.
Whole: the life of the process, with the evaluation at the end and the saving of the model.
Peak memory: the most that was resident, by the kernel's account.

Variants: heirloom-f32, heirloom-bf16; torch (sst2_torch.py, random batches), torch-grouped (batches of
similar length), trainer-grouped (transformers' Trainer), for --job distil also textbrewer and
textbrewer-cached; each of PyTorch's with -keep behind it: with glibc's allocator told to keep freed
memory.

python bench/sst2.py [--job labels|distil] [--teacher FOLDER] [--steps 1000] [--rounds 1] [--seed 1]
    [--variants heirloom-f32 torch-grouped] [--threads 2] [--heirloom target/release/heirloom]
    [--python VENV/bin/python] [--out FILE]
Needs: Python 3.9; for --python: torch, transformers, accelerate; textbrewer for its variants.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measure import KEEP, ROOT, Failed, described, finished, machine, markdown, say, write_json

HEIRLOOM = {"heirloom-f32": "f32", "heirloom-bf16": "bf16"}
RIVALS = {
    "torch": ["sst2_torch.py"],
    "torch-grouped": ["sst2_torch.py", "--group-by-length"],
    "trainer-grouped": ["sst2_trainer.py", "--group-by-length"],
    "textbrewer": ["sst2_textbrewer.py", "--group-by-length"],
    "textbrewer-cached": ["sst2_textbrewer.py", "--group-by-length", "--cache-logits"],
}
DISTILS_ONLY = ["textbrewer", "textbrewer-cached"]
VARIANTS = [*HEIRLOOM, *RIVALS, *(f"{name}-keep" for name in RIVALS)]
BASE = "heirloom-f32"
STUDENT = "all-MiniLM-L6-v2"
LAYERS = "0,2,4"
LEARNING_RATE = 2e-4
ALPHA, TEMPERATURE = 0.9, 4.0


def ours(precision, place, arguments):
    """The command of our run."""
    settings = {
        "training.max_steps": arguments.steps,
        "training.seeds": f"[{arguments.seed}]",
        "training.eval_strategy": '"end"',
        "training.precision": f'"{precision}"',
    }
    if arguments.teacher:
        settings["teacher.model"] = json.dumps(str(arguments.teacher))
    return [
        arguments.heirloom, "train", ROOT / f"recipes/sst2-{arguments.job}.toml", "--into", place / "run",
        "--threads", arguments.threads, "--json", "--quiet",
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]


def theirs(variant, place, arguments):
    """The command of a rival's run."""
    script, *flags = RIVALS[variant.removesuffix("-keep")]
    if arguments.teacher:
        flags += ["--teacher", arguments.teacher, "--alpha", ALPHA, "--temperature", TEMPERATURE]
    return [
        arguments.python, ROOT / "bench/peers" / script, "--data", arguments.data, "--student", arguments.student,
        "--layers", LAYERS, "--lr", LEARNING_RATE, "--max-steps", arguments.steps, "--seed", arguments.seed,
        "--threads", arguments.threads, "--out", place / "run", *flags,
    ]


def ours_told(run, printed, whole):
    """Our run in the words of the rivals' JSON."""
    summary, = json.loads(printed.splitlines()[-1])["runs"]
    times = (run / "times.jsonl").read_text().splitlines()
    # The clock of the record starts at the first step; the only evaluation comes after the last.
    training = [line for line in map(json.loads, times) if "seconds" in line][-1]["seconds"]
    steps = [json.loads(line) for line in (run / "run.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in steps if record["kind"] == "step"]
    tail = losses[-100:]
    return {
        "dev_accuracy": summary["best"],
        "before_training_seconds": whole - summary["seconds"],
        "train_seconds": training,
        "steps": summary["steps"],
        "loss_first": losses[0],
        "loss_last_100_mean": sum(tail) / len(tail),
    }


def run(variant, arguments):
    """One run, from the start of its process to its end."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        if variant in HEIRLOOM:
            command, environment = ours(HEIRLOOM[variant], place, arguments), None
        else:
            command = theirs(variant, place, arguments)
            environment = KEEP if variant.endswith("-keep") else None
        started = time.perf_counter()
        printed, peak = finished(command, environment)
        whole = time.perf_counter() - started
        told = ours_told(place / "run", printed, whole) if variant in HEIRLOOM else json.loads(printed.splitlines()[-1])
    return {**told, "whole_seconds": whole, "peak_memory_mb": peak}


def summary_of(runs, base):
    ratios = [other["train_seconds"] / our["train_seconds"] for other, our in zip(runs, base)]
    median = {key: statistics.median(run[key] for run in runs)
              for key in ("before_training_seconds", "train_seconds", "whole_seconds")}
    return {
        **median,
        "train_seconds_range": [min(run["train_seconds"] for run in runs), max(run["train_seconds"] for run in runs)],
        "ratio": {"rounds": ratios, "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "dev_accuracy": [run["dev_accuracy"] for run in runs],
    }


def table(summaries):
    columns = ["variant", "before training, s", "training, s (range)", f"training / {BASE} (range)", "whole, s",
               "peak MiB", "dev accuracy"]
    rows = []
    for name, summary in summaries.items():
        least, most = summary["train_seconds_range"]
        ratio = summary["ratio"]
        rows.append([
            name, f"{summary['before_training_seconds']:.1f}", f"{summary['train_seconds']:.1f} ({least:.1f}–{most:.1f})",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})", f"{summary['whole_seconds']:.1f}",
            f"{summary['peak_memory_mb']:.0f}", ", ".join(f"{score:.4f}" for score in summary["dev_accuracy"]),
        ])
    return markdown(columns, rows)


def main():
    parser = argparse.ArgumentParser(description="Runs the SST-2 student's job here and by its rivals.")
    parser.add_argument("--job", choices=["labels", "distil"], default="labels")
    parser.add_argument("--teacher", type=Path, help="a model folder; needed by --job distil")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME",
                        help=f"of {' '.join(VARIANTS)}; default: all without -keep that fit the job")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--heirloom", type=Path, default=ROOT / "target/release/heirloom")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python that has torch")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here as JSON")
    arguments = parser.parse_args()
    if (arguments.job == "distil") != (arguments.teacher is not None):
        parser.error("--teacher belongs to --job distil, which needs it")
    if arguments.teacher:
        arguments.teacher = arguments.teacher.resolve()
    if not arguments.heirloom.is_file():
        parser.error(f"{arguments.heirloom} is missing; run `cargo build --release` or give --heirloom")
    arguments.data = Path(os.environ.get("HEIRLOOM_DATA", ".")) / "glue/SST-2"
    arguments.student = Path(os.environ.get("HEIRLOOM_MODELS", ".")) / STUDENT
    for place in (arguments.data, arguments.student):
        if not place.is_dir():
            parser.error(f"{place} is missing; set HEIRLOOM_DATA and HEIRLOOM_MODELS")
    fit = [name for name in [*HEIRLOOM, *RIVALS] if arguments.job == "distil" or name not in DISTILS_ONLY]
    wanted = [name for name in VARIANTS if name == BASE or name in (arguments.variants or fit)]
    if arguments.job == "labels" and any(name.removesuffix("-keep") in DISTILS_ONLY for name in wanted):
        parser.error("TextBrewer only distils: --job distil")

    about = machine(arguments.heirloom, arguments.python)
    settings = {name: getattr(arguments, name) for name in ("job", "steps", "rounds", "seed", "threads")}
    results = {"machine": about, "settings": settings, "skipped": {}, "runs": {name: [] for name in wanted}}
    print(described(about))
    for at in range(arguments.rounds):
        start = at % len(wanted)
        for variant in wanted[start:] + wanted[:start]:
            if variant in results["skipped"]:
                continue
            try:
                told = run(variant, arguments)
            except Failed as failed:
                if variant == BASE or results["runs"][variant]:
                    sys.exit(f"{variant}: {failed}")
                results["skipped"][variant] = str(failed)
                say(f"round {at + 1}/{arguments.rounds} {variant}: skipped: {failed}")
                continue
            results["runs"][variant].append(told)
            say(f"round {at + 1}/{arguments.rounds} {variant}: training {told['train_seconds']:.1f} s, "
                f"whole {told['whole_seconds']:.1f} s, accuracy {told['dev_accuracy']:.4f}")
        runs = {name: of_variant for name, of_variant in results["runs"].items() if of_variant}
        results["summary"] = {name: summary_of(of_variant, runs[BASE]) for name, of_variant in runs.items()}
        if arguments.out:
            write_json(arguments.out, results)
    print(f"\n{arguments.job}, {arguments.steps} steps, {arguments.threads} threads, {arguments.rounds} rounds\n")
    print(table(results["summary"]))
    for name, why in results["skipped"].items():
        print(f"\n{name}: skipped: {why}")


if __name__ == "__main__":
    main()
