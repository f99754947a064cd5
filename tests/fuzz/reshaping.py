"""Other shapes of the same program: helpers split off or put in place, functions in classes, statements in another order.

Every transformation keeps the meaning: where that cannot be seen from the syntax tree, the place is left alone.
"""

from __future__ import annotations

import ast
import builtins
import copy
import random
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef
_SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr)
_COMPOUND = (ast.For, ast.If, ast.With, ast.While)
_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal,
           ast.Raise, ast.Delete, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.NamedExpr,
           ast.Import, ast.ImportFrom, ast.Try)  # fmt: skip
_PURE = frozenset({"int", "float", "str", "bool", "len", "min", "max", "range", "abs", "round", "get"})
_DECIDES = frozenset({"backward", "cross_entropy", "step", "state_dict", "load_state_dict", "bincount"})


def loads(node: ast.AST) -> set[str]:
    """Variables a node reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def stores(node: ast.AST) -> set[str]:
    """Variables a node binds, those of its own comprehensions aside."""
    inner = {
        id(n)
        for c in ast.walk(node)
        if isinstance(c, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
        for g in c.generators
        for n in ast.walk(g.target)
    }
    found = {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in inner
    }
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        found.add(node.target.id)
    return found


def functions(tree: ast.AST) -> list[Function]:
    """Every function definition of a tree."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Statement lists below a node, those of nested functions and classes left out."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
            yield body
            for item in body:
                if not isinstance(item, Function | ast.AsyncFunctionDef | ast.ClassDef):
                    yield from blocks(item)
    for handler in getattr(node, "handlers", ()):
        yield from blocks(handler)


def parameters(node: Function) -> list[str]:
    """Names of all parameters."""
    args = node.args
    rest = [a.arg for a in (args.vararg, args.kwarg) if a is not None]
    return [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)] + rest


# -- a run of statements becomes a function ----------------------------------------------------------------------------


def split_helpers(tree: ast.Module, rng: random.Random, count: int = 6) -> int:
    """Move up to `count` runs of statements into functions of the module; returns how many."""
    candidates = list(_segments(tree, rng))
    rng.shuffle(candidates)
    # What decides a verdict comes first: a helper that scores or updates is harder to see through than one that adds.
    candidates.sort(key=lambda c: not _decides(c[1][c[2] : c[3]]))
    done = 0
    touched: set[int] = set()
    helpers: list[ast.stmt] = []
    for function, body, start, end, given, taken in candidates:
        if done == count:
            break
        if id(function) in touched:
            continue
        touched.add(id(function))
        name = f"part_{rng.randrange(10_000)}_{done}"
        helpers.append(_helper(name, body[start:end], given, taken))
        body[start:end] = [_call_of(name, given, taken)]
        done += 1
    at = next((n for n, s in enumerate(tree.body) if isinstance(s, Function | ast.ClassDef)), len(tree.body))
    tree.body[at:at] = helpers
    ast.fix_missing_locations(tree)
    return done


def _decides(body: Iterable[ast.stmt]) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in _DECIDES for s in body for n in ast.walk(s))


def _segments(
    tree: ast.Module, rng: random.Random
) -> Iterator[tuple[Function, list[ast.stmt], int, int, list[str], list[str]]]:
    """(function, block, start, end, names it needs, names it makes) of runs that can become a function."""
    module = {name for s in tree.body for name in stores(s)}
    around: dict[int, set[str]] = {}
    for function in functions(tree):
        local = set(parameters(function)) | set().union(*(stores(s) for s in function.body), set())
        local |= {n.name for n in ast.walk(function) if n is not function and isinstance(n, Function)}
        for inner_function in functions(function)[1:]:
            around[id(inner_function)] = around.get(id(inner_function), set()) | local
    for function in functions(tree):
        outer = around.get(id(function), set())
        own = set(parameters(function)) | set().union(*(stores(s) for s in function.body), outer)
        nested = [n for n in ast.walk(function) if n is not function and isinstance(n, Function | ast.Lambda)]
        declared = [n for n in ast.walk(function) if isinstance(n, ast.Global | ast.Nonlocal)]
        captured = set().union(*(loads(n) for n in nested), *(n.names for n in declared))
        inner = {n.name for n in nested if isinstance(n, Function)}
        for body in blocks(function):
            for start in range(len(body)):
                for end in {min(start + rng.randint(2, 6), len(body)) for _ in range(2)} - {start, start + 1}:
                    found = _interface(function, body, start, end, own | inner, captured | (module & own), outer)
                    if found is not None:
                        yield function, body, start, end, *found


