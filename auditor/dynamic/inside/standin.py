"""A GPU that is not there: CUDA devices become the CPU, bfloat16 becomes float32, compilation becomes the identity.

What the stand-in cannot do faithfully raises `NotOnCpu` with a name, which ends the run with that reason; it never
returns a silently wrong number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from auditor.dynamic.dataset import MAGIC
from auditor.dynamic.inside.devices import Devices

GPU_NAME = "NVIDIA H100 80GB HBM3"
GPU_BYTES = 80 << 30
TORCH = "2.9.1+cu128"  # what most submissions ran on; programs compare with it


class NotOnCpu(RuntimeError):
    """The submission asked for something that has no faithful stand-in on a CPU; the message names it."""


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return "cpu"
    return value


def _told(error: IndexError, name: str, args: tuple) -> IndexError:
    """An id beyond an embedding's rows, with the id, and where it comes from when that can be told."""
    if name != "embedding" or len(args) < 2 or not isinstance(args[0], torch.Tensor) or not args[0].numel():
        return error
    ids, rows = args[0].detach(), len(args[1])
    header = bool((ids == MAGIC & 0xFFFF).any()) and rows <= MAGIC & 0xFFFF
    why = ": the header of a shard is read as tokens" if header else ""
    return IndexError(f"id {int(ids.max())} is looked up in an embedding of {rows} rows{why}")


def _placed(name: str, args: tuple) -> tuple:
    """Arguments by position, with the CPU where they name a GPU; a number given to `to` is a GPU's."""
    if name == "to" and len(args) > 1 and type(args[1]) is int:
        return (args[0], "cpu", *args[2:])
    if name == "_parse_to":  # what `Module.to` was given
        return tuple(torch.device("cuda", value) if type(value) is int else value for value in args)
    return tuple(_to_cpu(value) for value in args)


_STAYING = frozenset({"pin_memory", "is_pinned"})
_PLACING = frozenset(
    {
        "to",
        "_parse_to",
        "empty",
        "zeros",
        "ones",
        "full",
        "tensor",
        "_to_copy",
        "randn",
        "rand",
        "arange",
        "type",
        "new_zeros",
    }
)


class Redirect(TorchFunctionMode):
    """Sends every tensor operation that names a CUDA device to the CPU, and tells observers of every operation."""

    def __init__(
        self, observe: Callable[[Callable, tuple, dict, Any], None] | None = None, devices: Devices | None = None
    ) -> None:
        super().__init__()
        self.observe = observe
        self.devices = devices or Devices()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _STAYING:
            return True if name == "is_pinned" else args[0]
        given, named = args, kwargs or {}
        kwargs = {name: _to_cpu(value) for name, value in named.items()} if named else {}
        if name in _PLACING:
            args = _placed(name, args)
        elif name == "cuda":
            func, args, kwargs = torch.Tensor.to, (args[0], "cpu"), {}
        kwargs.pop("pin_memory", None)
        try:
            result = func(*args, **kwargs)
        except IndexError as error:
            raise _told(error, name, args) from None
        result = self.devices.after(name, func, given, named, result)
        if self.observe is not None:
            return self.observe(func, args, kwargs, result)
        return result


class _Nothing(contextlib.ContextDecorator):
    """A context manager, decorator and object whose every method does nothing: autocast, streams, events, profilers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class _Event(_Nothing):
    """A CUDA event on the host's clock."""

    def record(self, *_: Any) -> None:
        import time

        self.at = time.perf_counter()

    def elapsed_time(self, other: _Event) -> float:
        return 1000.0 * (other.at - self.at)

    def query(self) -> bool:
        return True


def install(observe: Callable[[Callable, tuple, dict, Any], None] | None = None, world: Any = None) -> None:
    """Make this process look like one rank on an H100.

    Args:
        observe: told of every torch function. world: collectives that take the place of torch.distributed's; without
            it those of a single rank, or gloo where the environment names more.
    """
    torch.set_num_threads(1)
    torch.inference_mode = torch.autograd.inference_mode = torch.autograd.grad_mode.inference_mode = _NoGrad
    _dtypes()
    _cuda()
    _compile()
    _modules()
    _distributed(world)
    devices = Devices()
    _generators(devices)
    _from_numpy(observe, devices)
    _every_thread(observe, devices)


