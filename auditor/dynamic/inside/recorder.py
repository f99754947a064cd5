"""Writes down what the submission does with tokens: scores, sums, gradients, updates, forward passes, files, prints.

The recorder sees every torch function through the stand-in's mode. Which positions a tensor of targets holds follows
from the watermark (two neighbouring ids tell split and position), so no co-operation of the code is needed.

Events are plain dictionaries, numbered in the order in which they happened; arrays are packed by the channel.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from auditor.dynamic.inside import arrays, clock, numbers
from auditor.dynamic.inside.lookahead import LookAhead
from auditor.dynamic.inside.places import UNKNOWN, Context, Places, Sites
from auditor.dynamic.inside.tables import TokenTraces
from auditor.dynamic.inside.traces import Traces

BLIND_LIMIT = 20
TABLE_LIMIT = 5000  # writes to tables of counts that are told
__all__ = ["Places", "Recorder"]


class Recorder:
    """Observes one process. `emit` receives every event."""

    def __init__(self, places: Places, vocab_size: int, emit: Callable[[dict], None]) -> None:
        self.places = places
        self.vocab_size = vocab_size
        self.emit = emit
        self.context = Context(places)
        # A run in which the model is made sure of what it says, see `auditor.dynamic.experiment`.
        self.sharp = bool(os.environ.pop("AUDITOR_SHARP", ""))
        self.sites = Sites()
        self.traces = Traces(self._counted)
        self.tokens = TokenTraces(places.whole, self.tabled)
        self.tables = 0
        self.count = 0
        self.start = time.perf_counter()
        self.pending: list[tuple[int, np.ndarray]] = []
        self.stepped = False
        self.busy = False
        self.hooks = 0
        self.rows = 0
        self.single: tuple[int, list[tuple[int, float, str]]] | None = None
        self.taken: int | None = None  # loss that was taken out of torch last
        self.blind = 0
        self.probabilities: dict[int, weakref.ref] = {}  # tensors compare elementwise, so no WeakSet
        self.state = State()
        self.ahead = LookAhead(bool(os.environ.pop("AUDITOR_AHEAD", "")), self.sites.ours)
        self.losses = Held()

    # -- hooks -----------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Attach to optimizers, modules and backward passes."""
        numbers.install()
        arrays.install(lambda: not self.busy and self.sites.ours(2), self.tabled)
        clock.install(lambda: not self.busy and self.sites.ours(2), lambda limit: self.event("clock", limit=limit))
        register_optimizer_step_post_hook(lambda *args: self._step(args[0]))
        self.state.install()
        self._watch_forward_hooks()
        for name in ("backward", "grad"):
            setattr(torch.autograd, name, self._noting(getattr(torch.autograd, name)))

    def _noting(self, real: Callable) -> Callable:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if self.stepped:
                self.pending, self.stepped = [], False
            return real(*args, **kwargs)

        return noted

    def _watch_forward_hooks(self) -> None:
        """Counts forward hooks of the submission: activations are being collected while there are any."""
        recorder = self
        for name in ("register_forward_hook", "register_forward_pre_hook"):
            real = getattr(torch.nn.Module, name)

            def register(module: torch.nn.Module, *args: Any, real: Callable = real, **kwargs: Any) -> Any:
                handle = real(module, *args, **kwargs)
                recorder.hooks += 1
                remove = handle.remove

                def removed() -> None:
                    recorder.hooks -= 1
                    remove()

                handle.remove = removed
                return handle

            setattr(torch.nn.Module, name, register)

    def observe(self, func: Callable, args: tuple, kwargs: dict, result: Any) -> Any:
        """Called after every torch function with what went in and what came out; returns what the caller gets."""
        if self.busy:
            return result
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        self.busy = True
        try:
            self.traces.follow(name, func, args, kwargs, result)
            self.state.note(name, args)
            handler = _HANDLERS.get(name)
            if handler is not None:
                handler(self, args, kwargs, result)
            self.tokens.follow(name, func, args, kwargs, result)
        except Exception as error:  # a gap in the record is told, it must not change what the program does
            self._blind(f"{name}: {type(error).__name__}: {error}"[:200])
        finally:
            self.busy = False
        for follower in (self.tokens, self.traces):
            if follower.replacement is not None:
                result, follower.replacement = follower.replacement, None
        return result

    def _blind(self, reason: str) -> None:
        self.blind += 1
        if self.blind <= BLIND_LIMIT:
            self.event("blind", reason=reason)

    def event(self, kind: str, **fields: Any) -> int:
        """Emit an event and return its number. `at` is the site where it is not the running line."""
        self._flush_single()
        site = fields.pop("at", None)
        site = self.sites.here() if site is None else site
        for number, frames in self.sites.new:
            self.emit({"kind": "site", "site": number, "frames": frames})
        self.sites.new.clear()
        self.count += 1
        self.emit({"n": self.count, "kind": kind, "t": time.perf_counter() - self.start, "site": site, **fields})
        return self.count

    def tabled(self, places: np.ndarray) -> None:
        """A table of counts was written at keys of tokens at these places."""
        known = np.unique(places[places != UNKNOWN])
        if len(known) and self.tables < TABLE_LIMIT:
            self.tables += 1
            self.event("table", places=known.astype(np.int32), entries=int(places.size))

    # -- scores ----------------------------------------------------------------------------------------------------

    def cross_entropy(self, args: tuple, kwargs: dict, result: Any) -> None:
        logits, target = args[0] if args else kwargs["input"], kwargs.get("target", args[1] if len(args) > 1 else None)
        if target is None or target.is_floating_point() or logits.shape[-1 if logits.dim() < 3 else 1] < 2:
            return
        reduction = kwargs.get("reduction", "mean")
        flat = target.reshape(-1)
        self._looked_ahead(logits)
        if reduction == "none":
            losses = result.detach().reshape(-1)
        else:
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(
                    logits.detach(), target, reduction="none", ignore_index=kwargs.get("ignore_index", -100)
                ).reshape(-1)
        self._scored(flat, losses, result, reduction)

    def _looked_ahead(self, logits: torch.Tensor) -> None:
        found = self.ahead.asked(logits)
        if found is not None:
            self.event("lookahead", **found)

    def nll_loss(self, args: tuple, kwargs: dict, result: Any) -> None:
        logp, target = args[0], args[1] if len(args) > 1 else kwargs["target"]
        if logp.dim() == 2:
            self._looked_ahead(logp)
            losses = -logp.detach().gather(1, target.clamp_min(0).reshape(-1, 1)).reshape(-1)
            self._scored(target.reshape(-1), losses, result, kwargs.get("reduction", "mean"))

    def gather(self, args: tuple, kwargs: dict, result: Any) -> None:
        """log_softmax or softmax gathered at the targets, or logits of which a logsumexp is subtracted later."""
        source = args[0]
        index = kwargs.get("index", args[2] if len(args) > 2 else None)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        if not isinstance(index, torch.Tensor) or not isinstance(dim, int):
            return
        if not source.is_floating_point() or index.dim() < 1 or not self._is_vocabulary(source.shape[dim]):
            return
        if index.shape[dim] != 1:
            return
        known = self.probabilities.get(id(source))
        if known is not None and known() is source:
            losses = -result.detach().float().clamp_min(1e-45).log()
        else:
            losses = torch.logsumexp(source.detach().float(), dim, keepdim=True) - result.detach().float()
        self._scored(index.reshape(-1), losses.reshape(-1), result, "none")

    def pick(self, args: tuple, kwargs: dict, result: Any) -> None:
        """`log_probabilities[rows, targets]`: indexing by two integer tensors."""
        source, index = args[0], args[1]
        if not isinstance(index, tuple) or not isinstance(result, torch.Tensor) or not source.is_floating_point():
            return
        last = index[-1]
        if (
            not source.dim()
            or not self._is_vocabulary(source.shape[-1])
            or len(index) != source.dim()
            or not isinstance(last, torch.Tensor)
        ):
            return
        if last.dtype != torch.int64 or last.numel() != result.numel() or last.numel() < 2:
            return
        everywhere = torch.logsumexp(source.detach().float(), -1)
        rows = everywhere[index[:-1]] if len(index) > 1 else everywhere
        known = self.probabilities.get(id(source))
        soft = known is not None and known() is source
        value = result.detach().float()
        losses = -value.clamp_min(1e-45).log() if soft else rows.expand_as(value) - value
        self._scored(last.reshape(-1), losses.reshape(-1), result, "none")

    def _is_vocabulary(self, size: int) -> bool:
        """Whether a dimension holds one entry for every token; heads are often padded to a round number."""
        return self.vocab_size <= size < self.vocab_size + 256

    def softmax(self, args: tuple, kwargs: dict, result: Any) -> None:
        if isinstance(result, torch.Tensor) and result.dim() and self._is_vocabulary(result.shape[-1]):
            self.probabilities[id(result)] = weakref.ref(result)

    def _scored(self, target: torch.Tensor, losses: torch.Tensor, result: torch.Tensor, reduction: str) -> None:
        ids = target.detach().cpu().numpy()
        places = self.places.of(ids)
        if not (places != UNKNOWN).any() and not torch.is_grad_enabled():
            places = self.context.of(ids)
        if not (places != UNKNOWN).any():
            return
        self._written()
        base = self.traces.begin(result, len(places), places)
        flat = losses.detach().float().cpu().numpy()
        self.losses.add(base, flat)
        number = self.event(
            "score",
            places=places.astype(np.int32),
            losses=flat,
            grad=bool(result.requires_grad),
            reduction=reduction,
            base=base,
            uses=self.state.used(),
        )
        if result.requires_grad:
            self._hook(result, places, number)

    def _hook(self, result: torch.Tensor, places: np.ndarray, number: int) -> None:
        """Remembers which of these losses take part in a backward pass (those with a gradient other than zero)."""
        per_token = result.numel() == len(places)

        def used(gradient: torch.Tensor) -> None:
            seen = gradient.detach().reshape(-1).cpu().numpy() != 0 if per_token else np.ones(len(places), bool)
            if seen.any():
                self.pending.append((number, places[seen]))

        result.register_hook(used)

    def _counted(self, ids: np.ndarray, value: float, how: str, terms: np.ndarray | None = None) -> None:
        """A sum of losses; losses read one by one at the same line become one event.

        What was added up is told where the program had changed the losses before.
        """
        if how not in ("item", "term"):
            told = {"terms": terms.astype(np.float32)} if self._changed(ids, terms) else {}
            self.event("sum", ids=ids.astype(np.int64), value=value, how=how, **told)
            return
        site = self.sites.here()
        if self.single and self.single[0] != site:
            self._flush_single()
        self.single = self.single or (site, [])
        if how == "term" and self.taken == ids[0] and self.single[1]:
            self.single[1].pop()  # taken out and added up in one line: counted once, as what was added
        self.taken = int(ids[0]) if how == "item" else None
        self.single[1].append((int(ids[0]), value, how))

    def _flush_single(self) -> None:
        if self.single:
            (site, pairs), self.single, self.taken = self.single, None, None
            ids, terms = np.array([item[0] for item in pairs], dtype=np.int64), np.array([item[1] for item in pairs])
            told = {"terms": terms.astype(np.float32)} if self._changed(ids, terms) else {}
            taken = all(item[2] == "item" for item in pairs)
            self.event("sum", at=site, ids=ids, value=float(terms.sum()), how="item", taken=taken, **told)

    def _changed(self, ids: np.ndarray, terms: np.ndarray | None) -> bool:
        """Whether the numbers that were added up are other ones than the losses."""
        return terms is not None and not np.allclose(np.abs(terms), self.losses.of(ids), rtol=1e-4, atol=1e-5)

    # -- state -----------------------------------------------------------------------------------------------------

    def embedding(self, args: tuple, kwargs: dict, result: Any) -> None:
        """A forward pass begins: which tokens go in, and whether activations are being collected."""
        ids = kwargs.get("input", args[0] if args else None)
        table = kwargs.get("weight", args[1] if len(args) > 1 else None)
        if not isinstance(ids, torch.Tensor) or table is None or table.shape[0] < self.vocab_size:
            return
        if not torch.is_grad_enabled():
            if self.sharp:
                sharpen(self.state.modules, self._is_vocabulary)
            self.context.embedded(ids.detach().cpu().numpy(), id(table))
        if ids.numel() < 2:
            return
        if self.state.begin(table):
            self.ahead.begin()
        self.ahead.embedded(result)
        if torch.is_grad_enabled() and not self.hooks and result.requires_grad:
            return  # training: the losses say more
        self._forward(ids)

    def _forward(self, ids: torch.Tensor) -> None:
        self.rows = ids.numel()
        places = self.places.of(ids.detach().cpu().numpy())
        known = places[places != UNKNOWN]
        self.event("forward", places=known.astype(np.int32), hooks=self.hooks, tokens=self.rows)

    def product(self, args: tuple, kwargs: dict, result: Any) -> None:
        """X^T X over the tokens of the last forward pass: second moments of activations are being collected."""
        if len(args) < 2 or torch.is_grad_enabled() or not self.rows:
            return
        a, b = args[-2], args[-1]
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.dim() != 2 or b.dim() != 2:
            return
        if a.data_ptr() == b.data_ptr() and a.shape[1] == b.shape[0] == self.rows and a.shape[0] == b.shape[1]:
            self.rows = 0
            self.event("moments")

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        self.stepped = True
        changed = [p for group in optimizer.param_groups for p in group["params"]]
        self.busy = True  # what is done to look at parameters is no work of the submission
        try:
            self._updated(type(optimizer).__name__, changed)
        finally:
            self.busy = False

    def _updated(self, via: str, parameters: list) -> None:
        places = np.concatenate([seen for _, seen in self.pending]) if self.pending else np.empty(0, np.int64)
        self.event(
            "update",
            via=via,
            size=sum(parameter.numel() for parameter in parameters),
            changes=self.state.changed(parameters),
            places=np.unique(places).astype(np.int32),
            of=sorted({number for number, _ in self.pending}),
        )

    def _written(self) -> None:
        """A parameter that changed without an optimizer's step was written by hand (or loaded)."""
        written = self.state.written()
        if not written:
            return
        if self.pending and not self.stepped:
            self.stepped = True
            self._updated("write", written)
        else:
            self.event("write", parameters=len(written), changes=self.state.numbers(written))


