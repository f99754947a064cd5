"""Attention in a forward pass: what it is kept from seeing, and whether queries and keys have the same positions."""

from __future__ import annotations

import ast

BACK, AHEAD, BOTH, OPEN = "looks back", "looks ahead", "looks both ways", "could not be read"
# Arguments of attention that restrict nothing, or only keep documents apart.
_NO_MASK = frozenset(
    {"query", "key", "value", "q", "k", "v", "is_causal", "causal", "enable_gqa", "scale", "softmax_scale", "dropout_p",
    "softcap", "deterministic", "cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen", "max_seqlen_q",
    "max_seqlen_k", "return_attn_probs", "return_lse"}
)  # fmt: skip
SWITCHES = ("is_causal", "causal")
# Whose direction a caller of this function decides.
BY_CALLER = "attention whose direction its callers choose"
# What a query sees then is decided by what stands on the other side: all of the stream, or a part that is past.
UNMASKED = "attention to something else, without a mask"
# What changes how many positions there are, or which one stands where.
_REARRANGE = frozenset(
    {"roll", "cat", "concat", "concatenate", "pad", "gather", "index_select", "take_along_dim", "unfold", "narrow",
    "conv1d", "avg_pool1d", "max_pool1d", "interpolate", "flip", "cumsum", "mean", "sum", "amax", "topk", "sort",
    "masked_select", "take", "scatter", "scatter_add_", "index_add_", "bmm", "matmul", "einsum"}
)  # fmt: skip
# Where one value came from: (function, parameter). Two values with a common one have the same positions.
Origins = frozenset[tuple[int, str]]


