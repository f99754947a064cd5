"""Triton under the names it is imported by: kernels are interpreted, program by program, on the CPU.

A kernel is Python, so it runs as it stands; `triton.language` is given by torch. Blocks are tensors, pointers are a
flat view of a tensor with offsets, programs of the grid run one after the other. What the language has and this lacks ends
the run with its name.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

_program: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # (ids, grid) of the running kernels, innermost last


class Scalar(int):
    """A whole number of the device: casts leave it what it is."""

    def to(self, *_: Any) -> Scalar:
        """As Triton's, without a width."""
        return self


class Pointer:
    """Addresses into one tensor: offsets in elements, relative to its first element."""

    def __init__(self, flat: torch.Tensor, offset: Any) -> None:
        self.flat, self.offset = flat, offset

    @classmethod
    def to(cls, tensor: torch.Tensor) -> Pointer:
        """Pointer to the first element."""
        storage = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
        flat = torch.as_strided(tensor.detach(), (storage - tensor.storage_offset(),), (1,), tensor.storage_offset())
        return cls(flat, 0)

    @property
    def dtype(self) -> types.SimpleNamespace:
        """The type of an address: what lies there is `element_ty`."""
        return types.SimpleNamespace(element_ty=self.flat.dtype)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.flat, self.offset + other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Pointer:
        return Pointer(self.flat, self.offset - other)

    def __getitem__(self, index: Any) -> Pointer:
        return Pointer(self.flat, torch.as_tensor(self.offset)[index])


class Descriptor:
    """A tensor that is read and written in blocks; outside of it there are zeros."""

    def __init__(
        self, base: torch.Tensor, shape: Any = None, strides: Any = None, block_shape: Any = None, **_: Any
    ) -> None:
        self.base, self.block_shape = base, list(block_shape or [])

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, block_shape: Any, **_: Any) -> Descriptor:
        """As Triton's."""
        return cls(tensor, block_shape=block_shape)

    def load(self, offsets: Any) -> torch.Tensor:
        """The block that begins at `offsets`."""
        part = self.base.detach()[self._part(offsets)]
        if list(part.shape) == self.block_shape:
            return part.clone()
        block = part.new_zeros(self.block_shape)
        block[tuple(slice(0, size) for size in part.shape)] = part
        return block

    def store(self, offsets: Any, value: torch.Tensor) -> None:
        """Write a block; what lies outside is dropped."""
        part = self.base.detach()[self._part(offsets)]
        part.copy_(value.reshape(self.block_shape)[tuple(slice(0, size) for size in part.shape)])

    def _part(self, offsets: Any) -> tuple[slice, ...]:
        return tuple(slice(int(at), int(at) + size) for at, size in zip(offsets, self.block_shape, strict=True))


class Kernel:
    """A kernel: `kernel[grid](...)` runs its programs in order. `completed` gives arguments that are left to decorators."""

    def __init__(self, function: Callable) -> None:
        self.fn = function
        self.completed: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self.__name__ = getattr(function, "__name__", "kernel")
        self.__doc__ = function.__doc__

    def __getitem__(self, grid: Any) -> Callable:
        def launch(*args: Any, **kwargs: Any) -> None:
            names = self.fn.__code__.co_varnames[: self.fn.__code__.co_argcount + self.fn.__code__.co_kwonlyargcount]
            for complete in reversed(self.completed):  # the outermost decorator first
                kwargs = {**complete({**dict(zip(names, args, strict=False)), **kwargs}), **kwargs}
            kwargs = {name: value for name, value in kwargs.items() if name in names}
            shape = grid({**dict(zip(names, args, strict=False)), **kwargs}) if callable(grid) else grid
            shape = tuple(int(size) for size in (shape if isinstance(shape, tuple | list) else (shape,)))
            with torch._C.DisableTorchFunction(), torch.no_grad():
                args = tuple(_argument(value) for value in args)
                kwargs = {name: _argument(value) for name, value in kwargs.items()}
                for ids in itertools.product(*(range(size) for size in shape)):
                    self._program(ids, shape, args, kwargs)

        return launch

    def _program(self, ids: tuple[int, ...], shape: tuple[int, ...], args: tuple, kwargs: dict) -> None:
        _program.append((ids, shape))
        try:
            self.fn(*args, **kwargs)
        finally:
            _program.pop()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)  # a function of the device called by a kernel


