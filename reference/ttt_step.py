"""One optimiser step of test-time training on flat buffers, its forward and backward replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference.config_eval import TTTConfig
from reference.flat import FlatParameters, clip_
from reference.model import GPT
from reference.ranks import Ranks

WARM_UP = 3
"""Runs before a graph is captured, so that everything is compiled and every library has its workspace."""


class TestTimeStep:
    """Forward, backward, one reduction over ranks, clip, update; nothing waits for the device.

    Forward and backward are captured as a CUDA graph for each shape of batch. The reduction stays outside: a rank that
    captures, or that has no rows, takes part in exactly as many reductions as the others. The update is a dozen kernels
    on one or two buffers, with the learning rate in a tensor.
    """

    __test__ = False

    def __init__(
        self,
        model: GPT,
        parameters: list[nn.Parameter],
        config: TTTConfig,
        ranks: Ranks,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        graphs: bool = False,
    ) -> None:
        self.config, self.ranks, self.graphs = config, ranks, graphs and ranks.device.type == "cuda"
        self.flat = FlatParameters(parameters)
        self.loss: Callable[[Tensor, Tensor], Tensor] = model if loss is None else loss
        self.lr = torch.zeros((), device=ranks.device)
        self.first = [torch.zeros_like(b) for b in self.flat.buffers]
        self.second = [torch.zeros_like(b) for b in self.flat.buffers] if config.optimizer == "adamw" else []
        self.count = torch.zeros((), device=ranks.device)
        self._captured: dict[tuple[float, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, inputs_BT: Tensor, targets_BT: Tensor, weight: float) -> None:
        """Steps on this rank's rows; `weight` is the share of its mean loss in the loss of the step."""
        if not inputs_BT.size(0):
            self.flat.gradients.zero_()  # a rank without rows still takes part in the reduction
        elif self.graphs:
            self._replay(inputs_BT, targets_BT, weight)
        else:
            self._differentiate(inputs_BT, targets_BT, weight)
        gradients = self.flat.gradients
        if self.config.grad_sync != "none":
            gradients.sum_(self.ranks)
        clip_(gradients.buffers, self.config.grad_clip)
        with torch.no_grad():
            self.count += 1
            for slot, (weights, gradient) in enumerate(self.flat.pairs()):
                self._update(slot, weights, gradient)

    def _differentiate(self, inputs_BT: Tensor, targets_BT: Tensor, weight: float) -> None:
        """Gradients of this rank's part of the loss."""
        self.flat.gradients.zero_()
        (self.loss(inputs_BT, targets_BT) * weight).backward()

    def _update(self, slot: int, weights: Tensor, gradient: Tensor) -> None:
        config, first = self.config, self.first[slot]
        if config.optimizer == "sgd":
            if config.weight_decay:
                gradient = gradient + config.weight_decay * weights
            first.mul_(config.momentum).add_(gradient)
            self._subtract(weights, first, self.lr)
            return
        beta1, beta2 = config.betas
        weights.mul_((1 - self.lr * config.weight_decay).to(weights.dtype))
        first.lerp_(gradient, 1 - beta1)
        self.second[slot].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        corrected = (self.second[slot] / (1 - beta2**self.count)).sqrt().add_(1e-8)
        self._subtract(weights, first / corrected, self.lr / (1 - beta1**self.count))

    @staticmethod
    def _subtract(weights: Tensor, direction: Tensor, rate: Tensor) -> None:
        """`weights -= rate * direction`, rounded once: a rate in bf16 would be off by up to 0.4 %."""
        if weights.dtype == torch.float32:
            weights.addcmul_(direction, rate, value=-1)
        else:
            weights.copy_(torch.addcmul(weights.float(), direction.float(), rate, value=-1))

    def _replay(self, inputs_BT: Tensor, targets_BT: Tensor, weight: float) -> None:
        key = (*inputs_BT.shape, weight)
        if key not in self._captured:
            self._captured[key] = self._capture(inputs_BT, targets_BT, weight)
        graph, inputs, targets = self._captured[key]
        inputs.copy_(inputs_BT)
        targets.copy_(targets_BT)
        graph.replay()

    def _capture(
        self, inputs_BT: Tensor, targets_BT: Tensor, weight: float
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Graph of `_differentiate` and the buffers it reads; only gradients change here, and they are zeroed first."""
        inputs, targets = inputs_BT.clone(), targets_BT.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._differentiate(inputs, targets, weight)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Calls of other threads (NCCL's watchdog asks events for their state) must not break the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._differentiate(inputs, targets, weight)
        return graph, inputs, targets

    def _state_tensors(self) -> list[Tensor]:
        return [*self.flat.buffers, *self.first, *self.second, self.count]

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser state by number."""
        return {f"step.{i}": tensor for i, tensor in enumerate(self._state_tensors())}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for i, tensor in enumerate(self._state_tensors()):
            tensor.copy_(tensors[f"step.{i}"])
