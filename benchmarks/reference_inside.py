"""Inside the sandbox: stops a submission's script at its first evaluation and times its loops and the reference's.

The script's `main` builds the model, the look-up tables and the validation tokens. At the first call of one of its
evaluation functions, arguments for all of them are found by the names of their parameters: among the caller's local
variables, the arguments of that call, and the values handed in. Every weight gets some noise, so that no branch is
dead, the reference takes the same weights, and then both are timed in turn, each time from these weights.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

LOOPS = {"standard": "eval_val", "sliding": "eval_val_sliding", "ttt": "eval_val_sliding_ttt"}
"""Functions of the scripts by mode; the names of the challenge's baseline and of the stacks built on it."""

#: Tensor names of these stacks -> names in the reference. First match wins.
NAMES: tuple[tuple[str, str], ...] = (
    (r"^tok_emb\.weight$", "tok_embed"),
    (r"^lm_head\.weight$", "head"),
    (r"^bigram(?:_emb)?\.embed\.weight$", "bigram.table"),
    (r"^bigram(?:_emb)?\.(proj\.weight|scale)$", r"bigram.\1"),
    (r"^smear(?:_gate)?\.gate$", "smear.gate"),
    (r"^ve_shared\.embed\.weight$", "value_embed.table"),
    (r"^ve_shared\.(proj\.weight|scale)$", r"value_embed.\1"),
    (r"^ve_layer_scales\.(\d+)$", r"value_embed.layer_scales.\1"),
    (r"^(skip_weights|skip_gates)$", r"\1"),
    (r"^(blocks\.\d+\.attn)\.c_([qkv])\.weight$", r"\1.\2.weight"),
    (r"^(blocks\.\d+\.attn)\.proj\.weight$", r"\1.o.weight"),
    (r"^(blocks\.\d+\.attn)\.q_gain$", r"\1.gain"),
    (r"^(blocks\.\d+\.mlp)\.(?:up_proj|fc)\.weight$", r"\1.up.weight"),
    (r"^(blocks\.\d+\.mlp)\.gate_proj\.weight$", r"\1.gate.weight"),
    (r"^(blocks\.\d+\.mlp)\.(?:down_proj|proj)\.weight$", r"\1.down.weight"),
    (r"^(blocks\.\d+\.mlp)\.(scale|bias)$", r"\1.hidden_\2"),
    (r"^(blocks\.\d+\.(?:attn_scale|mlp_scale|resid_mix))$", r"\1"),
)
NOISE = 0.02


class DoesNotFit(RuntimeError):
    """The script cannot be timed; the message says what is missing."""