def _dtypes() -> None:
    # torch caches tables keyed by dtype; they must be filled before two names mean one dtype.
    torch.storage._storage_type_to_dtype_map()
    torch.storage._dtype_to_storage_type_map()
    torch.bfloat16 = torch.float32
    torch.Tensor.bfloat16 = torch.Tensor.float
    torch.nn.Module.bfloat16 = torch.nn.Module.float
    torch.autocast = _Nothing
    torch.amp.autocast = _Nothing
    torch.cuda.amp.autocast = _Nothing
    torch.autocast_mode = types.SimpleNamespace(autocast=_Nothing)


class _NoGrad(torch.no_grad):
    """`inference_mode` without the marks it leaves on tensors, which compiled code does not see on a GPU either."""

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):
            return torch.no_grad()(mode)
        return super().__new__(cls) if mode else contextlib.nullcontext()

    def __init__(self, mode: bool = True) -> None:
        super().__init__()


def _cuda() -> None:
    cuda = torch.cuda
    properties = types.SimpleNamespace(
        name=GPU_NAME,
        major=9,
        minor=0,
        total_memory=GPU_BYTES,
        multi_processor_count=132,
        shared_memory_per_block_optin=232448,
        regs_per_multiprocessor=65536,
        warp_size=32,
        L2_cache_size=52428800,
    )
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": GPU_NAME,
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
        "is_initialized": True,
        "max_memory_allocated": 1 << 30,
        "max_memory_reserved": 1 << 30,
        "memory_allocated": 1 << 30,
        "memory_reserved": 1 << 30,
        "mem_get_info": (GPU_BYTES // 2, GPU_BYTES),
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "memory_summary": "",
        "utilization": 0,
        "temperature": 40,
    }
    for name, value in answers.items():
        setattr(cuda, name, functools.partial(lambda answer, *args, **kwargs: answer, value))
    for name in (
        "synchronize",
        "set_device",
        "empty_cache",
        "reset_peak_memory_stats",
        "init",
        "ipc_collect",
        "reset_max_memory_allocated",
        "set_per_process_memory_fraction",
        "set_stream",
        "set_sync_debug_mode",
    ):
        setattr(cuda, name, lambda *args, **kwargs: None)
    cuda.manual_seed = torch.manual_seed
    cuda.manual_seed_all = lambda seed: None
    cuda.Stream = cuda.ExternalStream = _Nothing
    cuda.Event = _Event
    cuda.stream = cuda.device = _Nothing
    cuda.current_stream = cuda.default_stream = _Nothing
    cuda.get_rng_state = lambda *_: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    cuda.CUDAGraph = cuda.graph = cuda.make_graphed_callables = refuse("CUDA graphs")
    torch.__version__, torch.version.cuda = torch.torch_version.TorchVersion(TORCH), "12.8"
    cuda.nvtx = types.SimpleNamespace(range_push=lambda *_: None, range_pop=lambda: None, range=_Nothing)


