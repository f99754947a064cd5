"""Programs that can run nowhere as submitted, told from those that only do not run here.

A run that ends early here may end so because of this machine, the scale or a stand-in. Some ends are the program's own on any
machine: source that is no Python, a name that is bound nowhere, an argument the program's own function does not take, a
file that neither trains nor evaluates. They are proven from the source, or shown by a run with the model's sizes as submitted
that ends at the same line with the same kind of error. What is not proven so counts as "does not run here".
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.static.parse import parse_module
from auditor.submission import Submission

# Errors in these words are about shapes and state of tensors, which no device changes.
_SHAPES = re.compile(
    r"is invalid for input of size|must match the size|shapes cannot be multiplied|Error\(s\) in loading state_dict"
    r"|size mismatch|empty parameter list|invalid literal for int|could not convert string to float"
    r"|not enough values to unpack|too many values to unpack|does not require grad"
    r"|must be tuple of ints|cannot be interpreted as an integer|argument must be int"
)
_BROKEN = re.compile(
    r"unterminated|was never closed|unmatched|unexpected (EOF|indent)|expected an indented block|unindent"
)
# Packages the field names without saying where they are from; everything else a README names by `pip install`.
_PACKAGES = re.compile(
    r"^(transformers|huggingface_hub|peft|datasets|fla|flash_linear_attention|mamba_ssm|causal_conv1d|modal|hnet|deepspeed"
    r"|lightning|pytorch_lightning|liger_kernel|xformers|apex|bitsandbytes|tiktoken|tokenizers|accelerate|torchao|einops"
    r"|safetensors|numba|cupy|sklearn|scipy|pandas|matplotlib|jax|flax|optax|tensorflow|mlx|ray|google|boto3|requests"
    r"|zstandard|brotli|tqdm|wandb|faiss|optuna|hydra|omegaconf|yaml|psutil|torchvision|torchaudio|timm|xgboost|lightgbm)(\.|$)"
)
_LEARNING = re.compile(r"cross_?entropy|nll_loss|log_softmax|logsumexp|\.backward\(|\bloss\b", re.I)
_SCORE = re.compile(r"bpb|bits?[ _-]per[ _-]byte|(val|valid|validation|eval|test|final)\w*[ _]*(nll|loss|score)", re.I)


@dataclass(frozen=True)
class Crash:
    """How a run ended: exception class, message, and the submission's innermost line (0: not known)."""

    error: str
    message: str
    line: int = 0


def own_error(crash: Crash, text: str) -> str:
    """Why the program ends so on every machine, "" where the source does not prove it.

    Args:
        text: source of the program that was run.
    """
    if crash.error in ("IndentationError", "TabError") or (
        crash.error == "SyntaxError" and _BROKEN.search(crash.message)
    ):
        return f"it is no Python: {crash.message}"
    if "header of a shard" in crash.message:
        return "it reads the header of a shard as tokens, ids beyond its vocabulary"
    prove, tree = _PROOFS.get(crash.error), parse_module(text).tree
    return prove(crash, tree) if prove is not None and tree is not None else ""


def same_at_full_size(crash: Crash, full: Crash | None) -> str:
    """Why an error counts as the program's own after a run with the model's sizes as submitted ended with `full`."""
    if full is None or not crash.line or (crash.error, crash.line) != (full.error, full.line):
        return ""
    if not may_be_own(crash) or not _SHAPES.search(full.message):
        return ""
    return (
        f"with the model's sizes as submitted it ends at the same line {crash.line}: {full.error}: {full.message[:160]}"
    )


def may_be_own(crash: Crash | None) -> bool:
    """Whether a run at the submitted sizes could show the error to be the program's own."""
    return crash is not None and bool(_SHAPES.search(crash.message))


def nothing_scored(texts: list[str]) -> str:
    """Why no run of these sources, the main script first, can come to a score: they hold no loss, run nothing, or print
    no result of an evaluation. "" otherwise."""
    if not any(_LEARNING.search(text) for text in texts):
        return "its source neither trains nor evaluates a model"
    if _only_defines(texts[0]):
        return "its main script defines functions and calls none of them"
    if any(_SCORE.search(words) for text in texts for words in _strings(text)):
        return ""
    return "its source prints no validation loss and no bits per byte"


def documents(submission: Submission) -> str:
    """What names the packages a submission needs."""
    names = (".md", ".txt", ".sh", ".toml", ".yml", ".yaml", ".cfg", "Dockerfile")
    found = [path for path in submission.files if path.endswith(names) and path not in submission.logs]
    return "\n".join(submission.read(path, 1 << 18).decode("utf-8", "replace") for path in found)


def own_module(name: str, documents: str) -> bool:
    """Whether a missing module is the submission's own: no package that the field uses or its documents install."""
    root = re.escape(name.partition(".")[0]).replace("_", "[-_]")
    named = re.search(rf"(pip|uv|conda) [^\n]*\b{root}\b|^\s*{root}\s*([=<>~!\[;@]|$)", documents, re.M | re.I)
    return not (_PACKAGES.match(name) or named)


