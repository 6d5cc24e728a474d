"""Times one RW-KD step of a BERT classifier in PyTorch by differentiating through a step, as a rival.

In: a shape, a batch size, a sequence length. Out: one JSON object: the medians of a plain distillation
step, of the same step with RW-KD's weights (Lu et al. 2021, Findings of EMNLP), their ratio, the peak
memory after each, and how far the weights of the first step are from inner products of gradients.
Never: reads text; everything comes from a fixed seed.

The RW-KD step, as its public re-implementations take it: a virtual step of plain gradient descent down
sum(e1 * label loss + e2 * teacher loss) from e = 0, with its graph (create_graph=True); the loss of a
second batch of the same size at the moved weights; its gradient on e; the weights; the real step.

python bench/peers/rw_kd_torch.py --model bert-mini --batch 32 --seq 16 [--threads 2] [--steps 5]
Needs: torch, transformers.
"""

import argparse
import json
import statistics
import time
import warnings

import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import BertConfig, BertForSequenceClassification

from step_torch import ALPHA, SHAPES, TEMPERATURE, optimiser_of, peak_memory_mb

VIRTUAL_RATE = 1e-2
FLOOR = 1e-8

def main():
    parser = argparse.ArgumentParser(description="Times one RW-KD step in PyTorch.")
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        **SHAPES[arguments.model],
    )
    # The fused attention has no second derivative.
    model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    names, parameters = zip(*model.named_parameters())
    optimiser = optimiser_of(model, "fused")

    def batch():
        ids = torch.randint(1000, 30522, (arguments.batch, arguments.seq))
        return ids, torch.randint(0, 2, (arguments.batch,)), 2 * torch.randn(arguments.batch, 2)

    first, second = batch(), batch()

    def losses(weights, data):
        """Both losses of each sample."""
        ids, labels, teacher = data
        logits = functional_call(model, dict(zip(names, weights)), (), {"input_ids": ids}).logits
        soft = (teacher / TEMPERATURE).softmax(-1)
        kd = F.kl_div((logits / TEMPERATURE).log_softmax(-1), soft, reduction="none").sum(-1)
        return F.cross_entropy(logits, labels, reduction="none"), TEMPERATURE**2 * kd

    def plain():
        label, teacher = losses(parameters, first)
        ((1 - ALPHA) * label + ALPHA * teacher).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def weights():
        epsilon = torch.zeros(2, arguments.batch, requires_grad=True)
        label, teacher = losses(parameters, first)
        inner = (epsilon[0] * label + epsilon[1] * teacher).mean()

        gradients = torch.autograd.grad(inner, parameters, create_graph=True)
        moved = [p - VIRTUAL_RATE * g for p, g in zip(parameters, gradients)]
        outer = sum(loss.mean() for loss in losses(moved, second))
        return -torch.autograd.grad(outer, epsilon)[0]

    def rw_kd():
        raised = weights().clamp_min(FLOOR)
        share = (raised[1] / raised.sum(0)).detach()
        label, teacher = losses(parameters, first)
        ((1 - share) * label + share * teacher).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def medians(step):
        times = []
        for _ in range(arguments.warmup + arguments.steps):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times[arguments.warmup:])

    def inner_products():
        """How far the weights are from inner products of gradients, relative to the largest."""
        got = weights()
        v = torch.autograd.grad(sum(loss.mean() for loss in losses(parameters, second)), parameters)
        want = []
        for sample in range(2):
            pair = [loss[sample] for loss in losses(parameters, first)]
            for loss in pair:
                g = torch.autograd.grad(loss, parameters, retain_graph=True)
                want.append(sum((a * b).sum() for a, b in zip(v, g)))
        scale = VIRTUAL_RATE / arguments.batch
        found = torch.stack([got[0, 0], got[1, 0], got[0, 1], got[1, 1]]) / scale
        want = torch.stack(want)
        return ((found - want).abs().max() / want.abs().max()).item()

    agreement = inner_products()
    plain_ms = medians(plain)
    plain_peak = peak_memory_mb()
    rw_kd_ms = medians(rw_kd)
    print(json.dumps({
        "model": arguments.model, "batch": arguments.batch, "seq": arguments.seq,
        "threads": arguments.threads, "plain_ms": round(plain_ms, 1), "rw_kd_ms": round(rw_kd_ms, 1),
        "ratio": round(rw_kd_ms / plain_ms, 2), "plain_peak_mb": plain_peak, "peak_mb": peak_memory_mb(),
        "weights_against_inner_products": agreement,
    }))

main()