class Attention:
    """Mixed into the reader of one function: where its values have their positions from, and what attention sees.

    Attributes:
        origins: name -> parameters whose positions its value has.
        parameters: names of the function's parameters.
        masked: the function makes a triangular mask.
    """

    origins: dict[str, Origins]
    parameters: frozenset[str]
    masked: bool
    under: int

    def note(self, kind: str, node: ast.AST, words: str) -> None:
        """Write down what an operation does."""
        raise NotImplementedError

    def alive(self, node: ast.expr | ast.keyword | ast.comprehension) -> bool:
        """True when a value comes from an activation."""
        raise NotImplementedError

    def function_named(self, name: str) -> ast.FunctionDef | None:
        """A function of the program's own."""
        raise NotImplementedError

    def derive(self, target: ast.expr, found: list[Origins] | Origins, node: ast.stmt) -> None:
        """Names keep the origins of what they are bound to; a value added or chosen under a condition joins them."""
        if isinstance(target, ast.Tuple | ast.List):
            single = isinstance(found, list) and len(found) == len(target.elts)
            for number, part in enumerate(target.elts):
                self.derive(part, found[number] if single else united(found), node)
        elif isinstance(target, ast.Name):
            joins = self.under or isinstance(node, ast.AugAssign)
            before = self.origins.get(target.id, frozenset()) if joins else frozenset()
            self.origins[target.id] = before | united(found)

    def origin(self, node: ast.expr) -> list[Origins] | Origins:
        """Parameters whose positions a value has, one for each part of a tuple.

        Nothing when an operation in between may have moved positions, dropped some or put others beside them.
        """
        if isinstance(node, ast.Tuple | ast.List):
            return [united(self.origin(part)) for part in node.elts]
        found: set[tuple[int, str]] = set()
        return frozenset(found) if self.gathered(node, found) else frozenset()

    def gathered(self, node: ast.AST, found: set[tuple[int, str]]) -> bool:
        """Collect the origins of the activations in an expression; False when positions may have moved."""
        if isinstance(node, ast.expr | ast.keyword | ast.comprehension) and not self.alive(node):
            return True
        if isinstance(node, ast.Name):
            found |= self.origins.get(node.id, frozenset())
        if (isinstance(node, ast.Call) and _rearranges(node)) or (
            isinstance(node, ast.Subscript) and _cuts_positions(node)
        ):
            return False
        return all(self.gathered(part, found) for part in ast.iter_child_nodes(node))

    def defaulted(self, node: ast.Call, function: ast.FunctionDef, given: dict[str, ast.expr]) -> None:
        """A function that passes a switch on to attention and is called without it: its default decides."""
        spec = function.args
        pairs = [*zip(reversed(spec.args), reversed(spec.defaults), strict=False),
                 *zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]  # fmt: skip
        if any(a.arg in SWITCHES and a.arg not in given and d is not None and is_constant(d, True) for a, d in pairs):
            self.note(BACK, node, "causal attention")

    def attention(self, node: ast.Call, name: str) -> None:
        switch = next((k.value for k in node.keywords if k.arg in SWITCHES), None)
        mask = any(
            k.arg not in _NO_MASK and not is_constant(k.value, None) and not _open_window(k) for k in node.keywords
        )
        named = any(isinstance(k.value, ast.Constant) and k.value.value == "causal" for k in node.keywords)
        many = len(node.args) > (7 if "varlen" in name else 3)
        if named or (switch is not None and is_constant(switch, True)):
            self.note(BACK, node, "causal attention")
        elif isinstance(switch, ast.Name) and switch.id in self.parameters and not (mask or many):
            self.note(OPEN, node, BY_CALLER)
        elif mask or many or (switch is not None and not is_constant(switch, False)):
            self.note(BACK if self.masked and mask else OPEN, node, "attention whose mask stands elsewhere")
        elif self.masked or not self.unmasked(node, name):
            self.note(OPEN, node, "attention whose mask stands elsewhere")
        elif self.same_positions(node):
            self.note(BOTH, node, "attention over all positions, earlier and later ones")
        else:
            self.note(OPEN, node, UNMASKED)

    def unmasked(self, node: ast.Call, name: str) -> bool:
        """False for a function of the program's own that does more with the switch than pass it on."""
        function = self.function_named(name) if isinstance(node.func, ast.Name) else None
        if function is None:
            return True
        handed = [k for c in calls(function) for k in c.keywords if k.arg in SWITCHES]
        return bool(handed) and all(isinstance(k.value, ast.Name) and k.value.id in SWITCHES for k in handed)

    def same_positions(self, node: ast.Call) -> bool:
        """True when queries and keys come from one tensor: whatever a position asks, all the others answer."""
        sides = [k.value for names in (("query", "q"), ("key", "k")) for k in node.keywords if k.arg in names]
        sides = [*node.args[:2], *sides][:2]
        if len(sides) < 2:
            return False
        query, key = (united(self.origin(side)) for side in sides)
        return bool(query & key)


def parameters_of(function: ast.FunctionDef) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def own_parameters(method: ast.FunctionDef) -> list[str]:
    """Parameters of a method without its object, whatever that is called."""
    static = any(last_name(d) == "staticmethod" for d in method.decorator_list)
    return parameters_of(method)[0 if static else 1 :]


def united(found: list[Origins] | Origins) -> Origins:
    return frozenset().union(*found) if isinstance(found, list) else found


def _rearranges(node: ast.Call) -> bool:
    """A call that may move positions: along the last axis (rotary embeddings put halves together) it does not."""
    if last_name(node.func) not in _REARRANGE:
        return False
    axis = next((k.value for k in node.keywords if k.arg in ("dim", "axis")), node.args[-1] if node.args else None)
    return number(axis) not in (-1, 3)


def _cuts_positions(node: ast.Subscript) -> bool:
    """A slice with bounds that is not along the last axis behind an ellipsis: some positions may be left out."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if parts and isinstance(parts[0], ast.Constant) and parts[0].value is Ellipsis:
        return False
    return any(isinstance(part, ast.Slice) and (part.lower or part.upper or part.step) for part in parts)


def _open_window(keyword: ast.keyword) -> bool:
    """`window_size=(-1, -1)`: no bound on either side."""
    sides = keyword.value.elts if isinstance(keyword.value, ast.Tuple | ast.List) else []
    return keyword.arg == "window_size" and len(sides) == 2 and all(number(side) == -1 for side in sides)


def calls(node: ast.AST) -> list[ast.Call]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Call)]


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def number(node: ast.expr | None) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None
