"""What reading a program says without following its control flow: imports, files, processes, network, paths.

For the packaging rules. Only code the main script can reach is described: the script itself with everything packed
in it, the local modules it imports or runs, and so on from those. Helpers nobody calls are listed under `idle`.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from auditor.static.parse import parse_module
from auditor.static.scopes import CallSite, Index, dotted, index, last_name
from auditor.static.settings import declared_settings, environment_reads
from auditor.submission import Submission
from auditor.unpack import Layer, Program

LARGE_LITERAL = 2000
NETWORK_MODULES = {
    *("requests", "urllib3", "httpx", "aiohttp", "socket", "ftplib", "smtplib", "paramiko", "boto3", "gdown", "wget"),
    *("huggingface_hub", "datasets", "transformers", "wandb", "mlflow", "comet_ml", "neptune", "modal", "kagglehub"),
}
_NETWORK_CALLS = re.compile(
    r"(?:^|\.)(?:urlopen|urlretrieve|hf_hub_download|snapshot_download|load_dataset|create_connection)\Z"
    r"|^requests\.\w+|^httpx\.\w+|^wandb\.(?:init|login)|^socket\.socket"
)
_PROCESS_CALLS = re.compile(
    r"^subprocess\.(?:run|call|check_call|check_output|Popen|getoutput)|^os\.(?:system|popen|exec\w*|spawn\w*)"
)
_NETWORK_COMMANDS = re.compile(
    r"\b(?:curl|wget|git\s+clone|pip3?\s+install|apt(?:-get)?\s|conda\s|huggingface-cli|hf\s)"
)
_PRIVATE_PATH = re.compile(
    r"^(?:/(?:home|Users|root|workspace|mnt|scratch|content|gpfs|lustre|nvme|data\d*|runpod)/|[A-Z]:\\)"
)
_COMPILED = re.compile(
    r"(?:^|\.)(?:load_inline|CDLL|cdll|LoadLibrary|RawKernel|RawModule|compile_cuda)\Z|cpp_extension\.load\Z"
)
_READERS = re.compile(r"(?:^|\.)(?:open|load|read_text|read_bytes|fromfile|memmap|loadtxt|read_csv|save|copyfile)\Z")
_LOCAL_NAME = re.compile(
    r"^(?:train|eval|utils?|model|data|config|helpers?|common|lib|src|ttt|ngram)(?:_|\Z)|_gpt\Z|_utils\Z"
)


@dataclass(frozen=True)
class Seen:
    """One thing seen in the source.

    Attributes:
        name: what it is: a module, a command line, a path, a variable.
        path, line: where it stands (`path` is the layer's name).
        detail: more about it: default value, size, mode.
        function: enclosing function, "" at module level (runs at import).
        guarded: inside `try` or under a condition, so it may be absent.
    """

    name: str
    path: str
    line: int
    detail: str = ""
    function: str = ""
    guarded: bool = False


@dataclass(frozen=True)
class LocalFile:
    """A further file of the folder that the program needs: how ("import", "run", "read", "compile") and from where."""

    path: str
    how: str
    source: str
    line: int


@dataclass(frozen=True)
class SyntaxProblem:
    """The main script does not parse."""

    path: str
    line: int | None
    message: str


@dataclass
class _Facts:
    imports: list[Seen] = field(default_factory=list)
    missing_modules: list[Seen] = field(default_factory=list)
    processes: list[Seen] = field(default_factory=list)
    network: list[Seen] = field(default_factory=list)
    private_paths: list[Seen] = field(default_factory=list)
    environment: list[Seen] = field(default_factory=list)
    literals: list[Seen] = field(default_factory=list)
    files: list[Seen] = field(default_factory=list)
    dynamic_code: list[Seen] = field(default_factory=list)
    compiled: list[Seen] = field(default_factory=list)
    local_files: dict[str, LocalFile] = field(default_factory=dict)


def program_facts(program: Program, submission: Submission | None = None) -> dict[str, Any]:
    """Facts about a program by name.

    Keys: `imports`, `missing_modules`, `processes`, `network`, `private_paths`, `environment`, `literals` (over
    2,000 characters), `files`, `dynamic_code` (exec, eval), `compiled` (C, CUDA) as lists of `Seen`; `local_files`
    (list of `LocalFile`), `idle` (Python files nothing reaches), `syntax_error` (`SyntaxProblem` or None).
    """
    reader = _Reader(program, submission)
    reader.run()
    facts = reader.facts
    result: dict[str, Any] = {
        name: getattr(facts, name) for name in facts.__dataclass_fields__ if name != "local_files"
    }
    result["local_files"] = list(facts.local_files.values())
    result["idle"] = reader.idle
    result["syntax_error"] = _syntax_error(program)
    return result


def _syntax_error(program: Program) -> SyntaxProblem | None:
    if program.main is None:
        return None
    parsed = parse_module(program.main.text)
    return None if parsed.tree is not None else SyntaxProblem(program.main.name, parsed.line, parsed.error)


class _Reader:
    """Walks from the main script over everything it reaches in the folder."""

    def __init__(self, program: Program, submission: Submission | None) -> None:
        self.program = program
        self.files = set(submission.files) if submission is not None else {layer.name for layer in program.layers}
        self.facts = _Facts()
        self.idle: list[str] = []
        self.by_file: dict[str, list[Layer]] = {}
        for layer in program.layers:
            self.by_file.setdefault(_file_of(layer), []).append(layer)
        self.seen: set[str] = set()

    def run(self) -> None:
        """Fill `facts` and `idle`."""
        if self.program.main is None:
            self.idle = sorted(self.by_file)
            return
        main = _file_of(self.program.main)
        self._file(main)
        self.facts.local_files.pop(main, None)
        self.idle = sorted(set(self.by_file) - self.seen)

    def _file(self, path: str) -> None:
        if path in self.seen:
            return
        self.seen.add(path)
        for layer in self.by_file.get(path, ()):
            tree = parse_module(layer.text).tree
            if tree is not None:
                self._layer(layer, tree)

    def _layer(self, layer: Layer, tree: ast.Module) -> None:
        found = index(tree)
        self._imports(layer, tree)
        for site in found.calls:
            self._call(layer, site, found.imports)
        self.facts.literals += _literals(layer, tree)
        self.facts.private_paths += _private_paths(layer, tree, found)
        self.facts.environment += _environment(layer, found)

    def _imports(self, layer: Layer, tree: ast.Module) -> None:
        for node, function, guarded in _import_nodes(tree):
            for module in _modules(node):
                seen = Seen(module, layer.name, node.lineno, function=function, guarded=guarded)
                local = self._local_module(module, layer)
                if local:
                    for path in local:
                        self._need(path, "import", layer, node.lineno)
                    continue
                self.facts.imports.append(seen)
                top = module.partition(".")[0]
                if top in NETWORK_MODULES or module in ("urllib.request", "http.client"):
                    self.facts.network.append(seen)
                relative = isinstance(node, ast.ImportFrom) and node.level > 0
                if relative or (top not in sys.stdlib_module_names and _LOCAL_NAME.search(top) and not guarded):
                    self.facts.missing_modules.append(seen)

    def _local_module(self, module: str, layer: Layer) -> list[str]:
        """Files of the folder an import of `module` reads, [] when it is not local."""
        folder = posixpath.dirname(_file_of(layer))
        roots = {folder, posixpath.dirname(_file_of(self.program.main)) if self.program.main else folder}
        parts = module.split(".")
        for root in sorted(roots, key=len, reverse=True):
            for length in range(len(parts), 0, -1):
                stem = posixpath.join(root, *parts[:length])
                for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
                    if candidate in self.files:
                        return [candidate]
        return []

    def _need(self, path: str, how: str, layer: Layer, line: int) -> None:
        self.facts.local_files.setdefault(path, LocalFile(path, how, layer.name, line))
        if path.endswith(".py") and how in ("import", "run"):
            self._file(path)

    def _call(self, layer: Layer, site: CallSite, imports: dict[str, str]) -> None:
        name = _imported(dotted(site.node.func), imports)
        make = _maker(layer, site)
        if _PROCESS_CALLS.search(name):
            self._process(layer, site, make)
        if _NETWORK_CALLS.search(name):
            self.facts.network.append(make(name, _shown(site.node)))
        if name in ("exec", "eval", "compile", "__import__", "importlib.import_module") or name.startswith("runpy."):
            self.facts.dynamic_code.append(make(name, _shown(site.node)))
            self._files_in(layer, site, "run")
        if _COMPILED.search(name):
            self.facts.compiled.append(make(name, _shown(site.node)))
            self._files_in(layer, site, "compile")
        if _READERS.search(name) and site.node.args:
            self._opened(layer, site, name, make)

    def _process(self, layer: Layer, site: CallSite, make: _Make) -> None:
        command = _command(site.node)
        self.facts.processes.append(make(command, dotted(site.node.func)))
        if _NETWORK_COMMANDS.search(command):
            self.facts.network.append(make(command, "command"))
        if re.search(r"\b(?:gcc|g\+\+|nvcc|clang|cc)\b", command):
            self.facts.compiled.append(make(command, "compiler"))
        self._files_in(layer, site, "run")

    def _opened(self, layer: Layer, site: CallSite, name: str, make: _Make) -> None:
        first = site.node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and len(first.value) < 300:
            self.facts.files.append(make(first.value, name))
            self._files_in(layer, site, "read")

    def _files_in(self, layer: Layer, site: CallSite, how: str) -> None:
        """Files of the folder whose name stands in a call as written."""
        folder = posixpath.dirname(_file_of(layer))
        for node in ast.walk(site.node):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and 2 < len(node.value) < 200:
                for word in re.findall(r"[\w./\-]+\.\w{1,5}\b", node.value):
                    path = posixpath.normpath(posixpath.join(folder, word))
                    if path in self.files and path != _file_of(layer):
                        self._need(path, how, layer, site.node.lineno)


class _Make:
    """Builds a `Seen` at a call site."""

    def __init__(self, layer: Layer, site: CallSite) -> None:
        self.layer, self.site = layer, site

    def __call__(self, name: str, detail: str = "") -> Seen:
        guarded = bool(self.site.guards) or self.site.in_handler
        return Seen(name, self.layer.name, self.site.node.lineno, detail, self.site.scope.name, guarded)


def _maker(layer: Layer, site: CallSite) -> _Make:
    return _Make(layer, site)


def _file_of(layer: Layer) -> str:
    """The file a layer was decoded from."""
    return layer.name.partition("!")[0]


def _modules(node: ast.Import | ast.ImportFrom) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.module is None:
        return [alias.name for alias in node.names]
    return [node.module]


def _import_nodes(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, str, bool]]:
    """Every import with its function and whether it stands under `try` or `if`."""
    stack: list[tuple[ast.AST, str, bool]] = [(tree, "", False)]
    while stack:
        node, function, guarded = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, function, guarded
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                stack.append((child, child.name, guarded))
            elif isinstance(child, ast.stmt | ast.ExceptHandler):
                stack.append((child, function, guarded or isinstance(child, ast.Try | ast.If)))


def _imported(name: str, imports: dict[str, str]) -> str:
    """A dotted name with what its first part was imported as: `run` of `from subprocess import run`."""
    first, _, rest = name.partition(".")
    source = imports.get(first, first)
    if source.split(".")[0] == first:  # `import os.path` binds `os`
        return name
    return f"{source}.{rest}" if rest else source


def _command(call: ast.Call) -> str:
    """The command line of a process call as far as it is written out; computed parts as `{...}`."""
    if not call.args:
        return dotted(call.func)
    first = call.args[0]
    words = first.elts if isinstance(first, ast.List | ast.Tuple) else [first]
    return " ".join(_word(word) for word in words)[:300]


def _word(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{...}" for v in node.values)
    text = dotted(node)
    return "python" if text.endswith(".executable") else "{" + (text or "...") + "}"


def _shown(call: ast.Call) -> str:
    return ast.unparse(call.args[0])[:160] if call.args else ""


def _literals(layer: Layer, tree: ast.Module) -> Iterator[Seen]:
    """Large constants: weights, tables or code carried in the script."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and len(node.value) > LARGE_LITERAL:
            kind = "bytes" if isinstance(node.value, bytes) else "text"
            yield Seen(
                kind, layer.name, node.lineno, f"{len(node.value):,} {'bytes' if kind == 'bytes' else 'characters'}"
            )
        elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            items = node.values if isinstance(node, ast.Dict) else node.elts
            if len(items) > 400 and all(isinstance(item, ast.Constant | ast.UnaryOp) for item in items[:50]):
                yield Seen("table", layer.name, node.lineno, f"{len(items):,} items")


def _private_paths(layer: Layer, tree: ast.Module, found: Index) -> Iterator[Seen]:
    """Absolute paths of somebody's machine; `guarded` when an environment variable can replace them."""
    replaceable = {id(item) for site in found.calls if _reads_environment(site) for item in ast.walk(site.node)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and len(text) < 300 and _PRIVATE_PATH.match(text):
            yield Seen(text, layer.name, node.lineno, guarded=id(node) in replaceable)


def _reads_environment(site: CallSite) -> bool:
    return dotted(site.node.func).endswith(("environ.get", "getenv")) or last_name(site.node.func) == "add_argument"


def _environment(layer: Layer, found: Index) -> Iterator[Seen]:
    known = set()
    for setting in declared_settings(layer.text, layer.name):
        if setting.environment:
            known.add((setting.environment, setting.line))
            yield Seen(
                setting.environment, layer.name, setting.line, "" if setting.default is None else str(setting.default)
            )
    for node, variable, default in environment_reads(found):
        if (variable, node.lineno) not in known:
            yield Seen(variable, layer.name, node.lineno, "" if default is None else str(default))