class Config:
    """One way to launch a kernel: its block sizes."""

    def __init__(self, kwargs: dict[str, Any], **_: Any) -> None:
        self.kwargs = kwargs


def _autotune(configs: list[Config], **_: Any) -> Callable[[Kernel], Kernel]:
    """The first configuration is taken; they differ in speed, not in what they compute."""
    return _decorating(lambda arguments: configs[0].kwargs if configs else {})


def _heuristics(values: dict[str, Callable[[dict[str, Any]], Any]]) -> Callable[[Kernel], Kernel]:
    """Arguments that are worked out from the others."""
    return _decorating(lambda arguments: {name: value(arguments) for name, value in values.items()})


def _decorating(complete: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Kernel], Kernel]:
    def decorate(kernel: Kernel) -> Kernel:
        kernel.completed.append(complete)
        return kernel

    return decorate


def _argument(value: Any) -> Any:
    return Pointer.to(value) if isinstance(value, torch.Tensor) else value


# -- the language ------------------------------------------------------------------------------------------------------


def load(pointer: Any, mask: Any = None, other: Any = 0, **_: Any) -> torch.Tensor:
    """Elements at the addresses; `other` where the mask is false."""
    offset = torch.as_tensor(pointer.offset)
    if mask is None:
        return pointer.flat[offset]
    offset, mask = torch.broadcast_tensors(offset, torch.as_tensor(mask))
    value = pointer.flat[torch.where(mask, offset, 0)]
    return torch.where(mask, value, torch.as_tensor(other if other is not None else 0, dtype=value.dtype))


def store(pointer: Any, value: Any, mask: Any = None, **_: Any) -> None:
    """Write elements to the addresses where the mask is true."""
    offset, value = torch.broadcast_tensors(torch.as_tensor(pointer.offset), torch.as_tensor(value))
    if mask is not None:
        offset, value, mask = torch.broadcast_tensors(offset, value, torch.as_tensor(mask))
        offset, value = offset[mask], value[mask]
    pointer.flat[offset] = value.to(pointer.flat.dtype)


def atomic_add(pointer: Any, value: Any, mask: Any = None, **_: Any) -> None:
    """Add to the addresses; programs run one after the other, so nothing is lost."""
    offset, value = torch.broadcast_tensors(torch.as_tensor(pointer.offset), torch.as_tensor(value))
    if mask is not None:
        offset, value, mask = torch.broadcast_tensors(offset, value, torch.as_tensor(mask))
        offset, value = offset[mask], value[mask]
    pointer.flat.index_put_((offset.reshape(-1),), value.reshape(-1).to(pointer.flat.dtype), accumulate=True)


def dot(a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
    """Matrix product, in float32."""
    product = a.float() @ b.float()
    return product if acc is None else acc + product


def _spread(shape: tuple) -> tuple:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def _reduced(function: Callable) -> Callable:
    def reduce(value: torch.Tensor, axis: int | None = None, keep_dims: bool = False, **_: Any) -> torch.Tensor:
        return function(value) if axis is None else function(value, dim=axis, keepdim=keep_dims)

    return reduce


def _unary(function: Callable) -> Callable:
    return lambda value, **_: function(torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float32))


def _binary(function: Callable) -> Callable:
    return lambda a, b, **_: function(torch.as_tensor(a), torch.as_tensor(b))


def _range(*bounds: Any, **_: Any) -> Iterator[int]:
    return iter(range(*(int(bound) for bound in bounds)))


