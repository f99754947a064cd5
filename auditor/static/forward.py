"""Reads one function of a forward pass after the other: which operations mix positions, and in which direction.

Values that come from the function's arguments are activations; what comes only from attributes of `self` and constants
is not (weights may be reduced over any axis). The second axis of an activation is the position.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from auditor.static.attention import (
    AHEAD,
    BACK,
    BOTH,
    BY_CALLER,
    OPEN,
    SWITCHES,
    Attention,
    Origins,
    calls,
    last_name,
    number,
    own_parameters,
    parameters_of,
    united,
)
from auditor.static.convolution import TWO_SIDED, two_sided

# One position in, one position out (or only shapes and types).
_ALONE = frozenset(
    {"reshape", "view", "to", "float", "size", "tanh", "linear", "rms_norm", "isinstance", "arange", "sin", "cos",
    "outer", "range", "append", "square", "getattr", "sigmoid", "sqrt", "unsqueeze", "leaky_relu", "mul_", "detach",
    "enumerate", "long", "int", "half", "bfloat16", "double", "bitwise_xor", "bitwise_and", "empty_like",
    "zeros_like", "ones_like", "empty", "zeros", "ones", "full", "full_like", "clamp", "len", "abs", "clamp_min",
    "clamp_max", "round", "new_zeros", "new_ones", "contiguous", "relu", "lerp", "floor", "ceil",
    "repeat_interleave", "expand", "expand_as", "squeeze", "type_as", "type", "where", "silu", "gelu", "dropout",
    "embedding", "layer_norm", "exp", "log", "log1p", "expm1", "pow", "rsqrt", "neg", "add", "mul", "sub", "div",
    "add_", "sub_", "div_", "stack", "chunk", "split", "unbind", "hasattr", "item", "numel", "any", "all", "zip",
    "list", "tuple", "max_seq_len", "dim", "bool", "min", "max", "float16", "is_floating_point", "masked_fill",
    "sign", "erf", "softplus", "hardtanh", "elu", "relu6", "mish", "clone", "flatten", "unflatten", "values",
    "keys", "items", "get", "copy_", "cpu", "cuda", "tensor", "as_tensor", "device", "is_cuda", "is_compiling",
    "checkpoint", "record_function", "autocast", "no_grad", "next", "iter", "reversed", "sorted", "set", "dict",
    "str", "print", "RuntimeError", "ValueError", "AssertionError", "NotImplementedError", "TypeError", "isfinite",
    "nan_to_num", "rfloordiv", "remainder", "fmod", "eq", "ne", "lt", "gt", "le", "ge", "logical_and", "logical_or",
    "logical_not", "one_hot", "pop", "setattr", "super", "broadcast_to", "zero_", "uniform_", "normal_",
    "new_empty", "new_full", "view_as", "reciprocal", "tril", "triu", "is_grad_enabled", "requires_grad_", "t",
    "softcap", "data_ptr", "stride", "element_size", "numpy", "element", "clamp_", "polar", "view_as_complex",
    "view_as_real", "meshgrid", "bitwise_or", "bitwise_left_shift", "nelement", "index", "register_hook", "dtype", "enable_grad",
    "inference_mode", "hex", "id", "callable", "divmod"}
)  # fmt: skip
_REDUCE = frozenset(
    {"sum", "mean", "amax", "amin", "std", "var", "norm", "softmax", "log_softmax", "logsumexp", "prod", "normalize",
    "argmax", "argmin", "cummax", "topk", "sort", "argsort", "quantile", "median"}
)  # fmt: skip
_LOSS = frozenset({"cross_entropy", "nll_loss", "softcapped_cross_entropy", "smooth_l1_loss", "mse_loss"})
_LAST = (-1, 3)
_MASKS = frozenset({"tril", "triu", "tril_indices", "triu_indices", "create_block_mask"})
_PARTS_ALONE = frozenset(
    {"Linear", "Embedding", "RMSNorm", "LayerNorm", "Dropout", "ModuleList", "ModuleDict", "ParameterList",
    "ParameterDict", "Parameter", "Identity", "Sequential", "GELU", "SiLU", "ReLU", "Sigmoid", "Tanh", "LeakyReLU",
    "Softplus", "Bilinear", "EmbeddingBag", "Buffer"}
)  # fmt: skip
_LIBRARIES = frozenset({"torch", "F", "nn", "math", "functional", "np", "dist"})


@dataclass
class Program:
    """What the forward pass is made of: classes of live modules, functions and methods by name."""

    classes: list[tuple[str, ast.ClassDef]] = field(default_factory=list)
    functions: dict[str, tuple[str, ast.FunctionDef]] = field(default_factory=dict)
    methods: dict[str, list[tuple[str, ast.FunctionDef]]] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Note:
    """One operation that mixes positions or could not be read, with its line."""

    kind: str
    path: str
    line: int
    words: str


class Reader:
    """Collects notes over all functions it is handed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.notes: list[Note] = []
        self.seen: set[tuple[int, frozenset[str], frozenset[tuple[str, str]]]] = set()

    def read(
        self,
        path: str,
        function: ast.FunctionDef,
        activations: frozenset[str] | None,
        origins: dict[str, Origins] | None = None,
    ) -> None:
        """Read a function whose parameters `activations` come from tokens (None: a method, all but its object).

        `origins` says where the caller has them from: parameters with a common origin have the same positions.
        """
        live = frozenset(own_parameters(function)) if activations is None else activations
        given = {name: found for name, found in (origins or {}).items() if found and name in live}
        alike = frozenset((a, b) for a in given for b in given if a < b and given[a] & given[b])
        key = (id(function), live, alike)
        if key in self.seen or len(self.seen) > 300:
            return
        self.seen.add(key)
        _Body(self, path, function, set(live), given).walk()

    def built(self, path: str, node: ast.ClassDef) -> None:
        """Parts that a module makes for itself: recurrent ones look back, unknown ones stay open."""
        local = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for call in calls(node):
            name = last_name(call.func)
            if isinstance(call.func, ast.Name) and name in local:
                continue
            if not name[:1].isupper() or name in _PARTS_ALONE or name in self.program.defined | self.program.parts:
                continue
            if name in ("LSTM", "GRU", "RNN") and not any(k.arg == "bidirectional" for k in call.keywords):
                self.note(BACK, path, call.lineno, "a recurrent layer in one direction")
            elif name == "Conv1d" and two_sided(node, call):
                self.note(OPEN, path, call.lineno, TWO_SIDED)
            elif not name.endswith(("Error", "Exception", "Warning")):
                self.note(OPEN, path, call.lineno, f"`{name}` is a part that was not read")

    def note(self, kind: str, path: str, line: int, words: str) -> None:
        """Add a note once."""
        found = Note(kind, path, line, words)
        if found not in self.notes:
            self.notes.append(found)