def _interface(
    function: Function, body: list[ast.stmt], start: int, end: int, own: set[str], captured: set[str], outer: set[str]
) -> tuple[list[str], list[str]] | None:
    segment = body[start:end]
    if not all(isinstance(s, _SIMPLE + _COMPOUND) for s in segment):
        return None
    if any(isinstance(n, _LEAVES) for s in segment for n in ast.walk(s)):
        return None
    if any(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in segment):
        return None
    made = set().union(*(stores(s) for s in segment))
    read = set().union(*(loads(s) for s in segment))
    if "super" in read or made & captured:
        return None
    certain: set[str] = set()
    needed: set[str] = set()
    for statement in segment:
        fresh = loads(statement) | (stores(statement) if isinstance(statement, (ast.AugAssign, *_COMPOUND)) else set())
        needed |= (fresh & own) - certain
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            certain |= stores(statement)
    needed = {name for name in needed if not (name in made and _only_inside(name, segment))}
    before = outer | set(parameters(function)) | _bound_before(function, body, start)
    if not needed <= before:
        return None
    later = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    here = [n.id for s in segment for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    outside = {name for name in made if later.count(name) > here.count(name)}
    in_loop = made & needed
    given_back = sorted(outside | in_loop)
    if not set(given_back) <= certain | needed:
        return None
    return sorted(needed), given_back


def _only_inside(name: str, segment: list[ast.stmt]) -> bool:
    """The name is bound at the start of one compound statement, as its loop variable or in its first statement."""
    for statement in segment:
        if name in loads(statement) | stores(statement):
            if isinstance(statement, ast.For) and name in stores(statement.target):
                return name not in loads(statement.iter)
            if not isinstance(statement, ast.For | ast.With):
                return False
            if name in (loads(statement.iter) if isinstance(statement, ast.For) else set()):
                return False
            for inner in statement.body:
                if name in loads(inner) or isinstance(inner, (ast.AugAssign, *_COMPOUND)):
                    if name in loads(inner) | stores(inner):
                        return False
                if name in stores(inner):
                    return True
            return False
    return False


def _bound_before(function: Function, body: list[ast.stmt], start: int) -> set[str]:
    """Variables certainly bound when `body[start]` runs: on the way there, not inside branches beside it."""
    found: set[str] = set()

    def walk(items: list[ast.stmt]) -> bool:
        for number, item in enumerate(items):
            if items is body and number == start:
                return True
            if isinstance(item, Function | ast.ClassDef):
                found.add(item.name)
                continue
            if isinstance(item, ast.Assign | ast.AnnAssign | ast.AugAssign):
                found.update(stores(item))
                continue
            known = set(found)
            if isinstance(item, ast.For):
                found.update(stores(item.target))
            if isinstance(item, ast.With):
                found.update(name for i in item.items if i.optional_vars for name in stores(i.optional_vars))
            for name in ("body", "orelse", "finalbody"):
                if walk(getattr(item, name, None) or []):
                    return True
            if any(walk(handler.body) for handler in getattr(item, "handlers", ())):
                return True
            if not isinstance(item, ast.With):
                found.clear()
                found.update(known)
        return False

    walk(function.body)
    return found


def _helper(name: str, body: list[ast.stmt], given: list[str], taken: list[str]) -> Function:
    args = ast.arguments(posonlyargs=[], args=[ast.arg(n) for n in given], kwonlyargs=[], kw_defaults=[], defaults=[])
    result = [ast.Return(_together(taken, ast.Load()))] if taken else []
    return Function(name=name, args=args, body=[*body, *result], decorator_list=[], type_params=[])


def _call_of(name: str, given: list[str], taken: list[str]) -> ast.stmt:
    call = ast.Call(ast.Name(name, ast.Load()), [ast.Name(n, ast.Load()) for n in given], [])
    return ast.Assign([_together(taken, ast.Store())], call, lineno=0) if taken else ast.Expr(call)


def _together(names: list[str], context: ast.expr_context) -> ast.expr:
    items: list[ast.expr] = [ast.Name(n, context) for n in names]
    return items[0] if len(items) == 1 else ast.Tuple(items, context)


# -- a function becomes part of its caller -----------------------------------------------------------------------------


def inline_helpers(tree: ast.Module, rng: random.Random, count: int = 4) -> int:
    """Put the bodies of up to `count` small functions where they are called as a statement; returns how many calls."""
    small = {f.name: f for f in tree.body if isinstance(f, Function) and _inlinable(f)}
    names = [n.name for n in ast.walk(tree) if isinstance(n, Function | ast.ClassDef)]
    small = {name: f for name, f in small.items() if names.count(name) == 1}
    chosen = set(rng.sample(sorted(small), min(count, len(small))))
    done = 0
    for function in functions(tree):
        own = set(parameters(function)) | set().union(*(stores(s) for s in function.body), set())
        for body in list(blocks(function)):
            for number in range(len(body) - 1, -1, -1):
                call = _called(body[number], chosen)
                if call is None or small[call.func.id] is function:  # type: ignore[attr-defined]
                    continue
                helper = small[call.func.id]  # type: ignore[attr-defined]
                free = set().union(*(loads(s) for s in helper.body)) - set(parameters(helper))
                if free & own or any(name in own for name in (helper.name,)):
                    continue
                body[number : number + 1] = _expanded(helper, call, body[number], f"_{done}")
                done += 1
    ast.fix_missing_locations(tree)
    return done


def _inlinable(node: Function) -> bool:
    """One return, at the end; nothing that depends on being a function of its own."""
    args = node.args
    if node.decorator_list or args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs or len(node.body) > 12:
        return False
    bad = (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, Function, ast.Lambda, ast.Import,
           ast.ImportFrom)  # fmt: skip
    inner = [n for s in node.body for n in ast.walk(s)]
    returns = [n for n in inner if isinstance(n, ast.Return)]
    if any(isinstance(n, bad) for n in inner) or len(returns) > 1:
        return False
    calls_itself = any(isinstance(n, ast.Name) and n.id == node.name for n in inner)
    return not calls_itself and (not returns or node.body[-1] is returns[0])


def _called(statement: ast.stmt, chosen: set[str]) -> ast.Call | None:
    value = statement.value if isinstance(statement, ast.Assign | ast.Expr) else None
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name) or value.func.id not in chosen:
        return None
    plain = not any(isinstance(a, ast.Starred) for a in value.args) and all(k.arg for k in value.keywords)
    return value if plain else None


