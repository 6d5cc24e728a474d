"""What compare.py and sst2.py share: running a program, describing the machine, a table.

In: commands, rows. Out: the JSON a command printed, a description, Markdown.
Never: a name of this machine or a path on it in what is written down.

Needs: Python 3.9 or newer, Linux.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# glibc's allocator keeps freed memory, instead of handing it back and paying a page fault for each
# page of the next step. Our program's allocator does so by itself.
KEEP = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
FLAGS = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
         "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"]


class Failed(Exception):
    """A program that ended without an answer; its text is the program's own last words."""


def finished(command, extra_environment=None):
    """Runs a command; returns what it printed, and the most it held resident, in MiB."""
    environment = {**os.environ, **(extra_environment or {})}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as talk:
        try:
            child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=talk, env=environment)
        except OSError as error:
            raise Failed(str(error)) from error
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        talk.seek(0)
        if child.returncode != 0:
            raise Failed(last_words(talk.read()) or f"exit code {child.returncode}")
        return out.read().strip(), usage.ru_maxrss / 1024


def last_words(talk):
    """Why a program failed: our `error:` line, or the end of a traceback."""
    lines = [line for line in talk.splitlines() if line.strip()]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (ours or lines or [""])[-1]


def run_json(command, extra_environment=None):
    """Runs a command and returns the JSON object on the last line it printed."""
    return json.loads(finished(command, extra_environment)[0].splitlines()[-1])


def say(text):
    """Talk goes to stderr; stdout has the tables."""
    print(text, file=sys.stderr, flush=True)


def first_line(command):
    """The first line a command prints, or None where it cannot run."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def machine(heirloom, python):
    """The processor with the flags that decide speed, memory, and every version."""
    said = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("Flags", "").split()
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    version = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return {
        "processor": facts.get("Model name"),
        "family_model_stepping": [facts.get(key) for key in ("CPU family", "Model", "Stepping")],
        "hypervisor": facts.get("Hypervisor vendor"),
        "cores": os.cpu_count(),
        "threads_per_core": facts.get("Thread(s) per core"),
        "cache": {key: facts.get(f"{key} cache") for key in ("L1d", "L2", "L3")},
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gib": round(int(total.split()[1]) / (1 << 20), 1),
        "kernel": platform.release().split("-")[0],
        "libc": " ".join(platform.libc_ver()),
        "load_average": os.getloadavg(),
        "versions": {
            "heirloom": first_line([heirloom, "--version"]),
            "commit": first_line(["git", "describe", "--always", "--dirty"]),
            "python": first_line([python, "-c", "import platform; print(platform.python_version())"]),
            **{name: first_line([python, "-c", version, name])
               for name in ("torch", "transformers", "tokenizers", "accelerate", "numpy")},
        },
    }


def described(machine):
    """The machine in one line."""
    versions = machine["versions"]
    return (
        f"{machine['processor']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; {versions['heirloom']} ({versions['commit']}), "
        f"PyTorch {versions['torch']}, transformers {versions['transformers']}"
    )


def markdown(columns, rows):
    """A table; its cells are text."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_json(path, value):
    """Writes so that a reader finds the old file or the new one, whole."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