def main() -> None:
    """Runs what the variable REFERENCE_THROUGHPUT describes; ends the process."""
    request = json.loads(os.environ.pop("REFERENCE_THROUGHPUT"))
    code = 0
    try:
        if request["standin"]:
            from auditor.dynamic.inside import standin

            standin.install()
        torch.set_num_threads(request["threads"] or torch.get_num_threads())
        _run(request)
        report: dict[str, Any] = {"problem": "its main function ended without an evaluation"}
    except Measured as done:
        report = done.report
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        report, code = {"problem": f"{type(error).__name__}: {str(error)[:400]}"}, 1
    Path(request["report"]).write_text(json.dumps(report), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Measured(BaseException):
    """Carries the report through the script's own handlers."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__()
        self.report = report


def _run(request: dict[str, Any]) -> None:
    script = request["script"]
    sys.argv, sys.path[0] = [script], str(Path(script).parent)
    module = types.ModuleType("submission")
    module.__file__ = script
    sys.modules["submission"] = module
    exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)
    loops = {**LOOPS, **request["loops"]}
    for mode, name in loops.items():
        function = module.__dict__.get(name)
        if not inspect.isfunction(function):
            raise DoesNotFit(f"it has no function {name} for mode {mode}; name another with --loop {mode}=NAME")
    real = {mode: module.__dict__[name] for mode, name in loops.items()}
    for mode, name in loops.items():
        module.__dict__[name] = _stop(real, mode, module, request)
    if not inspect.isfunction(module.__dict__.get("main")):
        raise DoesNotFit("it has no function main")
    module.main()


def _stop(real: dict[str, Callable], mode: str, module: types.ModuleType, request: dict[str, Any]) -> Callable:
    def stopped(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1)
        bound = inspect.signature(real[mode]).bind(*args, **kwargs).arguments
        pool = {**caller.f_globals, **caller.f_locals, **bound, **request["values"]}
        for path, value in request["attributes"].items():
            owner, _, attribute = path.rpartition(".")
            setattr(module.__dict__[owner], attribute, json.loads(value))
        raise Measured(compare(real, pool, request))

    return stopped


def arguments_of(function: Callable, pool: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a function by the names of its parameters; those with a default may be missing.

    Raises:
        DoesNotFit: a parameter without default has no value.
    """
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in pool:
            found[name] = pool[name]
        elif parameter.default is inspect.Parameter.empty:
            raise DoesNotFit(f"no value for parameter {name} of {function.__name__}")
    return found


def compare(real: dict[str, Callable], pool: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Times every mode on both sides."""
    from reference.config import load
    from reference.model import GPT

    calls = {mode: arguments_of(function, pool) for mode, function in real.items()}
    theirs = next(v for v in calls["ttt"].values() if isinstance(v, nn.Module))
    config = load(request["config"], request["overrides"])
    ours = GPT(config).to(next(theirs.parameters()).device)
    add_noise(theirs)
    start = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    mapped = mapped_weights(start, dict(ours.named_parameters()))
    sides = _Sides(real, calls, theirs, ours, start, mapped, config, request)
    rows = {mode: sides.measure(mode) for mode in request["modes"]}
    return {"rows": rows, "device": _device_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def add_noise(model: nn.Module) -> None:
    """Moves every parameter a little, so that tensors that begin as zeros take part."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(NOISE * torch.randn(p.shape, generator=generator).to(p.device, p.dtype))


def mapped_weights(theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the reference's names.

    Raises:
        DoesNotFit: a tensor has no counterpart, or one of another shape.
    """
    mapped = {}
    for name, tensor in theirs.items():
        target = next((re.sub(p, to, name) for p, to in NAMES if re.match(p, name)), None)
        if target not in ours or ours[target].numel() != tensor.numel():
            raise DoesNotFit(f"its tensor {name} {list(tensor.shape)} has no counterpart in the reference's model")
        mapped[target] = tensor.reshape(ours[target].shape)
    missing = sorted(set(ours) - set(mapped))
    if missing:
        raise DoesNotFit(f"its model has no tensor for {missing[0]}")
    return mapped


def _device_name() -> str:
    return "stand-in" if not torch.cuda.is_initialized() or torch.version.cuda is None else torch.cuda.get_device_name()


class _Sides:
    """Both implementations on one set of weights."""

    def __init__(
        self,
        real: dict[str, Callable],
        calls: dict[str, dict[str, Any]],
        theirs: nn.Module,
        ours: Any,
        start: dict[str, torch.Tensor],
        mapped: dict[str, torch.Tensor],
        config: Any,
        request: dict[str, Any],
    ) -> None:
        from reference.ranks import Ranks
        from reference.tokenizer import SentencePieceTokenizer
        from reference.validation import ValidationStream

        self.real, self.calls, self.theirs, self.ours = real, calls, theirs, ours
        self.start, self.mapped, self.config, self.request = start, mapped, config, request
        tables = SentencePieceTokenizer(Path(request["tokenizer"])).tables
        length = max(config.data.seq_len, config.eval.seq_len)
        self.stream = ValidationStream.open(Path(request["shards"]), "fineweb_val_*.bin", tables, length)
        self.ranks = Ranks(0, 1, next(ours.parameters()).device)
        self.gpu = not request["standin"]

    def measure(self, mode: str) -> dict[str, Any]:
        """Seconds of each repetition, in turn, and what both computed."""
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        bpb: dict[str, float] = {}
        tokens = 0
        # On a GPU the first repetition compiles and captures; it is not reported.
        for number in range(self.request["repeat"] + self.gpu):
            for side in ("theirs", "ours"):
                taken, (value, tokens) = self._timed(lambda side=side: getattr(self, "_" + side)(mode))
                bpb[side] = value
                if number >= self.gpu:
                    seconds[side].append(taken)
        return {"seconds": seconds, "bpb": bpb, "tokens": tokens}

    def _timed(self, action: Callable[[], Any]) -> tuple[float, Any]:
        clock = time.perf_counter if self.gpu else time.process_time
        self._restore()
        if self.gpu:
            torch.cuda.synchronize()
        began = clock()
        result = action()
        if self.gpu:
            torch.cuda.synchronize()
        return clock() - began, result

    def _restore(self) -> None:
        with torch.no_grad():
            for name, p in self.theirs.named_parameters():
                p.copy_(self.start[name])
                p.grad = None
            for name, p in self.ours.named_parameters():
                p.copy_(self.mapped[name])

    def _theirs(self, mode: str) -> tuple[float, int]:
        loss_and_bpb = self.real[mode](**self.calls[mode])
        return float(loss_and_bpb[1]), 0

    def _ours(self, mode: str) -> tuple[float, int]:
        from reference.evaluate import Evaluation, sliding, standard
        from reference.ttt import score_first

        run = {"standard": standard, "sliding": sliding, "ttt": score_first}[mode]
        with kernels():
            score = run(Evaluation(self.config, self.ours, self.stream, self.ranks))
        return score.bpb, score.tokens


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """All attention kernels of torch; scripts switch some off."""
    flags = ("flash", "mem_efficient", "math", "cudnn")
    before = {flag: getattr(torch.backends.cuda, f"{flag}_sdp_enabled")() for flag in flags}
    for flag in flags:
        getattr(torch.backends.cuda, f"enable_{flag}_sdp")(True)
    try:
        yield
    finally:
        for flag, value in before.items():
            getattr(torch.backends.cuda, f"enable_{flag}_sdp")(value)
