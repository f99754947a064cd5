"""Does a row of logits depend on input tokens after it? Asked of the gradients of the first forward passes.

A second run on another future sees what later tokens do to earlier losses, but the target of a row is itself the next
input: a model that sees one token ahead moves no loss but its own. The gradient of a row of logits with respect to the
embedded inputs shows it at once: it is zero behind the row in a causal model, exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_PASSES = 3
_COLUMNS = (0.25, 0.5, 0.75)
_FAINT = 1e-6


class LookAhead:
    """Keeps the embedded inputs of the running forward pass and looks at the gradients of some rows of its logits.

    `scoring`: at passes that the program makes without gradients, as those that are scored, instead of those of training. They
    get gradients from their embedded inputs on, until their losses are there; what the program does with numbers that
    have gradients may end it then, so that is for a run of its own.
    """

    def __init__(self, scoring: bool = False, ours: Callable[[int], bool] = lambda depth: False) -> None:
        """`ours`: whether the function so many calls above is the program's (see `places.Sites.ours`)."""
        self.left = _PASSES
        self.inputs: list[torch.Tensor] = []
        self.scoring, self.opened, self.ours = scoring, False, ours

    def begin(self) -> None:
        """A new forward pass."""
        self.inputs = []

    def embedded(self, result: torch.Tensor) -> None:
        """Embedded tokens, shape (rows, columns, width)."""
        if not self.left or result.dim() != 3 or result.shape[1] < 8 or len(self.inputs) >= 4:
            return
        if self.scoring and not result.requires_grad:
            result.requires_grad_()
            self._open()
        if result.requires_grad and self.opened is self.scoring:
            self.inputs.append(result)

    def asked(self, logits: torch.Tensor) -> dict[str, int] | None:
        """Rows looked at and how many of them depend on later inputs; None when this pass cannot tell.

        Args:
            logits: shape (rows * columns, vocabulary), in the order of the inputs.
        """
        try:
            return self._asked(logits)
        finally:
            self.inputs = []
            self._close()

    def _open(self) -> None:
        # A program that asks goes on as it would without gradients; torch itself has to know (a context restores what was).
        torch.set_grad_enabled(True)
        torch.is_grad_enabled, self.opened = (lambda: torch._C.is_grad_enabled() and not self.ours(1)), True

    def _close(self) -> None:
        if self.opened:
            torch.set_grad_enabled(False)
            torch.is_grad_enabled, self.opened = torch._C.is_grad_enabled, False

    def _asked(self, logits: torch.Tensor) -> dict[str, int] | None:
        inputs = [t for t in self.inputs if t.shape[0] * t.shape[1] == logits.shape[0]]
        if not self.left or logits.dim() != 2 or not logits.requires_grad or not inputs:
            return None
        self.left -= 1
        columns = inputs[0].shape[1]
        # Neighbouring columns, so that nothing that pairs tokens up can hide between them.
        chosen = sorted({int(columns * share) + odd for share in _COLUMNS for odd in (0, 1)})
        found = [self._later(logits[column], inputs, column) for column in chosen if column < columns - 1]
        known = [ahead for ahead in found if ahead is not None]
        return {"rows": len(known), "ahead": sum(known)} if known else None

    def _later(self, row: torch.Tensor, inputs: list[torch.Tensor], column: int) -> bool | None:
        """Whether a row of logits (of the first row of inputs) depends on inputs behind it."""
        with torch.enable_grad():
            value = row.float().square().sum()
            gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        largest = later = 0.0
        for gradient in gradients:
            if gradient is None or gradient.shape[1] <= column + 1:
                continue
            largest = max(largest, float(gradient[0].abs().max()))
            later = max(later, float(gradient[0, column + 1 :].abs().max()))
        return later > _FAINT * largest if largest > 0 else None
