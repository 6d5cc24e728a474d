"""Times one distillation step here and in PyTorch, turn by turn, after their losses were found equal.

In: shapes, variants, how many rounds. Out: a table per shape on stdout, and with --out a JSON file
with every run and a description of the machine.
Never: times a variant whose losses were not first held against ours; compares times of different
rounds.

First, per shape: `heirloom bench step --dump` hands its model and batch to step_torch.py, and every
variant computes 8 steps of it without dropout. The losses of the first and the last must equal ours
in f32: within 1e-4 of it for f32, within 2e-2 for bf16. A variant that cannot run is left out, with
its own words.
Then the rounds: each runs every variant once, in an order that moves on by one from round to round,
in a process of its own. Ratios are PyTorch's time over ours inside a round.
The floor is the time that the step's products would take if all ran at the best rate that
`heirloom bench products` shows for any product of this shape, in f32, in any round (or --peak).

Variants: heirloom-f32, heirloom-bf16, torch-eager, torch-compile, torch-bf16, torch-compile-bf16, and
each of PyTorch's with -keep behind it: with glibc's allocator told to keep freed memory.

python bench/compare.py [--shapes bert-mini:16x128 distilbert:8x64:infer] [--rounds 5]
    [--variants heirloom-f32 torch-eager torch-compile-keep] [--threads 2] [--check-only]
    [--heirloom target/release/heirloom] [--python VENV/bin/python] [--peak GFLOPS] [--out FILE]
Needs: Python 3.9; for --python: torch, transformers, safetensors; a C++ compiler for torch-compile.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from measure import KEEP, ROOT, Failed, described, machine, markdown, run_json, say, write_json

MODELS = ["bert-mini", "distilbert", "bert-base", "gpt-small-v16k"]
SHAPES = ["bert-mini:16x128", "distilbert:8x64", "bert-base:8x64", "bert-mini:16x128:infer", "distilbert:8x64:infer"]
HEIRLOOM = {"heirloom-f32": "f32", "heirloom-bf16": "bf16"}
TORCH = {f"torch-{mode}": mode for mode in ("eager", "compile", "bf16", "compile-bf16")}
VARIANTS = [*HEIRLOOM, *TORCH, *(f"{name}-keep" for name in TORCH)]
BASE = "heirloom-f32"
CHECKED_STEPS = 8
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2}


class Shape:
    """`model:BATCHxSEQ`, with `:infer` for the forward pass alone."""

    def __init__(self, text):
        model, size, *rest = text.split(":")
        if model not in MODELS or rest not in ([], ["infer"]):
            raise ValueError(text)
        self.text, self.model, self.infer = text, model, bool(rest)
        self.batch, self.seq = (int(number) for number in size.split("x"))

    def size(self):
        return ["--model", self.model, "--batch", self.batch, "--seq", self.seq]

    def flags(self):
        return [*self.size(), *(["--infer"] if self.infer else [])]


def command_of(variant, shape, arguments):
    """The command of a variant without how many steps, and what it needs in its environment."""
    common = ["--threads", arguments.threads, "--max-grad-norm", arguments.max_grad_norm, "--json"]
    if variant in HEIRLOOM:
        step = [arguments.heirloom, "bench", "step", "--precision", HEIRLOOM[variant]]
        return [*step, *shape.flags(), *common], None
    keeps = variant.endswith("-keep")
    script = [arguments.python, ROOT / "bench/peers/step_torch.py", "--mode", TORCH[variant.removesuffix("-keep")]]
    return [*script, *shape.flags(), *common], KEEP if keeps else None


def precision_of(variant):
    return "bf16" if "bf16" in variant else "f32"


def check(shape, variants, arguments):
    """Losses per variant, and the variants that cannot run; ends the program where losses differ."""
    steps = ["--dropout", 0, "--warmup", 0, "--steps", CHECKED_STEPS]
    checked, skipped, unequal = {}, {}, []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "dump"
        command, _ = command_of(BASE, shape, arguments)
        ours = run_json([*command, *steps, "--dump", folder])["losses"]
        for variant in variants:
            # Where freed memory goes changes no number.
            if variant.endswith("-keep"):
                continue
            command, environment = command_of(variant, shape, arguments)
            handed = [] if variant in HEIRLOOM else ["--from", folder]
            try:
                losses = run_json([*command, *steps, *handed], environment)["losses"]
            except Failed as failed:
                skipped[variant] = str(failed)
                say(f"  {variant}: skipped: {failed}")
                continue
            apart = [abs(theirs - our) / abs(our) for theirs, our in zip(losses, ours)]
            checked[variant] = {"losses": losses, "apart": apart}
            worst, allowed = max(apart[0], apart[-1]), TOLERANCE[precision_of(variant)]
            say(f"  {variant}: loss {losses[0]:.6f} → {losses[-1]:.6f}, {worst:.1e} from {BASE} (allowed {allowed:.0e})")
            # Written so that a loss that is not a number is unequal.
            if len(losses) != CHECKED_STEPS or not worst <= allowed:
                unequal.append(variant)
    if unequal:
        sys.exit(f"{shape.text}: the losses of {', '.join(unequal)} are not ours; nothing was timed")
    skipped.update({f"{name}-keep": why for name, why in skipped.items() if f"{name}-keep" in variants})
    return checked, skipped


def summary_of(runs, ours):
    """What the runs of one variant come to; `ours` are our own runs, by precision."""
    ratio = {}
    for name, others in ours.items():
        ratios = [run["median_ms"] / other["median_ms"] for run, other in zip(runs, others)]
        ratio[name] = {"rounds": ratios, "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {
        "median_ms": statistics.median(run["median_ms"] for run in runs),
        "min_ms": min(run["min_ms"] for run in runs),
        "max_ms": max(run["max_ms"] for run in runs),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "imports_memory_mb": max((run.get("imports_memory_mb", 0.0) for run in runs)),
        "ratio_to": ratio,
    }


def summarise(shape, result, arguments):
    """Adds the floor and what every variant came to."""
    runs = result["runs"]
    rate = arguments.peak or max(result["product_gflops"])
    operations = runs[BASE][0]["gflops"] * runs[BASE][0]["median_ms"] * 1e6
    result["floor"] = {"gflops": rate, "operations": operations, "ms": operations / rate / 1e6}
    ours = {name: runs[name] for name in HEIRLOOM if name in runs}
    result["summary"] = {name: summary_of(of_variant, ours) for name, of_variant in runs.items()}
    for summary in result["summary"].values():
        summary["over_floor"] = summary["median_ms"] / result["floor"]["ms"]


def table(result):
    """The summary of a shape in rows."""
    ours = [name for name in HEIRLOOM if name in result["summary"]]
    columns = ["variant", "median ms", "min", "max", *(f"time / {name}, median (range)" for name in ours),
               "peak MiB", "of it imports", "time / floor"]
    rows = []
    for name, summary in result["summary"].items():
        ratios = [summary["ratio_to"][our] for our in ours]
        imports = summary["imports_memory_mb"]
        rows.append([
            name, *(f"{summary[key]:.1f}" for key in ("median_ms", "min_ms", "max_ms")),
            *(f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" for ratio in ratios),
            f"{summary['peak_memory_mb']:.0f}", f"{imports:.0f}" if imports else "-", f"{summary['over_floor']:.2f}",
        ])
    return markdown(columns, rows)


def measure(shape, result, variants, arguments, write):
    """All rounds of a shape; what was measured is written down after each."""
    steps = ["--dropout", arguments.dropout, "--warmup", arguments.warmup, "--steps", arguments.steps]
    for at in range(arguments.rounds):
        if arguments.peak is None:
            products = [arguments.heirloom, "bench", "products", *shape.size(), "--threads", arguments.threads, "--json"]
            result["product_gflops"].append(run_json(products)["best"])
        start = at % len(variants)
        for variant in variants[start:] + variants[:start]:
            command, environment = command_of(variant, shape, arguments)
            run = run_json([*command, *steps], environment)
            result["runs"][variant].append(run)
            say(f"  round {at + 1}/{arguments.rounds} {variant}: {run['median_ms']:.1f} ms")
        summarise(shape, result, arguments)
        write()


def main():
    parser = argparse.ArgumentParser(description="Times a distillation step here and in PyTorch, turn by turn.")
    parser.add_argument("--shapes", nargs="+", type=Shape, default=[Shape(text) for text in SHAPES],
                        metavar="MODEL:BATCHxSEQ[:infer]", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME",
                        help=f"default: all of {' '.join(VARIANTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="at least 5")
    parser.add_argument("--steps", type=int, default=7, help="steps that are timed in a run")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--max-grad-norm", type=float, default=0.0, help="both clip to it; 0: neither does")
    parser.add_argument("--heirloom", type=Path, default=ROOT / "target/release/heirloom")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python that has torch")
    parser.add_argument("--peak", type=float, metavar="GFLOPS", help="rate of products for the floor")
    parser.add_argument("--check-only", action="store_true", help="compare losses, time nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here as JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 5 and not arguments.check_only:
        parser.error("--rounds must be at least 5")
    if not arguments.heirloom.is_file():
        parser.error(f"{arguments.heirloom} is missing; run `cargo build --release` or give --heirloom")
    # Ratios are to our own f32 step, whether or not it was named.
    wanted = [name for name in VARIANTS if name == BASE or name in arguments.variants]

    about = machine(arguments.heirloom, arguments.python)
    settings = {name: getattr(arguments, name) for name in ("rounds", "steps", "warmup", "threads", "dropout",
                                                            "max_grad_norm", "peak")}
    results = {"machine": about, "settings": settings, "shapes": []}

    def write():
        if arguments.out:
            write_json(arguments.out, results)

    print(described(about))
    for shape in arguments.shapes:
        say(f"{shape.text}: losses")
        try:
            checked, skipped = check(shape, wanted, arguments)
            variants = [name for name in wanted if name not in skipped]
            result = {"shape": shape.text, "losses": checked, "skipped": skipped, "product_gflops": [],
                      "runs": {name: [] for name in variants}}
            results["shapes"].append(result)
            write()
            if arguments.check_only:
                continue
            measure(shape, result, variants, arguments, write)
        except Failed as failed:
            sys.exit(f"{shape.text}: {failed}")
        floor = result["floor"]
        print(f"\n{shape.text}, {arguments.threads} threads, {arguments.rounds} rounds; floor {floor['ms']:.1f} ms: "
              f"{floor['operations'] / 1e9:.1f} GFLOP of products at {floor['gflops']:.1f} GFLOP/s\n")
        print(table(result))
        for name, why in skipped.items():
            print(f"\n{name}: skipped: {why}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