def sharpen(modules: Iterable[torch.nn.Module], vocabulary: Callable[[int], bool]) -> None:
    """Scale the tables that a vocabulary has rows in to a mean square of one, so that logits lie far apart.

    A model trained for a few steps gives every token about the same; what is mixed in by how sure it is then does nothing.
    """
    for module in list(modules):
        for parameter in module.__dict__.get("_parameters", {}).values():
            if parameter is None or parameter.dim() != 2 or not vocabulary(parameter.shape[0]):
                continue
            size = float(parameter.detach().float().square().mean().sqrt())
            if 1e-6 < size < 0.9:
                parameter.data.mul_(1.0 / size)


class Held:
    """Every recorded loss by its id."""

    def __init__(self) -> None:
        self.values = np.zeros(1 << 12, dtype=np.float32)

    def add(self, base: int, losses: np.ndarray) -> None:
        """Losses whose ids begin with `base`."""
        if base + len(losses) > len(self.values):
            grown = np.zeros(max(2 * len(self.values), base + len(losses)), dtype=np.float32)
            grown[: len(self.values)] = self.values
            self.values = grown
        self.values[base : base + len(losses)] = losses

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Losses with these ids."""
        return self.values[ids]


_Parameter = torch.nn.Parameter
_FILLING = frozenset(
    {"normal_", "uniform_", "zero_", "fill_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "orthogonal_",
     "xavier_normal_", "trunc_normal_", "zeros_", "ones_", "constant_", "exponential_", "bernoulli_", "random_"}
)  # fmt: skip


def _is_state(value: Any) -> bool:
    """A parameter, or a tensor that is adapted without being one. (Views may not be asked for being leaves.)

    Asked for every argument of every operation, so the usual types are told apart before anything slow is.
    """
    kind = type(value)
    if kind is _Parameter:
        return True
    if kind is not torch.Tensor and not isinstance(value, torch.Tensor):
        return False
    if value.requires_grad and not value._is_view() and value.is_leaf:
        return True
    return kind is not torch.Tensor and isinstance(value, _Parameter)


class State:
    """The parameters of all modules, each with a number, and a fingerprint to notice who changed.

    Fingerprints are sums and norms in double precision. A value seen before is recognised by its fingerprint, so that
    state that was saved and restored is known to be the old one.
    """

    def __init__(self) -> None:
        self.modules: weakref.WeakSet = weakref.WeakSet()
        self.prints: dict[int, tuple[float, float]] = {}
        self.touched: dict[int, Any] = {}
        self.fresh: set[int] = set()
        self.scored = False

    def install(self) -> None:
        """Learn of every module that is made."""
        state, real = self, torch.nn.Module.__init__

        def init(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            real(module, *args, **kwargs)
            state.modules.add(module)

        torch.nn.Module.__init__ = init

    def note(self, name: str, args: tuple) -> None:
        """Remember the parameters an operation read: they shape the scores that follow."""
        for arg in args:
            if _is_state(arg):
                self.touched[id(arg)] = arg
                if name in _FILLING:
                    self.fresh.add(id(arg))
                elif name in ("data", "set_", "swap") or (name.endswith("_") and arg is args[0]):
                    self.fresh.discard(id(arg))  # written to since, with values that come from somewhere

    def begin(self, table: Any) -> bool:
        """Tokens are embedded. The first time after a score a forward pass begins (True); later tables belong to it."""
        if self.scored:
            self.scored = False
            self.touched = {id(table): table}
            return True
        return False

    def used(self) -> list[list]:
        """Parameters read since the forward pass of this score began, as [number, sum, norm]."""
        self.scored = True
        live = [p for p in self.touched.values() if p.numel()]
        return [[id(p), *self.prints.get(id(p), (0.0, 0.0))] for p in live]  # a fingerprint of zero: not looked at

    def changed(self, parameters: list) -> list[list]:
        """New fingerprints of parameters an optimizer has just changed ."""
        prints = _prints(parameters)
        self.prints.update(prints)
        return [[key, *value] for key, value in prints.items()]

    def numbers(self, parameters: list) -> list[list]:
        """Parameters as [number, sum, norm, filled with constants or fresh random numbers]; forgets the last."""
        found = [[id(p), *self.prints[id(p)], id(p) in self.fresh] for p in parameters]
        self.fresh.clear()
        return found

    def written(self) -> list:
        """Parameters that changed since they were looked at last."""
        parameters = [
            p
            for module in list(self.modules)
            for p in module.__dict__.get("_parameters", {}).values()
            if p is not None and p.numel()
        ]
        new = _prints(parameters)
        changed = [p for p in parameters if self.prints.get(id(p)) != new[id(p)]]
        self.prints = new
        return changed


def _prints(parameters: list) -> dict[int, tuple[float, float]]:
    if not parameters:
        return {}
    with torch.no_grad():
        floats = [p.detach().float() for p in parameters]
        norms = torch.stack([n.double() for n in torch._foreach_norm(floats)]).tolist()
        sums = torch.stack([f.sum(dtype=torch.float64) for f in floats]).tolist()
    return {id(p): (round(s, 6), n) for p, s, n in zip(parameters, sums, norms, strict=True)}


_HANDLERS: dict[str, Callable[[Recorder, tuple, dict, Any], None]] = {
    "cross_entropy": Recorder.cross_entropy,
    "nll_loss": Recorder.nll_loss,
    "gather": Recorder.gather,
    "take_along_dim": Recorder.gather,
    "__getitem__": Recorder.pick,
    "softmax": Recorder.softmax,
    "embedding": Recorder.embedding,
    "matmul": Recorder.product,
    "__matmul__": Recorder.product,
    "mm": Recorder.product,
    "addmm_": Recorder.product,
    "addmm": Recorder.product,
}
