"""Hessian-weighted error of the quantisers on trained weights: plain rounding, clip search, GPTQ.

    python benchmarks/reference_quantizer.py --config pr612 --data-dir DATA --weights RUN/final_model.weights

Prints, for each width in bits, the error `sum e H e^T` over all matrices of the blocks relative to plain rounding with
the row maximum as clip, by the number of columns of the matrix. Also the largest weight of a row in units of the row's
root mean square: below about 3.3 (6 bits) nothing can be gained by clipping weights that are nearly Gaussian.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import torch
from torch import Tensor

from reference import checkpoint
from reference.average import apply_weights
from reference.config import load
from reference.config_eval import GPTQConfig
from reference.data import TokenStream
from reference.model import GPT, role_of
from reference.quantize.calibrate import collect_hessians
from reference.quantize.gptq import hessian_error, quantize_gptq
from reference.quantize.rowwise import quantize_rows
from reference.ranks import start

CLIPS = (0.95, 0.97, 0.98, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 0.9993, 0.9995, 0.9997, 0.9999, 0.99999, 1.0)
METHODS = ("plain rounding", "clip search, weights", "clip search, output", "GPTQ, plain clip", "GPTQ, clip by output")


def errors(weight: Tensor, hessian: Tensor, bits: int) -> dict[str, float]:
    """Hessian-weighted error of every method on one matrix `[out, in]`."""
    q = 2 ** (bits - 1) - 1
    limits = {"lo": -q, "hi": q, "qmax": q}
    rows = {
        "plain rounding": quantize_rows(weight, [1.0], **limits),
        "clip search, weights": quantize_rows(weight, CLIPS, **limits),
        "clip search, output": quantize_rows(weight, CLIPS, **limits, importance_C=hessian.diagonal()),
    }
    for name, source in (("GPTQ, plain clip", "plain rounding"), ("GPTQ, clip by output", "clip search, output")):
        rows[name] = quantize_gptq(weight, hessian, rows[source].scale, q, GPTQConfig()).integers
    return {name: hessian_error(weight, integers.dequantize(), hessian) for name, integers in rows.items()}


def main() -> None:
    """Calibrates, quantises with every method, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="pr612")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 5, 4])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    ranks = start()
    config = load(options.config, options.overrides)
    config.quant.gptq = config.quant.gptq or GPTQConfig(nsamples=64)
    model = GPT(config, initial=False)
    apply_weights(model, checkpoint.load_weights(options.weights, dict(model.named_parameters())))
    model.to(ranks.device)
    stream = TokenStream.open(options.data_dir, config.data.train_glob)
    hessians = collect_hessians(model, stream, config, ranks)
    matrices = {n: p.detach().float() for n, p in model.named_parameters() if role_of(n) in ("attn", "mlp")}
    print("| bits | columns | matrices | largest/rms | " + " | ".join(METHODS) + " |")
    print("|---" * (4 + len(METHODS)) + "|")
    for bits in options.bits:
        sums: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        peaks: dict[int, list[float]] = collections.defaultdict(list)
        for name, weight in matrices.items():
            sums[weight.size(1)].update(errors(weight, hessians[name], bits))
            ratio = weight.abs().amax(1) / weight.square().mean(1).sqrt().clamp_min(1e-12)
            peaks[weight.size(1)].append(float(ratio.mean()))
        for columns, total in sorted(sums.items()):
            relative = " | ".join(f"{total[m] / total[METHODS[0]]:.3f}" for m in METHODS)
            peak = sum(peaks[columns]) / len(peaks[columns])
            print(f"| {bits} | {columns} | {len(peaks[columns])} | {peak:.2f} | {relative} |", flush=True)


if __name__ == "__main__":
    main()
