"""The libraries as data: what calls of torch, numpy and the standard library mean to the analysis.

Tables of last names (`F.cross_entropy` and `torch.nn.functional.cross_entropy` are the same). A call that is in no
table passes the facts of its arguments on.
"""

from __future__ import annotations

# Loss of logits (first argument) against target ids (second).
CROSS_ENTROPY = frozenset({"cross_entropy", "nll_loss", "cross_entropy_loss"})
# Calls whose result is a distribution or its logarithm over the last axis.
DISTRIBUTIONS = frozenset({"log_softmax", "softmax"})
# Reads at given positions; the index follows.
GATHERS = frozenset({"gather", "take_along_dim", "take_along_axis", "index_select", "take", "select"})
# In-place additions at given positions: how count tables are filled.
SCATTER_ADDS = frozenset({"scatter_add_", "index_add_", "index_put_", "put_", "scatter_reduce_"})
# In-place methods that replace what was there.
OVERWRITES = frozenset(
    {"copy_", "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "set_", "trunc_normal_", "eye_",
     "zeros_", "ones_", "constant_", "orthogonal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
     "xavier_normal_"}
)  # fmt: skip
# Methods that end in an underscore but change no data.
NOT_IN_PLACE = frozenset({"requires_grad_", "share_memory_", "retain_grad_", "is_shared_", "rename_"})
# Views share storage with their receiver: writes through them reach it.
VIEWS = frozenset(
    {"view", "reshape", "transpose", "permute", "squeeze", "unsqueeze", "detach", "contiguous", "flatten", "expand",
     "narrow", "view_as", "unflatten", "t", "to", "cuda", "cpu", "float", "bfloat16", "half", "long", "int", "double",
     "numpy", "type", "astype", "pin_memory", "ravel", "unbind", "chunk", "split", "tolist", "items", "values",
     "requires_grad_", "share_memory_", "swapaxes", "type_as", "short", "byte", "bool", "data_as", "data_ptr"}
)  # fmt: skip
# Of these, the ones that copy an entry of a state dict: to another type, or from the GPU, where it lives.
COPIES = frozenset({"to", "cuda", "cpu", "float", "bfloat16", "half", "long", "int", "double", "type", "astype",
                    "type_as", "short", "byte", "bool", "tolist", "data_as"})  # fmt: skip
VIEW_ATTRIBUTES = frozenset({"data", "T", "mT", "_data", "module", "_orig_mod", "real", "weight", "bias", "ctypes"})
# Numbers about a tensor, not its content.
SHAPE = frozenset(
    {"shape", "size", "numel", "dim", "ndim", "dtype", "device", "nelement", "element_size", "stride", "itemsize",
     "nbytes", "requires_grad", "is_contiguous", "is_floating_point", "grad_fn", "is_cuda", "training"}
)  # fmt: skip
# Selections of a candidate by its count: what comes out is an index, not a probability.
ARG_SELECTIONS = frozenset({"argmax", "argmin", "argsort", "topk", "nonzero", "searchsorted", "isin", "unique"})
# Spreading one value over several positions: how a token's loss is divided over its bytes.
REPEATS = frozenset({"repeat", "repeat_interleave"})
SHUFFLES = frozenset(
    {"randperm", "permutation", "shuffle", "sample", "randint", "choice", "rand", "choices", "integers", "randrange"}
)
# Of these, the ones that draw independently: some items come twice, others never.
DRAWS = frozenset({"randint", "choice", "rand", "choices", "sample", "integers", "randrange"})
# Functions that join two numbers into a key.
KEY_JOINS = frozenset({"bitwise_xor", "bitwise_or", "logical_xor", "__xor__"})
# Without gradients.
NO_GRAD = frozenset({"no_grad", "inference_mode"})
# Gradients inside a block without them; `set_grad_enabled` may also switch them off.
GRAD = frozenset({"enable_grad", "set_grad_enabled"})
PARAMETER_LISTS = frozenset({"parameters", "named_parameters", "buffers", "named_buffers"})
STATE_READS = frozenset({"state_dict"})
MODEL_ALIASES = frozenset(
    {"compile", "DistributedDataParallel", "DDP", "DataParallel", "to", "cuda", "cpu", "bfloat16", "float", "half",
     "eval", "train", "requires_grad_", "double", "compile_module", "script", "checkpoint_wrapper", "fullgraph",
     "FullyShardedDataParallel", "optimize", "disable", "apply", "get_peft_model", "merge_and_unload"}
)  # fmt: skip
FILE_READS = frozenset({"fromfile", "memmap", "load", "from_file", "load_file", "read_bytes", "read_text", "loads",
                        "frombuffer", "loadtxt", "read_parquet", "genfromtxt"})  # fmt: skip
