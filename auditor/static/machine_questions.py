"""Where a program asks what machine it runs on, and branches on the answer.

A submission that behaves one way on a reviewer's machine and another way elsewhere has to ask. Lines whose condition
depends on such an answer, directly or through names that were assigned one, are found here by their calls, not by names.
That alone means little (most programs ask for the compute capability); it explains why two witnesses disagree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.static.parse import parse_module
from auditor.unpack import Program

_ROOTS = {"torch", "os", "platform", "socket", "sys", "psutil", "subprocess", "pathlib", "shutil", "pynvml", "getpass"}
_ANSWERS = (
    "torch.cuda.get_device_name", "torch.cuda.get_device_properties", "torch.cuda.get_device_capability",
    "torch.cuda.is_available", "torch.cuda.device_count", "torch.cuda.mem_get_info", "torch.cuda.memory_allocated",
    "torch.cuda.max_memory_allocated", "torch.cuda.get_arch_list", "torch.cuda.utilization", "torch.cuda.temperature",
    "torch.__version__", "torch.version", "torch.backends", "torch.get_num_threads", "torch.__config__",
    "os.uname", "os.cpu_count", "os.sched_getaffinity", "os.getuid", "os.getpid", "os.getppid", "os.getlogin",
    "os.path.exists", "os.path.isdir", "os.path.isfile", "os.listdir", "os.stat", "os.access", "os.statvfs",
    "platform.", "socket.gethostname", "socket.getfqdn", "sys.gettrace", "sys.modules", "sys.platform", "sys.version",
    "psutil.", "pynvml.", "getpass.", "shutil.which", "shutil.disk_usage", "subprocess.",
)  # fmt: skip
_TENSOR_ANSWERS = {"device", "is_cuda", "get_device"}


def machine_questions(program: Program) -> dict[tuple[str, int], str]:
    """(layer, line) of every condition that depends on the machine -> the question as written, one line."""
    found: dict[tuple[str, int], str] = {}
    for layer in program.layers:
        tree = parse_module(layer.text).tree
        if tree is None:
            continue
        sources = _assigned(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.If | ast.IfExp | ast.While):
                question = _question(node.test, sources)
                if question:
                    found[layer.name, node.lineno] = question
    return found


def _assigned(tree: ast.AST) -> dict[str, str]:
    """Names and attributes that hold an answer, to a fixed point: name -> the question it came from."""
    values = [(name, node.value) for node in ast.walk(tree) for name in _targets(node)]
    returned = [
        (node.name, inner.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Return) and inner.value is not None
    ]
    known: dict[str, str] = {}
    for _ in range(4):
        size = len(known)
        for name, value in (*values, *returned):
            question = _question(value, known)
            if question and name not in known:
                known[name] = question
        if len(known) == size:
            break
    return known


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _names(target)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from _names(node.target)


def _names(target: ast.AST) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Attribute):
        yield target.attr
    elif isinstance(target, ast.Tuple | ast.List):
        for item in target.elts:
            yield from _names(item)


def _question(node: ast.AST, known: dict[str, str]) -> str:
    """The question an expression depends on, "" when it asks none. Only tests and plain values count, no arguments."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            name = _dotted(part)
            if name and name.split(".")[0] in _ROOTS and name.startswith(_ANSWERS):
                return name
            if part.attr == "is_cuda" or (part.attr == "type" and getattr(part.value, "attr", "") in _TENSOR_ANSWERS):
                return ast.unparse(part)[:80]
            if part.attr in known and name.split(".")[0] not in _ROOTS:
                return known[part.attr]
        if isinstance(part, ast.Name) and part.id in known:
            return known[part.id]
    return ""


def _dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