def _expanded(helper: Function, call: ast.Call, statement: ast.stmt, tail: str) -> list[ast.stmt]:
    names = [a.arg for a in helper.args.args]
    given: dict[str, ast.expr] = dict(zip(names, call.args, strict=False))
    given |= {k.arg: k.value for k in call.keywords if k.arg}
    defaults = dict(zip(reversed(names), reversed(helper.args.defaults), strict=False))
    body = [copy.deepcopy(s) for s in helper.body]
    local = set(names) | set().union(*(stores(s) for s in body))
    out: list[ast.stmt] = [
        ast.Assign([ast.Name(name + tail, ast.Store())], given.get(name) or copy.deepcopy(defaults[name]), lineno=0)
        for name in names
    ]
    for item in body:
        for node in ast.walk(item):
            if isinstance(node, ast.Name) and node.id in local:
                node.id += tail
        if not isinstance(item, ast.Return):
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
                out.append(item)
        elif isinstance(statement, ast.Assign):
            out.append(ast.Assign(statement.targets, item.value or ast.Constant(None), lineno=0))
        elif item.value is not None:
            out.append(ast.Expr(item.value))
    if isinstance(statement, ast.Assign) and not any(isinstance(s, ast.Return) for s in body):
        out.append(ast.Assign(statement.targets, ast.Constant(None), lineno=0))
    return out


# -- functions become classes ------------------------------------------------------------------------------------------


def wrap_in_classes(tree: ast.Module, rng: random.Random, share: float = 0.6) -> int:
    """Turn functions that are only ever called into classes; returns how many.

    One half becomes a static method, the other an object that takes the arguments and does the work in a method.
    """
    called = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    named = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    defined = [n.name for n in ast.walk(tree) if isinstance(n, Function | ast.ClassDef)]
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    objects: set[str] = set()
    statics: set[str] = set()
    for number, node in enumerate(tree.body):
        if not isinstance(node, Function) or rng.random() > share or node.name in strings:
            continue
        once = defined.count(node.name) == 1 and called.count(node.name) == named.count(node.name)
        plain = not (node.args.vararg or node.args.kwarg or node.args.posonlyargs or node.args.kwonlyargs)
        if not once or any(isinstance(n, ast.Global) for n in ast.walk(node)):
            continue
        if rng.random() < 0.5 and plain and not node.decorator_list:
            tree.body[number] = _object_of(node)
            objects.add(node.name)
        else:
            tree.body[number] = _static_of(node)
            statics.add(node.name)
    _Calls(objects, statics).visit(tree)
    ast.fix_missing_locations(tree)
    return len(objects) + len(statics)