class _Body(Attention):
    """One function: names that hold activations, and the notes of its statements."""

    def __init__(
        self, reader: Reader, path: str, function: ast.FunctionDef, live: set[str], given: dict[str, Origins]
    ) -> None:
        self.reader, self.path, self.function, self.live = reader, path, function, live
        self.under = 0
        self.into: frozenset[str] | None = None
        self.parameters = frozenset(parameters_of(function))
        self.origins: dict[str, Origins] = {n: given.get(n, frozenset({(id(function), n)})) for n in live}
        self.local = {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
        self.local |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        used = {n.attr if isinstance(n, ast.Attribute) else n.id for n in ast.walk(function)
                if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip
        self.masked = bool(used & _MASKS)
        self.rows = any(last_name(c.func) in ("reshape", "view") and len(c.args) >= 4 for c in calls(function))

    def note(self, kind: str, node: ast.AST, words: str) -> None:
        """A note; what stands under a condition, or in a value whose use is not plain, is never sure to look ahead."""
        if kind == AHEAD and self.under:
            kind, words = OPEN, f"{words}, under a condition"
        elif kind == AHEAD and self.into is not None and not self.into & _names(node):
            kind, words = OPEN, f"{words}; whether that reaches a score was not followed"
        self.reader.note(kind, self.path, getattr(node, "lineno", self.function.lineno), words)

    def function_named(self, name: str) -> ast.FunctionDef | None:
        """A function of the program's own."""
        return self.reader.program.functions[name][1] if name in self.reader.program.functions else None

    # -- statements ------------------------------------------------------------------------------------------------

    def walk(self) -> None:
        for statement in self.function.body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If):
            self.branch(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.note(OPEN, node, "a function within the forward pass")
        elif isinstance(node, ast.For | ast.While | ast.With | ast.Try):
            if isinstance(node, ast.For):
                self.expression(node.iter)
                self.bind(node.target, self.alive(node.iter))
            for part in [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]:
                self.statement(part)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            if node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                # A stream that takes its own later positions in carries them on; a length computed from them may not.
                self.into = frozenset(name for target in targets for name in _names(target))
                self.expression(node.value)
                found = self.origin(node.value)
                for target in targets:
                    self.stored(target, node.value)
                    self.bind(target, self.alive(node.value))
                    self.derive(target, found, node)
                self.into = None
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.expression(child)

    def branch(self, node: ast.If) -> None:
        """Both sides of a condition; what only training does is left out."""
        training, negated = _asks_training(node.test)
        self.expression(node.test)
        self.under += 1
        for part in node.body if not training or negated else []:
            self.statement(part)
        for part in node.orelse if not (training and negated) else []:
            self.statement(part)
        self.under -= 1

    def bind(self, target: ast.expr, alive: bool) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and alive:
                self.live.add(node.id)

    def stored(self, target: ast.expr, value: ast.expr) -> None:
        """`out[:, a:] = f(x[:, b:])`: with b beyond a, position t takes from t + b - a."""
        if not isinstance(target, ast.Subscript) or (start := _start(target)) is None:
            return
        for part in ast.walk(value):
            if isinstance(part, ast.Subscript) and (begin := _start(part)) is not None and begin > start:
                self.note(AHEAD, target, "later positions are written to earlier ones")

    # -- expressions -----------------------------------------------------------------------------------------------

    def alive(self, node: ast.expr | ast.keyword | ast.comprehension) -> bool:
        """True when a value comes from an activation: losses, shapes and comparisons of settings do not."""
        if isinstance(node, ast.Call) and last_name(node.func) in _LOSS | {
            "size",
            "numel",
            "len",
            "dim",
            "range",
            "arange",
        }:
            return False
        if isinstance(node, ast.Attribute) and node.attr in ("shape", "device", "dtype", "ndim"):
            return False
        if isinstance(node, ast.Name):
            return node.id in self.live
        if isinstance(node, ast.keyword):
            return self.alive(node.value)
        if isinstance(node, ast.comprehension):
            return self.alive(node.iter)
        inner = (ast.expr, ast.keyword, ast.comprehension)
        return any(self.alive(child) for child in ast.iter_child_nodes(node) if isinstance(child, inner))

    def expression(self, node: ast.expr) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                self.call(part)
            elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult):
                self.product(part, part.left, part.right)
            elif isinstance(part, ast.Lambda):
                self.note(OPEN, part, "a function within the forward pass")

    def product(self, node: ast.expr, left: ast.expr, right: ast.expr) -> None:
        """A product of two activations mixes positions, unless one of them is a weight."""
        if not (self.alive(left) and self.alive(right)):
            return
        if self.masked:
            self.note(BACK, node, "a product of activations under a triangular mask")
        else:
            self.note(OPEN, node, "a product of two activations without a mask that could be read")

    def call(self, node: ast.Call) -> None:
        name = last_name(node.func)
        values = [*node.args, *(k.value for k in node.keywords)]
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        method = receiver is not None and not (isinstance(receiver, ast.Name) and receiver.id in _LIBRARIES)
        active = any(self.alive(v) for v in values) or (method and receiver is not None and self.alive(receiver))
        if not active or name in _LOSS or not name:
            return
        asked = any(k.arg in SWITCHES for k in node.keywords)
        if asked or name == "scaled_dot_product_attention" or name.startswith(("flash_attn", "_flash_attn")):
            self.attention(node, name)
        elif name in ("flex_attention",):
            self.note(OPEN, node, "attention with a mask given as a function")
        elif name in (
            "roll",
            "cat",
            "concat",
            "concatenate",
            "pad",
            "cumsum",
            "gather",
            "transpose",
            "permute",
            "swapaxes",
        ):
            getattr(self, f"_{'cat' if name.startswith('con') else 'transpose' if name == 'swapaxes' else name}")(node)
        elif name in _REDUCE:
            self.reduction(node, name, method)
        elif name in ("matmul", "bmm", "einsum", "mm", "baddbmm"):
            given = [v for v in ([receiver] if method and receiver is not None else []) + list(node.args)]
            tensors = [v for v in given if self.alive(v)]
            if len(tensors) > 1:
                self.product(node, tensors[0], tensors[1])
        elif name not in _ALONE:
            self.named(node, name, receiver)

    def named(self, node: ast.Call, name: str, receiver: ast.expr | None) -> None:
        """A call of the program's own: a function, a method, a part of the model; anything else is open."""
        program = self.reader.program
        if receiver is None and name in program.functions:
            path, function = program.functions[name]
            given = self.given(node, [a.arg for a in function.args.args])
            live = {name for name, value in given.items() if self.alive(value)}
            self.defaulted(node, function, given)
            self.reader.read(path, function, frozenset(live), {n: united(self.origin(given[n])) for n in live})
        elif receiver is not None and name in program.methods:
            for path, function in program.methods[name]:
                given = self.given(node, own_parameters(function))
                self.reader.read(path, function, None, {n: united(self.origin(v)) for n, v in given.items()})
        elif not (name in program.parts or (receiver is None and name in self.local)):
            self.note(OPEN, node, f"`{name}` is not known to work on each position alone")

    def given(self, node: ast.Call, params: list[str]) -> dict[str, ast.expr]:
        """Parameter -> what a call hands over for it."""
        named = {k.arg: k.value for k in node.keywords if k.arg}
        return {**dict(zip(params, node.args, strict=False)), **named}

    def reduction(self, node: ast.Call, name: str, method: bool) -> None:
        """A reduction along the last axis works on each position alone."""
        value = node.func.value if method else (node.args[0] if node.args else None)
        if value is not None and not self.alive(value):
            return
        given = next((k.value for k in node.keywords if k.arg in ("dim", "axis")), None)
        place = {"normalize": 2, "topk": 1, "norm": 1, "quantile": 1}.get(name, 0) + (0 if method else 1)
        if given is None and len(node.args) > place:
            given = node.args[place]
        if given is None and name == "topk":
            return
        if given is None or number(given) not in _LAST:
            self.note(OPEN, node, f"`{name}` along an axis that may be the positions")

    # -- operations that shift -------------------------------------------------------------------------------------

    def _roll(self, node: ast.Call) -> None:
        function = isinstance(node.func, ast.Attribute) and last_name(node.func.value) in _LIBRARIES
        values = node.args[1:] if function else node.args
        keywords = {k.arg: k.value for k in node.keywords}
        shift = number(keywords.get("shifts", values[0] if values else None))
        axis = number(keywords.get("dims", values[-1] if len(values) > 1 else None))
        if shift is not None and shift > 0:
            self.note(BACK, node, "a shift that looks back")
        elif shift is not None and shift < 0 and axis == 1:
            self.note(AHEAD, node, "a shift that brings later positions forward")
        else:
            self.note(OPEN, node, "a shift whose direction could not be read")

    def _cat(self, node: ast.Call) -> None:
        """`cat([x[:, :1], x[:, 1:] + x[:, :-1]], dim=1)`: nothing may begin later than the place it is put."""
        parts = node.args[0] if node.args else None
        if not isinstance(parts, ast.List | ast.Tuple):
            return
        first = parts.elts[0] if parts.elts else None
        if first is not None and isinstance(first, ast.Subscript) and (_start(first) or 0) > 0 and not _stop(first):
            self.note(AHEAD, node, "later positions are put before their place")

    def _pad(self, node: ast.Call) -> None:
        value = node.args[0] if node.args else None
        sides = node.args[1] if len(node.args) > 1 else None
        begins = _start(value) if isinstance(value, ast.Subscript) else 0
        if isinstance(sides, ast.Tuple | ast.List) and len(sides.elts) in (2, 4) and number(sides.elts[-1]) == 0:
            self.note(BACK, node, "padding in front")
        elif begins and isinstance(sides, ast.Tuple | ast.List) and len(sides.elts) == 4 and number(sides.elts[-1]):
            self.note(AHEAD, node, "later positions are put before their place")
        else:
            self.note(OPEN, node, "padding whose side could not be read")

    def _cumsum(self, node: ast.Call) -> None:
        self.note(BACK, node, "a sum over what precedes")

    def _gather(self, node: ast.Call) -> None:
        axis = next((k.value for k in node.keywords if k.arg == "dim"), node.args[-2] if len(node.args) > 1 else None)
        if number(axis) not in (-1, 2):
            self.note(OPEN, node, "values picked along an axis that may be the positions")

    def _transpose(self, node: ast.Call) -> None:
        """Heads change places with positions in four axes; in three, positions become the last axis."""
        axes = {number(a) for a in node.args[-2:]}
        if not self.rows or axes not in ({1, 2}, {-2, -1}, {2, 3}, {-3, -2}):
            self.note(OPEN, node, "an exchange of axes")

    def _permute(self, node: ast.Call) -> None:
        axes = [number(a) for a in node.args]
        if not self.rows or len(axes) < 4 or axes[-1] not in (-1, len(axes) - 1):
            self.note(OPEN, node, "an exchange of axes")


def _asks_training(test: ast.expr) -> tuple[bool, bool]:
    """Whether a condition can only hold in training, and whether it is the opposite (`not self.training`)."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        asks, negated = _asks_training(test.operand)
        return asks, not negated
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(_asks_training(v) == (True, False) for v in test.values), False
    return isinstance(test, ast.Attribute) and test.attr == "training", False


def _slice(node: ast.Subscript) -> ast.Slice | None:
    """The slice along positions: second of `[:, a:b]`, last of `[..., a:b]`."""
    index = node.slice
    if not isinstance(index, ast.Tuple) or len(index.elts) < 2 or not isinstance(index.elts[1], ast.Slice):
        return None
    front = index.elts[0]
    whole = isinstance(front, ast.Slice) and front.lower is None and front.upper is None
    ellipsis = isinstance(front, ast.Constant) and front.value is Ellipsis
    return index.elts[1] if (whole or ellipsis) and index.elts[1].step is None else None


def _start(node: ast.Subscript) -> int | None:
    """First position of a slice along positions, None for any other subscript or an unknown one."""
    part = _slice(node)
    if part is None:
        return None
    return 0 if part.lower is None else number(part.lower)


def _stop(node: ast.Subscript) -> ast.expr | None:
    part = _slice(node)
    return part.upper if part is not None else None


def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


__all__ = ["AHEAD", "BACK", "BOTH", "BY_CALLER", "OPEN", "Note", "Program", "Reader"]