def _only_defines(text: str) -> bool:
    """Whether a module defines functions and does nothing with them when it is run."""
    tree = parse_module(text).tree
    if tree is None:
        return False
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    rest = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    calls = [part for node in rest for part in ast.walk(node) if isinstance(part, ast.Call)]
    known = all(isinstance(call.func, ast.Name | ast.Attribute) for call in calls)
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    loops = any(isinstance(node, ast.For | ast.While | ast.With) for node in rest)
    imported = any(isinstance(node, ast.ImportFrom) and node.level for node in rest)
    return (
        bool(own)
        and known
        and not loops
        and not imported
        and not (names & own)
        and not names & {"exec", "eval", "main"}
    )


def _strings(text: str) -> Iterator[str]:
    """String constants of a source other than docstrings; all of it where it cannot be read."""
    tree = parse_module(text).tree
    if tree is None:
        yield text
        return
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def _unbound_name(crash: Crash, tree: ast.Module) -> str:
    name = _quoted(crash.message)
    if not name or hasattr(builtins, name) or _dynamic(tree, _BINDING) or name in _module_names(tree):
        return ""
    return f"the name {name} in line {crash.line} is bound nowhere in the module"


def _unbound_local(crash: Crash, tree: ast.Module) -> str:
    """A local that only branches bind which nothing but switches decide; loops and comparisons may be the scale's doing."""
    name = _quoted(crash.message)
    holder = next((node for node in _holders(tree, crash.line)), None)
    if not name or holder is None:
        return ""
    if not all(_switched(path) for path in _bindings(holder, name)):
        return ""
    return f"the variable {name} in line {crash.line} is set by none of the branches that the settings take"


def _no_attribute(crash: Crash, tree: ast.Module) -> str:
    found = re.match(r"'(\w+)' object has no attribute '(\w+)'", crash.message)
    if not found or _dynamic(tree, _FILLING):
        return ""
    owner, name = found.groups()
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return f"{owner} never gets the attribute {name}" if owner in classes and name not in _given(tree) else ""


def _wrong_call(crash: Crash, tree: ast.Module) -> str:
    found = re.match(r"([\w.<>]+)\(\) (got an unexpected keyword|got multiple values|missing \d|takes )", crash.message)
    if not found:
        return ""
    names = [part for part in found[1].split(".") if part not in ("__init__", "<locals>")]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return f"its own {crash.message}" if names and set(names) <= own else ""


_PROOFS = {
    "NameError": _unbound_name, "UnboundLocalError": _unbound_local, "AttributeError": _no_attribute, "TypeError": _wrong_call,
}  # fmt: skip


def _quoted(message: str) -> str:
    found = re.search(r"'(\w+)'", message)
    return found[1] if found else ""


_BINDING = frozenset({"exec", "globals"})
_FILLING = frozenset({"exec", "setattr", "vars"})


def _dynamic(tree: ast.Module, calls: frozenset[str]) -> bool:
    """Whether names may be bound in ways the source does not show: by one of these calls with a name that is no constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls:
            if not (node.func.id == "setattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant)):
                return True
    return False


def _module_names(tree: ast.Module) -> set[str]:
    """Names bound at module level, and those that functions declare global."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        found |= _bound(node)
        waiting += ast.iter_child_nodes(node)
    return found | {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}


def _bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ExceptHandler) and node.name:
        return {node.name}
    return set()


def _given(tree: ast.Module) -> set[str]:
    """Attributes that anything in the program gets: assigned, defined in a class, or named by a string."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.findall(r"\w+", node.value[:200]))
        else:
            found |= _bound(node)
    return found


def _holders(tree: ast.Module, line: int) -> list[ast.FunctionDef]:
    """Functions around a line, the innermost first."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return sorted(around, key=lambda node: -node.lineno)


def _bindings(holder: ast.FunctionDef, name: str) -> Iterator[list[ast.AST]]:
    """The statements around every place of a function that binds a name, outermost first."""

    def walk(node: ast.AST, path: list[ast.AST]) -> Iterator[list[ast.AST]]:
        if name in _bound(node):
            yield path
        for child in ast.iter_child_nodes(node):
            yield from walk(child, [*path, node])

    for statement in holder.body:
        yield from walk(statement, [])


def _switched(path: list[ast.AST]) -> bool:
    """Whether a binding hangs on an `if` about switches and on no loop, handler or comparison."""
    if any(isinstance(node, ast.For | ast.While | ast.Try | ast.ExceptHandler) for node in path):
        return False
    tests = [node.test for node in path if isinstance(node, ast.If)]
    compared = (part for test in tests for part in ast.walk(test) if isinstance(part, ast.Compare))
    return bool(tests) and all(isinstance(op, ast.Is | ast.IsNot) for part in compared for op in part.ops)