def _static_of(node: Function) -> ast.ClassDef:
    node.decorator_list = [ast.Name("staticmethod", ast.Load()), *node.decorator_list]
    return ast.ClassDef(
        name=f"Holds_{node.name}", bases=[], keywords=[], body=[node], decorator_list=[], type_params=[]
    )


def _object_of(node: Function) -> ast.ClassDef:
    names = [a.arg for a in node.args.args]
    me = "self" if "self" not in names else "this"
    args = copy.deepcopy(node.args)
    args.args.insert(0, ast.arg(me))
    for arg in args.args:
        arg.annotation = None
    keep: list[ast.stmt] = [
        ast.Assign([ast.Attribute(ast.Name(me, ast.Load()), n, ast.Store())], ast.Name(n, ast.Load()), lineno=0)
        for n in names
    ]
    fetch: list[ast.stmt] = [
        ast.Assign([ast.Name(n, ast.Store())], ast.Attribute(ast.Name(me, ast.Load()), n, ast.Load()), lineno=0)
        for n in names
    ]
    alone = ast.arguments(posonlyargs=[], args=[ast.arg(me)], kwonlyargs=[], kw_defaults=[], defaults=[])
    start = Function(name="__init__", args=args, body=keep or [ast.Pass()], decorator_list=[], type_params=[])
    work = Function(name=node.name, args=alone, body=[*fetch, *node.body], decorator_list=[], type_params=[])
    return ast.ClassDef(
        name=f"Does_{node.name}", bases=[], keywords=[], body=[start, work], decorator_list=[], type_params=[]
    )


class _Calls(ast.NodeTransformer):
    def __init__(self, objects: set[str], statics: set[str]) -> None:
        self.objects, self.statics = objects, statics

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "id", "")
        if name in self.objects:
            made = ast.Call(ast.Name(f"Does_{name}", ast.Load()), node.args, node.keywords)
            return ast.Call(ast.Attribute(made, name, ast.Load()), [], [])
        if name in self.statics:
            node.func = ast.Attribute(ast.Name(f"Holds_{name}", ast.Load()), name, ast.Load())
        return node


# -- statements in another order ---------------------------------------------------------------------------------------


def reorder(tree: ast.Module, rng: random.Random, rounds: int = 3) -> int:
    """Exchange neighbouring statements that do not depend on each other; returns how many exchanges were made."""
    done = 0
    for _ in range(rounds):
        for body in _all_blocks(tree):
            for number in range(len(body) - 1):
                if rng.random() < 0.5 and _independent(body[number], body[number + 1]):
                    body[number], body[number + 1] = body[number + 1], body[number]
                    done += 1
    return done


def _all_blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    yield from blocks(tree)
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield from blocks(node)


def _independent(one: ast.stmt, two: ast.stmt) -> bool:
    """Exchanging the two changes nothing: definitions, and assignments to different names without side effects."""
    if isinstance(one, Function) and isinstance(two, Function):
        harmless = not one.decorator_list and not two.decorator_list
        eager = set().union(*(loads(d) for f in (one, two) for d in _eager(f)), set())
        return harmless and one.name != two.name and not {one.name, two.name} & eager
    if not (isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(two, ast.Assign | ast.AnnAssign)):
        return False
    for item in (one, two):
        targets = item.targets if isinstance(item, ast.Assign) else [item.target]
        if item.value is None or not all(isinstance(n, ast.Name | ast.Tuple) for n in targets):
            return False
    if not (_quiet(one) and _quiet(two)):
        return False
    return not (stores(one) & (stores(two) | loads(two)) or stores(two) & loads(one))


def _eager(node: Function) -> list[ast.expr]:
    found = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
    return found + [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg) and a.annotation is not None]


def _quiet(node: ast.AST) -> bool:
    """No call but of functions known to change nothing, and no walrus."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if name not in _PURE or (name != "get" and isinstance(inner.func, ast.Attribute)):
                return False
        elif isinstance(inner, ast.NamedExpr | ast.Yield | ast.Await):
            return False
    return True


def own_names(tree: ast.Module) -> set[str]:
    """Names the module binds at its top level, builtins aside."""
    return {name for s in tree.body for name in stores(s)} - set(dir(builtins))
