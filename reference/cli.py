"""`python -m reference train|quantize|evaluate|smoke|check|data`, alone or under torchrun."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reference.errors import ArtifactError, DataError, UserError


class _Group(click.Group):
    """Shows errors that a user can act on as one message and exits with code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.UsageError(f"{error.filename or 'file system'}: {error.strerror or error}") from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; it is not imported for every command
                raise
            hint = "lower data.batch_tokens or eval.batch_tokens, or set run.loss_chunk=16384 (cross entropy in parts)"
            raise click.UsageError(f"the GPU ran out of memory: {hint}") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Reference trainer, quantiser and score-first TTT evaluator for Parameter Golf."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that builds a model."""
    for option in reversed(
        (
            click.option("--config", "config_name", default="pr612", help="Name in reference/configs, or a TOML file."),
            click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Changes one key; repeatable."),
            click.option(
                "--data-dir", type=click.Path(path_type=Path), default=Path("data"), help="Folder with shards."
            ),
            click.option("--out", type=click.Path(path_type=Path), default=Path("out"), help="Results and logs."),
            click.option("--device", type=click.Choice(["", "cpu", "cuda"]), default="", help="Empty: a GPU if any."),
            click.option("--run-id", default="", help="Name of the log; time of day by default."),
        )
    ):
        command = option(command)
    return command


def _workspace(options: dict[str, Any], name: str, *, new_log: bool = True) -> Any:
    """Joins the ranks, loads the configuration, opens the log."""
    import torch

    from reference import config, pipeline, ranks
    from reference.runlog import RunLog

    loaded = config.load(options["config_name"], options["overrides"])
    joined = ranks.start(options["device"])
    if joined.device.type == "cpu":
        loaded.run.precision, loaded.run.compile = "fp32", False
    if loaded.run.threads:
        torch.set_num_threads(loaded.run.threads)
    if loaded.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to run without
        torch.use_deterministic_algorithms(True)
    run_id = options["run_id"] or f"{name}_{time.strftime('%Y%m%d_%H%M%S')}"
    log = RunLog(options["out"] / "logs" if joined.first else None, run_id, header=new_log)
    return pipeline.Workspace(loaded, options["data_dir"], options["out"], joined, log)


def _present(path: Path, option: str) -> Path:
    """The path, when there is a file."""
    if not path.is_file():
        raise ArtifactError(f"{path} is not there: train first with the same --out, or name a file with {option}")
    return path


def _leave(code: int = 0) -> None:
    from reference import ranks

    ranks.leave(code)
    if code:
        raise SystemExit(code)


@main.command()
@_options
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in --out.")
def train(resume: bool, **options: Any) -> None:
    """Trains, quantises, writes weights and artifact."""
    from reference import pipeline

    pipeline.train(_workspace(options, "train"), resume=resume)
    _leave()


@main.command()
@_options
@click.option("--weights", type=click.Path(path_type=Path), default=None, help="Float weights; default: in --out.")
def quantize(weights: Path | None, **options: Any) -> None:
    """Quantises float weights again with other settings (calibrates on training data when GPTQ is on)."""
    from reference import pipeline
    from reference.quantize.calibrate import collect_hessians

    work = _workspace(options, "quantize")
    path = _present(weights or work.out / pipeline.WEIGHTS_FILE, "--weights")
    model = pipeline.load_model(work, path)
    needs = any(rule.gptq for rule in work.config.quant.rules)
    hessians = collect_hessians(model, work.train_stream(), work.config, work.ranks) if needs else None
    pipeline.quantize(work, model, hessians)
    _leave()


@main.command()
@_options
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    default=None,
    help="Artifact or float weights; default: the artifact in --out.",
)
@click.option("--mode", type=click.Choice(["standard", "sliding", "ttt", "all"]), default="all")
@click.option("--resume", is_flag=True, help="Save state while evaluating, and continue from it.")
def evaluate(artifact: Path | None, mode: str, resume: bool, **options: Any) -> None:
    """Scores an artifact: standard, sliding windows, score-first test-time training."""
    from reference import pipeline

    work = _workspace(options, "evaluate")
    modes = pipeline.MODES if mode == "all" else (mode,)
    if mode == "all" and not work.config.ttt.enabled:
        modes = ("standard", "sliding")
    path = _present(artifact or work.out / pipeline.ARTIFACT_FILE, "--artifact")
    pipeline.evaluate(work, path, modes, resume=resume)
    _leave()