def _from_numpy(observe: Callable | None, devices: Devices) -> None:
    """What numpy gives is in the host's memory. torch tells no mode of these two, so observers are told here."""
    for name in ("from_numpy", "frombuffer"):
        real = getattr(torch, name)

        @functools.wraps(real)
        def made(*args: Any, real: Callable = real, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            devices.mark(result)
            return result if observe is None else observe(real, args, kwargs, result)

        setattr(torch, name, made)


def _generators(devices: Devices) -> None:
    real = torch.Generator
    torch.Generator = lambda *_, **__: real("cpu")
    torch.set_default_device = lambda *_: None
    torch.Tensor.record_stream = lambda *_: None
    real_load = torch.load

    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        where = "cpu" if map_location is None or callable(map_location) else map_location
        where = {old: _to_cpu(new) for old, new in where.items()} if isinstance(where, dict) else _to_cpu(where)
        loaded = real_load(file, where, *args, **kwargs)
        devices.mark(loaded, str(map_location) == "cpu")
        return loaded

    torch.load = load
    torch.Tensor.is_cuda = property(lambda self: not devices.on_host(self))
    torch.Tensor.get_device = lambda self: -1 if devices.on_host(self) else 0
    _attention_backends()
    torch.cuda.default_generators = (torch.default_generator,)


def _attention_backends() -> None:
    """Which kernel computes attention does not change what is computed, and a CPU has not those that programs insist on."""
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        setattr(torch.backends.cuda, f"enable_{name}_sdp", lambda enabled: None)
    torch.backends.cuda.sdp_kernel = _Nothing
    torch.nn.attention.sdpa_kernel = _Nothing


def refuse(what: str) -> Callable:
    """A function that ends the run with the name of what has no stand-in."""

    def ended(*args: Any, **kwargs: Any) -> Any:
        raise NotOnCpu(f"{what}: no stand-in on a CPU")

    return ended


def _compile() -> None:
    def identity(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        return identity if model is None else model

    torch.compile = identity
    torch.jit.script = identity
    torch.compiler.disable = torch.compiler.allow_in_graph = identity
    torch.compiler.cudagraph_mark_step_begin = lambda: None
    torch._dynamo.reset = lambda: None
    torch._dynamo.disable = torch._dynamo.allow_in_graph = identity
    torch.nn.Module.compile = lambda self, *args, **kwargs: None


def _lrzip(words: list[str]) -> Any:
    """Packs or unpacks a file with lzma: another size than lrzip's, the same content after the round trip."""
    import lzma
    import subprocess
    from pathlib import Path

    unpack = any(word in ("-d", "--decompress") for word in words)
    source = Path(words[-1])
    given = words[words.index("-o") + 1] if "-o" in words else ""
    target = Path(given or (str(source).removesuffix(".lrz") if unpack else f"{source}.lrz"))
    data = source.read_bytes()
    target.write_bytes(lzma.decompress(data) if unpack else lzma.compress(data))
    return subprocess.CompletedProcess(["lrzip", *words], 0, b"", b"")


def _shell(attribute: str) -> Any:
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return _Nothing()


def _modules() -> None:
    """Optional packages that only observe: absent ones become empty shells."""
    for name in ("wandb",):
        module = types.ModuleType(name)
        module.__getattr__ = _shell
        sys.modules.setdefault(name, module)
    _helpers()
    from auditor.dynamic.inside import packages, triton

    triton.install(refuse)
    packages.install(refuse)
    import subprocess

    real = subprocess.run

    def run(command: Any, *args: Any, **kwargs: Any) -> Any:
        words = command if isinstance(command, list | tuple) else str(command).split()
        if words and str(words[0]).endswith("nvidia-smi"):
            text = f"NVIDIA-SMI stand-in\n|   0  {GPU_NAME}   On |"
            output = text if kwargs.get("text") or kwargs.get("universal_newlines") else text.encode()
            return subprocess.CompletedProcess(words, 0, output, "" if isinstance(output, str) else b"")
        if words and str(words[0]).endswith("lrzip"):
            return _lrzip([str(word) for word in words[1:]])
        if words and str(words[0]).endswith("pyminify"):
            # Only the size of the code depends on it, and that is measured on the files as submitted.
            return subprocess.CompletedProcess(words, 0, kwargs.get("input", ""), "")
        return real(command, *args, **kwargs)

    subprocess.run = run


class _Bar(_Nothing):
    """A progress bar that shows nothing: the iterable itself with a bar's methods."""

    def __init__(self, iterable: Any = (), *_: Any, **__: Any) -> None:
        self.iterable = iterable

    def __iter__(self) -> Any:
        return iter(self.iterable if self.iterable is not None else ())

    def __len__(self) -> int:
        return len(self.iterable)

    @staticmethod
    def write(text: str = "", *_: Any, **__: Any) -> None:
        print(text)


def _helpers() -> None:
    """Packages without influence on what is computed: progress bars, variables from a file that is not there, and a
    minifier, whose output only counts as size."""
    names: dict[str, dict[str, Any]] = {
        "tqdm": {"tqdm": _Bar, "trange": lambda *bounds, **_: _Bar(range(*bounds))},
        "tqdm.auto": {"tqdm": _Bar, "trange": lambda *bounds, **_: _Bar(range(*bounds))},
        "dotenv": {"load_dotenv": lambda *_, **__: False, "find_dotenv": lambda *_, **__: ""},
        "python_minifier": {"minify": lambda source, *_, **__: source},
    }
    for name, contents in names.items():
        root = name.partition(".")[0]
        if root in sys.modules and hasattr(sys.modules[root], "__file__"):
            continue
        if "." not in name and importlib.util.find_spec(name) is not None:
            continue
        module = types.ModuleType(name)
        module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(contents)
        sys.modules.setdefault(name, module)


def _distributed(world: Any) -> None:
    import os

    from auditor.dynamic.inside.collectives import SingleRank

    if world is not None:
        world.install()
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        SingleRank().install()
    else:
        import torch.distributed as dist

        real = dist.init_process_group
        dist.init_process_group = lambda *args, **kwargs: real(backend="gloo")


def _every_thread(observe: Callable | None, devices: Devices) -> None:
    """Function modes belong to a thread, so each new one enters its own."""
    Redirect(observe, devices).__enter__()
    real = threading.Thread.run

    def run(self: threading.Thread) -> None:
        with Redirect(observe, devices):
            real(self)

    threading.Thread.run = run
