"""Times one distillation step of a BERT classifier or a GPT-2 in PyTorch, as a rival.

In: a shape, a batch size, a sequence length; with --from a folder that
`heirloom bench step --dump` wrote. Out: one JSON object with the loss of every
step.
Never: reads text; without --from the model, the ids, the labels and the
teacher's logits come from a fixed seed. Every step sees the same batch.

A step: forward, 0.5 * 4 * KL(teacher || student) at temperature 2 + 0.5 *
cross-entropy, backward, AdamW, gradients cleared: of 2 classes of a sequence,
or of the next word of every token. No padding and no attention mask but the
causal one. Gradients are measured and clipped only with --max-grad-norm.
With --infer: the forward pass and the loss alone, without dropout.

python bench/peers/step_torch.py --model distilbert --batch 32 --seq 64 [--infer]
    [--mode eager|compile|bf16|compile-bf16] [--threads 2] [--dropout 0]
    [--from DIR] [--max-grad-norm 1] --json
Needs: torch, transformers, safetensors.
"""

import argparse
import json
import resource
import statistics
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

SHAPES = {
    "bert-mini": dict(num_hidden_layers=4, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
    "distilbert": dict(num_hidden_layers=6, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "bert-base": dict(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "gpt-small-v16k": dict(n_layer=6, n_embd=384, n_head=6, n_inner=1536, vocab_size=16384),
}
ALPHA, TEMPERATURE = 0.5, 2.0


def peak_memory_mb():
    """The most this process has held resident so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def optimiser_of(model, kind):
    """AdamW without decay on biases and LayerNorm; `kind` is fused or foreach."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=2e-5, **{kind: True})


def is_language_model(arguments):
    return arguments.model.startswith("gpt")


def dropouts(arguments):
    """What a config calls its dropouts."""
    keys = ["embd_pdrop", "attn_pdrop", "resid_pdrop"] if is_language_model(arguments) else [
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
    return {key: arguments.dropout for key in keys}


def drawn(arguments):
    """Model, ids, labels and the teacher's logits from this script's own seed."""
    shape, size = SHAPES[arguments.model], (arguments.batch, arguments.seq)
    if is_language_model(arguments):
        config = GPT2Config(n_positions=512, use_cache=False, **shape, **dropouts(arguments))
        model = GPT2LMHeadModel._from_config(config, attn_implementation=arguments.attention)
        ids = torch.randint(1000, config.vocab_size, size)
        labels = F.pad(ids[:, 1:], (0, 1), value=-100)
        return model, ids, labels, 2 * torch.randn(*size, config.vocab_size)
    config = BertConfig(
        vocab_size=30522, max_position_embeddings=512, type_vocab_size=2, num_labels=2,
        **shape, **dropouts(arguments),
    )
    model = BertForSequenceClassification._from_config(config, attn_implementation=arguments.attention)
    ids = torch.randint(1000, 30522, size)
    labels = torch.randint(0, 2, (arguments.batch,))
    teacher = 2 * torch.randn(arguments.batch, 2)
    return model, ids, labels, teacher


def handed_over(arguments):
    """The same four from the folder of `heirloom bench step --dump`."""
    kind = GPT2LMHeadModel if is_language_model(arguments) else BertForSequenceClassification
    model = kind.from_pretrained(
        arguments.from_folder, dtype=torch.float32, attn_implementation=arguments.attention, **dropouts(arguments),
    )
    model.config.use_cache = False
    batch = load_file(arguments.from_folder / "batch.safetensors")
    found = {key: getattr(model.config, key) for key in SHAPES[arguments.model]}
    if found != SHAPES[arguments.model] or batch["ids"].shape != (arguments.batch, arguments.seq):
        raise SystemExit(f"--from: {arguments.from_folder} holds another shape: {found}, ids {[*batch['ids'].shape]}")
    return model, batch["ids"], batch["labels"], batch["teacher_logits"]


def main():
    parser = argparse.ArgumentParser(description="Times one distillation step in PyTorch.")
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("--infer", action="store_true", help="time the forward pass alone")
    parser.add_argument("--mode", choices=["eager", "compile", "bf16", "compile-bf16"], default="eager")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--optimiser", choices=["fused", "foreach"], default="fused")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--from", dest="from_folder", type=Path, metavar="DIR",
                        help="take the model and the batch from here")
    parser.add_argument("--max-grad-norm", type=float, default=0.0,
                        help="clip the gradient to this length; 0 neither measures nor clips it")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of an indented object")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.warmup < 0:
        parser.error("--steps must be at least 1 and --warmup at least 0")
    baseline = peak_memory_mb()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model, ids, labels, teacher = (handed_over if arguments.from_folder else drawn)(arguments)
    model.train(not arguments.infer)
    labels, teacher = labels.flatten(), teacher.flatten(0, -2)

    def loss_of():
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in arguments.mode):
            logits = model(input_ids=ids).logits
        logits = logits.float().flatten(0, -2)
        # A new batch has new logits of the teacher, so their softmax belongs to the step.
        soft = (teacher / TEMPERATURE).softmax(-1)
        kd = TEMPERATURE**2 * F.kl_div((logits / TEMPERATURE).log_softmax(-1), soft, reduction="batchmean")
        return ALPHA * kd + (1 - ALPHA) * F.cross_entropy(logits, labels)

    run = torch.compile(loss_of) if "compile" in arguments.mode else loss_of
    optimiser = None if arguments.infer else optimiser_of(model, arguments.optimiser)

    def step():
        if arguments.infer:
            with torch.inference_mode():
                return run().item()
        loss = run()
        loss.backward()
        if arguments.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    losses, times = [], []
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        losses.append(step())
        times.append(1000 * (time.perf_counter() - start))
    times = times[arguments.warmup:]
    median = statistics.median(times)
    print(json.dumps({
        "model": arguments.model,
        "batch": arguments.batch,
        "seq": arguments.seq,
        "infer": arguments.infer,
        "mode": arguments.mode,
        "attention": arguments.attention,
        "optimiser": None if arguments.infer else arguments.optimiser,
        "dropout": arguments.dropout,
        "threads": arguments.threads,
        "max_grad_norm": arguments.max_grad_norm,
        "steps": arguments.steps,
        "median_ms": round(median, 3),
        "min_ms": round(min(times), 3),
        "max_ms": round(max(times), 3),
        "tokens_per_second": round(arguments.batch * arguments.seq / median * 1000, 1),
        "peak_memory_mb": peak_memory_mb(),
        "imports_memory_mb": baseline,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "losses": losses,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
