"""The chain from shards to a scored artifact: train, average, calibrate, quantise, write, read back, evaluate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reference import artifact, checkpoint, container, ledger
from reference.average import apply_weights
from reference.config import Config
from reference.data import TokenStream, find_shards
from reference.evaluate import Evaluation, sliding, standard
from reference.model import GPT
from reference.quantize import QuantizedModel, quantize_state
from reference.quantize.apply import report_rows
from reference.quantize.calibrate import collect_hessians
from reference.ranks import Ranks
from reference.runlog import RunLog, source_files
from reference.scoring import Score
from reference.tokenizer import Tokenizer, load_tokenizer
from reference.train import Trainer
from reference.ttt import score_first
from reference.validation import ValidationStream, matching_fingerprint

WEIGHTS_FILE = "final_model.weights"
ARTIFACT_FILE = "final_model.pgz"


@dataclass
class Workspace:
    """Where a run reads and writes, and with whom it computes."""

    config: Config
    data_dir: Path
    out: Path
    ranks: Ranks
    log: RunLog

    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the configuration."""
        data = self.config.data
        return load_tokenizer(data.tokenizer, data.vocab_size, folder=self.data_dir, sha256=data.tokenizer_sha256)

    def validation(self) -> ValidationStream:
        """Validation stream in whole rows of the longer of training and evaluation length, counts checked."""
        data = self.config.data
        length = max(data.seq_len, self.config.eval.seq_len)
        stream = ValidationStream.open(self.data_dir, data.val_glob, self.tokenizer().tables, length)
        stream.check_counts(data.val_tokens, data.val_bytes)
        return stream

    def train_stream(self) -> TokenStream:
        """Training stream."""
        return TokenStream.open(self.data_dir, self.config.data.train_glob)


def train(work: Workspace, *, resume: bool = False) -> Path:
    """Trains, quantises inside the budget, writes float weights and artifact; returns the artifact's path."""
    config, log = work.config, work.log
    stream, validation = work.train_stream(), work.validation()
    saved = work.out / "train.checkpoint"
    trainer = Trainer(config, stream, validation, work.ranks, log, checkpoint_path=saved)
    log_header(work, trainer, validation)
    if resume and saved.is_file():
        trainer.warm_up()
        checkpoint.load(saved, trainer)
        log.line(f"resumed: step:{trainer.step}/{config.schedule.iterations}")
    trainer.run()
    began = time.perf_counter()
    hessians = None
    if any(rule.gptq for rule in config.quant.rules):
        hessians = collect_hessians(trainer.model, stream, config, work.ranks)
        log.line(
            f"gptq:calibrated rows:{config.quant.gptq.nsamples if config.quant.gptq else 0} split:train "
            f"time:{1000 * (time.perf_counter() - began):.0f}ms"
        )
    path = quantize(work, trainer.model, hessians)
    used = trainer.elapsed + time.perf_counter() - began
    budget = config.schedule.max_wallclock_seconds
    if budget > 0:
        verdict = "inside" if used <= budget else f"OVER: raise schedule.reserve_seconds by {used - budget:.0f}"
        log.line(f"training_budget: used:{used:.1f}s of:{budget:.1f}s ({verdict}; calibration, quantisation included)")
    return path


def log_header(work: Workspace, trainer: Trainer, validation: ValidationStream) -> None:
    """Lines before the first step, and the resolved configuration as an event."""
    config, log = work.config, work.log
    data, schedule = config.data, config.schedule
    log.event("config", **config.to_dict())
    known = matching_fingerprint(validation, data.vocab_size)
    log.event(
        "validation",
        tokens=validation.positions,
        bytes=validation.bytes,
        documents=validation.documents,
        fingerprint=known.name if known else None,
    )
    kind = "byte260" if data.tokenizer == "byte260" else "sentencepiece"
    shards = len(find_shards(work.data_dir, data.train_glob))
    log.line(f"val_bpb:enabled tokenizer_kind={kind} tokenizer_path={data.tokenizer}")
    log.line(f"train_loader:dataset:{data.dataset} train_shards:{shards}")
    log.line(f"val_loader:shards pattern={data.val_glob} tokens:{validation.positions}")
    log.line(f"model_params:{sum(p.numel() for p in trainer.model.parameters())}")
    log.line(f"world_size:{work.ranks.world} grad_accum_steps:{trainer.loader.micro_steps}")
    log.line(
        f"train_batch_tokens:{data.batch_tokens} train_seq_len:{data.seq_len} iterations:{schedule.iterations} "
        f"warmup_steps:{schedule.compile_warmup_steps} max_wallclock_seconds:{schedule.max_wallclock_seconds:.3f}"
    )
    log.line(f"seed:{schedule.seed}")


def quantize(work: Workspace, model: GPT, hessians: dict[str, Tensor] | None) -> Path:
    """Writes float weights and the artifact (rank 0), logs sizes and errors; returns the artifact's path."""
    path = work.out / ARTIFACT_FILE
    if work.ranks.first:
        weights = {name: p.detach() for name, p in model.named_parameters()}
        size = checkpoint.save_weights(work.out / WEIGHTS_FILE, weights, work.config.name)
        quantised = quantize_state(weights, work.config.quant, hessians)
        packed = artifact.save(path, quantised, work.config.artifact.compressor)
        _log_sizes(work, quantised, size, packed, sum(t.numel() * t.element_size() for t in weights.values()))
    work.ranks.barrier()
    return path


