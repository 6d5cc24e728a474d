"""Times one distillation step of a BERT classifier in PyTorch, as a rival.

In: a shape, a batch size, a sequence length. Out: one JSON object.
Never: reads weights or text; the model, the ids, the labels and the teacher's
logits come from a fixed seed, and every step sees the same batch.

A step: forward, 0.5 * 4 * KL(teacher || student) at temperature 2 + 0.5 *
cross-entropy with 2 labels, backward, AdamW, gradients cleared. No padding and
no attention mask. With --infer: the forward pass alone, without dropout.

python bench/peers/step_torch.py --model distilbert --batch 32 --seq 64 [--infer]
    [--mode eager|compile|bf16|compile-bf16] [--threads 2] [--dropout 0] --json
Needs: torch, transformers.
"""

import argparse
import json
import resource
import statistics
import time
import warnings

import torch
import torch.nn.functional as F
import transformers
from transformers import BertConfig, BertForSequenceClassification

SHAPES = {
    "bert-mini": dict(num_hidden_layers=4, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
    "distilbert": dict(num_hidden_layers=6, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "bert-base": dict(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
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
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of an indented object")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.warmup < 0:
        parser.error("--steps must be at least 1 and --warmup at least 0")
    baseline = peak_memory_mb()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = BertConfig(
        vocab_size=30522, max_position_embeddings=512, type_vocab_size=2, num_labels=2,
        hidden_dropout_prob=arguments.dropout, attention_probs_dropout_prob=arguments.dropout,
        **SHAPES[arguments.model],
    )
    model = BertForSequenceClassification._from_config(config, attn_implementation=arguments.attention)
    model.train(not arguments.infer)
    ids = torch.randint(1000, 30522, (arguments.batch, arguments.seq))
    labels = torch.randint(0, 2, (arguments.batch,))
    teacher = 2 * torch.randn(arguments.batch, 2)
    soft = (teacher / TEMPERATURE).softmax(-1)

    def loss_of():
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in arguments.mode):
            logits = model(input_ids=ids).logits
        logits = logits.float()
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
        "steps": arguments.steps,
        "median_ms": round(median, 3),
        "min_ms": round(min(times), 3),
        "tokens_per_second": round(arguments.batch * arguments.seq / median * 1000, 1),
        "peak_memory_mb": peak_memory_mb(),
        "imports_memory_mb": baseline,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