FILE_WRITES = frozenset(
    {"save", "savez", "savez_compressed", "save_file", "dump", "write_bytes", "tofile", "write_text"}
)
# What a replaced forward pass does when it collects statistics of its inputs (`$aug`: adds in place at an index).
COLLECTS = frozenset({"addmm_", "add_", "baddbmm_", "copy_", "append", "$aug"})
# What writes results for people: nobody reads weights back from it.
NOTES = ("json.", "yaml.", "csv.", "toml.")
NETWORK = (
    "urllib",
    "requests",
    "http",
    "socket",
    "huggingface_hub",
    "ftplib",
    "aiohttp",
    "httpx",
    "datasets.load_dataset",
)
PROCESSES = ("subprocess", "os.system", "os.popen", "os.exec", "pty")
NATIVE = ("ctypes", "cffi", "torch.utils.cpp_extension", "pybind11")
NATIVE_LOADERS = frozenset({"CDLL", "PyDLL", "LoadLibrary", "load_inline", "load", "dlopen"})
OPTIMIZER_STEPS = frozenset({"step"})
# Containers and adapters that keep their elements' identity.
STRUCTURAL = frozenset(
    {"list", "tuple", "set", "sorted", "reversed", "filter", "iter", "deque", "chain", "from_iterable", "frozenset",
     "cycle", "islice", "tqdm", "cast", "id", "copy"}
)  # fmt: skip
PRINTS = frozenset({"print", "info", "warning", "debug", "error", "critical", "secho", "echo"})
# What makes a function worth walking rather than summarising: any of these names in it or in what it calls.
INTEREST = (
    CROSS_ENTROPY | SCATTER_ADDS | FILE_READS | FILE_WRITES
) - {"load"} | frozenset(
    {"backward", "step", "grad", "zero_grad", "state_dict", "load_state_dict", "parameters", "named_parameters",
     "log_softmax", "gather", "fromfile", "print", "write", "glob", "environ", "getenv", "at", "register_forward_hook",
     "register_forward_pre_hook", "deepcopy", "Parameter", "requires_grad_", "copy_", "zero_", "lerp_", "fill_",
     "bincount", "open", "_foreach_add_", "_foreach_lerp_", "compile", "load", "save", "CDLL", "subprocess", "urlopen",
     "urlretrieve", "load_dataset", "defaultdict", "Counter", "exec", "add_argument", "log2", "append", "no_grad",
     "inference_mode", "modules", "named_modules", "setattr", "getattr", "set_float32_matmul_precision", "perf_counter"}
)  # fmt: skip
# Inside a neural module only these make a method worth walking; its arithmetic is summarised.
MODULE_INTEREST = frozenset(
    {"backward", "step", "fromfile", "print", "scatter_add_", "index_add_", "bincount", "at", "zero_grad",
     "load_state_dict", "copy_", "zero_", "fill_", "add_", "normal_", "uniform_", "kaiming_uniform_", "zeros_", "sub_",
     "lerp_", "state_dict"}
)  # fmt: skip
BUILTINS = frozenset(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)