def label(config: Config) -> str:
    """`int6`, `int5`, ... when all quantising rules agree, else `mixed`; `float` when there are none."""
    kinds = {f"int{rule.bits}" for rule in config.quant.rules if rule.scheme != "keep"}
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "float"


def _log_sizes(work: Workspace, quantised: QuantizedModel, weights_file: int, packed: int, float_bytes: int) -> None:
    config, log = work.config, work.log
    code = [Path(name) for name in config.artifact.code_files] or source_files()
    report = artifact.size_report(packed, code, config.artifact.cap_bytes)
    code_bytes, payload = report.total - packed, quantised.payload_bytes
    raw = len(container.pack(*quantised.stored()))
    name = f"{label(config)}+{config.artifact.compressor}"
    log.line(f"Serialized model: {weights_file} bytes")
    log.line(f"Code size: {code_bytes} bytes")
    log.line(
        f"Serialized model {name}: {packed} bytes (payload:{payload} raw_torch:{raw} "
        f"payload_ratio:{float_bytes / max(payload, 1):.2f}x)"
    )
    log.line(f"Total submission size {name}: {report.total} bytes")
    for line in report.lines():
        log.line(line)
    log.event(
        "artifact",
        model_bytes=packed,
        code_bytes=code_bytes,
        total=report.total,
        cap=report.cap,
        tensors=report_rows(quantised),
    )


def load_model(work: Workspace, path: Path) -> GPT:
    """Model of the configuration with the weights of an artifact, or of a file of float weights."""
    model = GPT(work.config, initial=False)
    expected = {name: p.detach() for name, p in model.named_parameters()}
    with_magic = path.is_file() and path.open("rb").read(8) == container.MAGIC
    apply_weights(model, checkpoint.load_weights(path, expected) if with_magic else artifact.load(path, expected))
    return model.to(work.ranks.device)


MODES = ("standard", "sliding", "ttt")


def evaluate(work: Workspace, path: Path, modes: tuple[str, ...] = MODES, *, resume: bool = False) -> dict[str, Score]:
    """Evaluates stored weights in the given modes; writes the ledger and `results.json`.

    The gain of test-time training is the difference between `sliding` and `ttt`, nothing else.

    Raises:
        ScoringError: the ledger breaks a law of score-first evaluation.
    """
    validation = work.validation()
    scores: dict[str, Score] = {}
    for mode in modes:
        model = load_model(work, path)
        evaluation = Evaluation(
            work.config,
            model,
            validation,
            work.ranks,
            state_folder=work.out / "state" if resume else None,
            log=work.log,
        )
        evaluation.ledger.add("Load", artifact=path.name)
        began = time.perf_counter()
        run = {"standard": standard, "sliding": sliding, "ttt": lambda e: score_first(e, work.log)}[mode]
        scores[mode] = run(evaluation)
        seconds = time.perf_counter() - began
        evaluation.ledger.add("Report", metric="val_bpb", value=scores[mode].bpb)
        _finish(work, mode, scores[mode], evaluation, seconds, path)
    if work.ranks.first:
        rows = {
            mode: {"val_loss": s.loss, "val_bpb": s.bpb, "tokens": s.tokens, "bytes": s.bytes, "repeats": s.repeats}
            for mode, s in scores.items()
        }
        (work.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return scores


def _finish(work: Workspace, mode: str, score: Score, evaluation: Evaluation, seconds: float, path: Path) -> None:
    """Checks and writes the ledger of one mode and logs its result."""
    events = evaluation.ledger.gather(work.ranks)
    ledger.check(events, evaluation.stream.positions, mode, allow_repeats=score.repeats > 0)
    if work.ranks.first:
        ledger.write(work.out / f"ledger_{mode}.jsonl", events)
    quantised = path.name != WEIGHTS_FILE
    kind = label(work.config) if quantised else "float"
    if mode == "standard" and quantised:
        work.log.line(
            f"final_{kind}_{work.config.artifact.compressor}_roundtrip val_loss:{score.loss:.4f} "
            f"val_bpb:{score.bpb:.4f} eval:{1000 * seconds:.0f}ms"
        )
    before = "pre_ttt_quant_eval" if quantised else "pre_ttt_float_eval"
    lines = {
        "standard": f"{before} val_loss:{score.loss:.6f} val_bpb:{score.bpb:.6f} elapsed:{seconds:.1f}s",
        "sliding": f"final_{kind}_sliding_window_exact val_loss:{score.loss:.8f} val_bpb:{score.bpb:.8f}",
        "ttt": f"legal_ttt_exact val_loss:{score.loss:.8f} val_bpb:{score.bpb:.8f}",
    }
    work.log.line(lines[mode])
    work.log.line(f"scored_tokens:{score.tokens} scored_bytes:{score.bytes}")
    work.log.event(
        "score",
        mode=mode,
        weights=kind,
        loss=score.loss,
        bpb=score.bpb,
        scored_tokens=score.tokens,
        scored_bytes=score.bytes,
        repeats=score.repeats,
        seconds=seconds,
    )
