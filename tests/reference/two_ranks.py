"""Program run by two processes: everything that communicates; rank 0 writes its results as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from tiny_run import tiny

from reference import checkpoint, pipeline, ranks
from reference.data import TokenStream
from reference.evaluate import Evaluation, sliding, standard
from reference.ledger import check
from reference.model import GPT
from reference.quantize.calibrate import collect_hessians
from reference.runlog import RunLog
from reference.tokenizer import ByteTokenizer
from reference.train import Trainer
from reference.ttt import score_first
from reference.validation import ValidationStream


def compute(joined: ranks.Ranks, shards: Path, weights: Path, out: Path) -> dict:
    """Numbers that must not depend on the number of ranks."""
    results: dict = {}
    config = tiny("schedule.val_every=0")
    validation = ValidationStream.open(shards, config.data.val_glob, ByteTokenizer().tables, 32)
    stream = TokenStream.open(shards, config.data.train_glob)
    trainer = Trainer(config, stream, validation, joined, RunLog(None, ""))
    trainer.model.train()
    for _ in range(6):
        record = trainer.train_step()
    trainer.loader.close()
    checkpoint.save(out / f"c{joined.world}", trainer)
    results["loss"] = float(joined.sum_(record.loss.clone())) / joined.world
    results["weights"] = {n: p.detach().flatten()[:3].tolist() for n, p in trainer.model.named_parameters()}
    results["momentum"] = {n: t.flatten()[:3].tolist() for n, t in trainer.muon.state_dict().items()}
    work = pipeline.Workspace(config, shards, out, joined, RunLog(None, ""))
    for mode in ("standard", "sliding", "row_weighted", "rank_mean", "none"):
        ttt = mode not in ("standard", "sliding")
        changed = tiny(*([f"ttt.grad_sync={mode}", "ttt.batch_rows=3"] if ttt else []))
        model = pipeline.load_model(work, weights)
        evaluation = Evaluation(changed, model, validation, joined)
        score = score_first(evaluation) if ttt else {"standard": standard, "sliding": sliding}[mode](evaluation)
        check(evaluation.ledger.gather(joined), validation.positions, "ttt" if ttt else mode)
        results[mode] = [score.bpb, score.tokens, score.bytes]
        same = joined.gather(model.tok_embed.detach())
        assert all(torch.equal(same[0], other) for other in same), "ranks drifted apart"
    model = GPT(config)
    hessians = collect_hessians(model, stream, config, joined)
    results["hessian"] = float(np.mean([float(h.sum()) for h in hessians.values()]))
    results["largest"] = joined.max_float(float(joined.rank + 1)) / joined.world
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    process = ranks.start("cpu")
    found = compute(process, *map(Path, sys.argv[1:4]))
    if process.first:
        Path(sys.argv[4]).write_text(json.dumps(found))
    ranks.leave()