def _language() -> dict[str, Any]:
    """Names of `triton.language`."""
    floats = {name: torch.float32 for name in ("float32", "bfloat16", "float16")}
    wholes = {name: getattr(torch, name) for name in ("int64", "int32", "int16", "int8", "uint8", "float64")}
    unary = {name: _unary(getattr(torch, name)) for name in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "abs", "sigmoid",
             "floor", "ceil", "cos", "sin", "erf", "tanh", "log1p")}  # fmt: skip
    return {
        **floats, **wholes, **unary,
        "constexpr": lambda value=None: value, "int1": torch.bool,
        "program_id": lambda axis=0: Scalar(_program[-1][0][axis]), "num_programs": lambda axis=0: Scalar(_program[-1][1][axis]),
        "cdiv": lambda a, b: -(-a // b), "range": _range, "static_range": _range,
        "arange": lambda start, end: torch.arange(start, end), "load": load, "store": store, "atomic_add": atomic_add,
        "zeros": lambda shape, dtype=torch.float32: torch.zeros(tuple(shape), dtype=dtype),
        "full": lambda shape, value, dtype=torch.float32: torch.full(tuple(shape), float(value)).to(dtype),
        "zeros_like": torch.zeros_like, "dot": dot,
        "where": lambda c, a, b: torch.where(torch.as_tensor(c), torch.as_tensor(a), torch.as_tensor(b)),
        "maximum": _binary(torch.maximum), "minimum": _binary(torch.minimum), "fma": lambda a, b, c: a * b + c,
        "max": _reduced(torch.amax), "min": _reduced(torch.amin), "sum": _reduced(torch.sum),
        "argmax": lambda value, axis: torch.argmax(value, dim=axis),
        "reshape": lambda value, *shape, **_: value.reshape(_spread(shape)),
        "view": lambda value, *shape: value.reshape(_spread(shape)),
        "permute": lambda value, *order: value.permute(_spread(order)),
        "trans": lambda value, *order: value.permute(_spread(order)) if order else value.transpose(-1, -2),
        "split": lambda value: (value[..., 0], value[..., 1]),
        "join": lambda a, b: torch.stack(torch.broadcast_tensors(a, b), -1),
        "broadcast_to": lambda value, *shape: torch.as_tensor(value).broadcast_to(_spread(shape)),
        "expand_dims": lambda value, axis: value.unsqueeze(axis), "cast": lambda value, dtype: value.to(dtype),
        "multiple_of": lambda value, *_: value, "max_contiguous": lambda value, *_: value, "assume": lambda *_: None,
        "static_assert": lambda *_: None, "debug_barrier": lambda: None, "device_assert": lambda *_, **__: None,
        "dtype": torch.dtype, "tensor": torch.Tensor, "softmax": lambda x, *_: torch.softmax(x, -1),
        "make_tensor_descriptor": lambda base, shape, strides, block_shape, **_: Descriptor(
            torch.as_strided(base.flat, tuple(shape), tuple(strides)), block_shape=block_shape),
    }  # fmt: skip


def install(refuse: Callable[[str], Callable]) -> None:
    """Put the modules in place unless the real ones are installed. `refuse` makes a function that ends the run."""
    if "triton" in sys.modules and hasattr(sys.modules["triton"], "__file__"):
        return

    def jit(function: Callable | None = None, **_: Any) -> Any:
        return Kernel(function) if function is not None else jit

    language = _language()
    math = {
        name: language[name]
        for name in ("exp", "log", "sqrt", "rsqrt", "abs", "max", "min", "tanh", "erf", "log2", "exp2")
    }
    contents: dict[str, dict[str, Any]] = {
        "triton": {
            "jit": jit,
            "autotune": _autotune,
            "heuristics": _heuristics,
            "cdiv": lambda a, b: -(-a // b),
            "next_power_of_2": lambda n: 1 << max(int(n) - 1, 0).bit_length(),
            "Config": Config,
            "set_allocator": lambda *_: None,
            "__version__": "3.4.0",
        },
        "triton.language": language,
        "triton.language.math": math,
        "triton.language.extra": {},
        "triton.language.extra.libdevice": math,
        "triton.language.extra.cuda": {},
        "triton.language.extra.cuda.libdevice": math,
        "triton.tools": {},
        "triton.tools.tensor_descriptor": {"TensorDescriptor": Descriptor},
        "triton.runtime": {},
        "triton.testing": {},
    }
    for name, content in contents.items():
        _module(name, content, refuse)


def _module(name: str, content: dict[str, Any], refuse: Callable[[str], Callable]) -> None:
    module = types.ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def lookup(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return refuse(f"{name}.{attribute}")

    module.__getattr__ = lookup
    module.__dict__.update(content)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