@main.command()
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(path_type=Path),
    help="UTF-8 text or .jsonl with a text field; default: Python's own help texts.",
)
@click.option("--tokenizer", default="auto", help="auto, sentencepiece or byte260.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder to keep; default: a temporary one.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Changes one key; repeatable.")
def smoke(texts: tuple[Path, ...], tokenizer: str, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Runs the whole chain at a small size on a CPU and checks the results; exit code 1 when a check fails."""
    from reference import ranks
    from reference import smoke as program

    joined = ranks.start("cpu")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(ranks_folder(joined, temporary))
        result = program.run(folder, texts=texts, tokenizer=tokenizer, overrides=overrides, ranks=joined)
    if joined.first:
        for name, value in result.bpb.items():
            click.echo(f"{name:22s} {value:.4f} bpb")
        for name, seconds in result.seconds.items():
            click.echo(f"{name:22s} {seconds:.1f} s")
        for check in result.checks:
            click.echo(f"{'ok  ' if check.holds else 'FAIL'} {check.what}")
        click.echo(f"{'passed' if result.passed else 'FAILED'} in {time.perf_counter() - began:.1f} s")
    _leave(0 if result.passed else 1)


@main.command()
@click.option("--config", "config_name", default="", help="Default: pr612 on a GPU, smoke on a CPU.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Changes one key; repeatable.")
@click.option("--device", type=click.Choice(["", "cpu", "cuda"]), default="", help="Empty: a GPU if any.")
@click.option("--speed", "timed", is_flag=True, help="Then time training and evaluation, once everything agrees.")
@click.option("--batch-tokens", type=int, default=0, help="Tokens of a timed training step; default: as configured.")
def check(config_name: str, overrides: tuple[str, ...], device: str, timed: bool, batch_tokens: int) -> None:
    """Compares what this device computes with plain fp32 arithmetic, then times it; exit code 1 when they differ."""
    import torch

    from reference import check as program
    from reference import config, ranks

    joined = ranks.start(device)
    if joined.device.type == "cpu":
        torch.set_num_threads(1)
    name = config_name or ("smoke" if joined.device.type == "cpu" else "pr612")
    bench = program.prepare(name, overrides, joined)
    holds = True
    for finding in program.run(bench):
        holds &= finding.holds
        if joined.first:
            click.echo(f"{'ok  ' if finding.holds else 'FAIL'} {finding.what}: {finding.detail}".rstrip(": "))
    if holds and timed:
        bench.config.data.batch_tokens = batch_tokens or config.load(name, overrides).data.batch_tokens
        for line in program.speed(bench):
            if joined.first:
                click.echo(line)
    elif timed and joined.first:
        click.echo("not timed: a rate of something wrong is of no use")
    _leave(0 if holds else 1)


def ranks_folder(joined: Any, temporary: str) -> str:
    """Rank 0's temporary folder, the same on all ranks."""
    return str(joined.gather_objects(temporary)[0])


@main.group()
def data() -> None:
    """Makes, inspects and verifies shards."""


@data.command()
@click.option(
    "--text",
    "texts",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="UTF-8 text (cut at blank lines) or .jsonl with a text field; repeatable.",
)
@click.option("--tokenizer", required=True, help="SentencePiece model, or byte260.")
@click.option("--vocab-size", type=int, default=0, help="Refuse a tokenizer of another size; 0 accepts any.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--val-docs", type=int, default=50, help="First documents that become validation.")
@click.option("--shard-tokens", type=int, default=100_000_000)
def make(texts: tuple[Path, ...], tokenizer: str, vocab_size: int, out: Path, val_docs: int, shard_tokens: int) -> None:
    """Writes shards in the official format from text files."""
    from reference.data import documents_of, make_shards
    from reference.tokenizer import BYTE260_SIZE, SentencePieceTokenizer, load_tokenizer

    size = vocab_size
    if not size:
        size = BYTE260_SIZE if tokenizer == "byte260" else SentencePieceTokenizer(Path(tokenizer)).vocab_size
    encoder = load_tokenizer(tokenizer, size)
    documents = [encoder.encode(text) for text in documents_of(texts)]
    counts = make_shards(documents, out, val_documents=val_docs, shard_tokens=shard_tokens)
    click.echo(f"{len(documents)} documents: {counts['val']} validation tokens, {counts['train']} training tokens")


@data.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def inspect(paths: tuple[Path, ...]) -> None:
    """Shows header, tokens and documents of shards (files or folders)."""
    import numpy as np

    from reference.data import BOS, read_shard

    files = [f for p in paths for f in (sorted(p.glob("*.bin")) if p.is_dir() else [p])]
    if not files:
        raise DataError(f"{paths[0]}: no .bin files there")
    for path in files:
        tokens = read_shard(path)
        largest = int(tokens.max()) if tokens.size else 0
        bos = int(np.count_nonzero(tokens == BOS))
        click.echo(
            f"{path.name}: {tokens.size} tokens, {bos} documents, largest id {largest}, "
            f"begins with BOS: {'yes' if tokens.size and int(tokens[0]) == BOS else 'no'}"
        )


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tokenizer", required=True, help="SentencePiece model, or byte260.")
@click.option("--vocab-size", type=int, default=1024)
@click.option("--seq-len", type=int, default=2048, help="Row length the stream is truncated to.")
def verify(folder: Path, tokenizer: str, vocab_size: int, seq_len: int) -> None:
    """Compares the validation shards of a folder with the fingerprints of the official validation sets."""
    from reference.tokenizer import load_tokenizer
    from reference.validation import VALIDATION_DOCUMENTS, ValidationStream, matching_fingerprint

    tables = load_tokenizer(tokenizer, vocab_size, folder=folder).tables
    stream = ValidationStream.open(folder, "fineweb_val_*.bin", tables, seq_len)
    click.echo(f"targets {stream.positions}, bytes {stream.bytes}, documents {stream.documents}")
    known = matching_fingerprint(stream, vocab_size)
    if known is None:
        raise DataError("not an official validation set: no fingerprint has this vocabulary, targets and bytes")
    if stream.documents != VALIDATION_DOCUMENTS:
        raise DataError(f"{stream.documents} documents instead of {VALIDATION_DOCUMENTS}: other --val-docs?")
    click.echo(f"official validation set {known.name} ({known.provenance})")
