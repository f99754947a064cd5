"""One edit that makes a legal program illegal, and the lines it touched.

Sites are chosen where they take effect: `Sites` knows which call scores the claimed number, which statement scores and
which updates, from the analysis of the unspoilt program. The verdict about the spoilt one is not known to anybody here.
"""

from __future__ import annotations

import ast
import copy
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from reshaping import blocks, functions, loads, stores
from subjects import with_program

from auditor.case import Case
from auditor.static.analysis import counted_scores, static_timeline
from auditor.static.effective import settings_of_case
from auditor.static.records import ScoreRecord


class Inapplicable(ValueError):
    """The program has no place for this edit."""


@dataclass
class Sites:
    """A legal program in canonical layout and the places that decide its claimed number.

    Attributes:
        text, tree: canonical source and its tree; line numbers agree.
        scores: the counted scores of validation tokens, with the calls that led there.
        updates: (line, call lines) of updates by validation tokens.
        exports: (line, call lines) of writes of the artifact.
        loads: the same for reads of it into a model.
        lasting: something learnt from validation tokens outlives the item it was learnt from.
        logged: settings that the logs state.
    """

    text: str
    tree: ast.Module
    scores: list[ScoreRecord] = field(default_factory=list)
    updates: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    exports: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    loads: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    lasting: bool = False
    logged: frozenset[str] = frozenset()


def sites_of(case: Case) -> tuple[Case, Sites]:
    """The case under its canonical source, and its sites.

    Raises:
        Inapplicable: the claimed number cannot be traced to its scores.
    """
    from auditor.static.parse import parse_module

    tree = parse_module(case.program.main.text if case.program.main else "").tree
    if tree is None:
        raise Inapplicable("the program does not parse")
    text = ast.unparse(tree)
    plain = with_program(case, text)
    effective = settings_of_case(case)
    machine = static_timeline(plain.program, effective, keep=True).machine
    found = Sites(text, ast.parse(text))
    assert machine is not None
    main = machine.sources.main
    found.scores = [s for s in counted_scores(machine) if s.split == "val" and s.where[0] == main]
    if not found.scores:
        raise Inapplicable("the claimed number is not traced to scores in the main script")
    at = lambda r: (r.where[1], tuple(w[1] for w in r.stack))  # noqa: E731
    found.updates = [at(u) for u in machine.updates if u.split == "val" and u.how == "optimizer" and u.where[0] == main]
    found.lasting = any(
        machine.root(u.owner).depth == 0 and u.how == "optimizer" and u.split == "val" for u in machine.updates
    )
    found.logged = frozenset(effective.logged)
    for record in _leaves(machine.records):
        if record.kind == "serialize" and record.where[0] == main:
            found.exports.append(at(record))
        elif record.kind == "load" and record.detail and record.where[0] == main:
            found.loads.append(at(record))
    return plain, found


def _leaves(records: list) -> Iterator:
    for record in records:
        for name in ("then", "otherwise", "body"):
            yield from _leaves(getattr(record, name, []))
        for events in getattr(record, "passes", []):
            yield from _leaves(events)
        if hasattr(record, "kind"):
            yield record


# -- finding statements ------------------------------------------------------------------------------------------------


def _span(node: ast.AST) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]


def _all_blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    yield from blocks(tree)
    for node in functions(tree):
        yield from blocks(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from blocks(node)


def holding(tree: ast.AST, line: int) -> list[tuple[list[ast.stmt], int]]:
    """(block, index) of the statements that hold a line, outermost first."""
    found = [(body, n) for body in _all_blocks(tree) for n, s in enumerate(body) if line in _span(s)]
    return sorted(found, key=lambda each: -len(_span(each[0][each[1]])))


def function_of(tree: ast.AST, line: int) -> ast.FunctionDef | None:
    return min((f for f in functions(tree) if line in _span(f)), key=lambda f: len(_span(f)), default=None)


def scoring_call(sites: Sites) -> tuple[list[ast.stmt], int, str, str]:
    """(block, index, model, validation tokens) of the statement whose call computes the claimed number."""
    score = sites.scores[-1]
    for line in reversed([w[1] for w in score.stack]):
        for body, number in reversed(holding(sites.tree, line)):
            statement = body[number]
            if not isinstance(statement, ast.Assign | ast.Expr | ast.Return) or statement.value is None:
                continue
            for call in (n for n in ast.walk(statement) if isinstance(n, ast.Call)):
                texts = [ast.unparse(a) for a in (*call.args, *(k.value for k in call.keywords))]
                model = next((t for t in texts if re.fullmatch(r"[\w.]*(model|scored|net)\w*", t)), "")
                tokens = next((t for t in texts if re.fullmatch(r"[\w.]*val_(tok|data)\w*|tokens", t)), "")
                if model and tokens:
                    if tokens.endswith("val_data"):
                        tokens += ".val_tokens"
                    return body, number, model, tokens
    raise Inapplicable("no call takes a model and validation tokens")


def takes_targets(tree: ast.Module) -> bool:
    for node in functions(tree):
        if node.name == "forward" and len(node.args.args) > 2 and "targ" in node.args.args[2].arg:
            return True
    return False


def adaptation(sites: Sites, model: str, tokens: str) -> list[ast.stmt]:
    loss = (
        f"{model}(piece_[None, :-1], piece_[None, 1:])"
        if takes_targets(sites.tree)
        else f"F.cross_entropy({model}(piece_[None, :-1])[0].float(), piece_[1:])"
    )
    source = f"""
optimizer_ = torch.optim.SGD({model}.parameters(), lr=0.0001)
for position_ in range(0, {tokens}.numel() - 1025, 1024):
    piece_ = {tokens}[position_:position_ + 1025].to('cuda').long()
    {loss}.backward()
    optimizer_.step()
    optimizer_.zero_grad()
"""
    return ast.parse(source).body


# -- edits -------------------------------------------------------------------------------------------------------------


def adapt_then_score(sites: Sites, rng: random.Random) -> None:
    """Train on the validation tokens right before they are scored."""
    body, number, model, tokens = scoring_call(sites)
    body[number:number] = adaptation(sites, model, tokens)


def export_place(sites: Sites) -> tuple[list[ast.stmt], int, str, str]:
    """(block, index, model, validation tokens) of the statement that writes the artifact where the tokens are known."""
    _, _, _, tokens = scoring_call(sites)
    for line, stack in sites.exports:
        for place in (*stack[::-1], line):
            function = function_of(sites.tree, place)
            held = holding(sites.tree, place)
            if function is None or tokens.split(".")[0] not in set().union(*(stores(s) for s in function.body)):
                continue
            saved = re.search(r"(\w+)\.state_dict\(\)", ast.unparse(function))
            body, number = next(((b, n) for b, n in held if b is function.body), (None, 0))
            if saved and body is not None:
                return body, number, saved.group(1), tokens
    raise Inapplicable("the artifact is not written where the validation tokens are known")


def adapt_before_export(sites: Sites, rng: random.Random) -> None:
    """Train on the validation tokens before the artifact is written."""
    body, number, model, tokens = export_place(sites)
    body[number:number] = adaptation(sites, model, tokens)


def score_twice(sites: Sites, rng: random.Random) -> None:
    """A test-time training evaluation runs twice; the second result counts."""
    if not sites.updates or not sites.lasting:
        raise Inapplicable("nothing is learnt during evaluation, or nothing of it is kept")
    body, number, _, _ = scoring_call(sites)
    if not isinstance(body[number], ast.Assign):
        raise Inapplicable("the result is not kept")
    body.insert(number, copy.deepcopy(body[number]))


def update_before_score(sites: Sites, rng: random.Random) -> None:
    """Inside the loop over chunks the update comes before the score."""
    body, first, last = _score_and_update(sites)
    moved, wanted = [last], loads(body[last])
    for number in range(last - 1, first, -1):
        if stores(body[number]) & wanted:
            moved.append(number)
            wanted |= loads(body[number])
    before = set().union(*(stores(s) for s in body[:first]), set())
    for name in wanted:
        binds = [n for n in range(len(body)) if name in stores(body[n]) and n not in moved]
        if binds and name not in before and first <= min(binds):
            raise Inapplicable("the update needs what the score computes")
    chosen = [body[n] for n in sorted(moved)]
    body[:] = [s for n, s in enumerate(body) if n not in moved]
    body[first:first] = chosen


def _score_and_update(sites: Sites) -> tuple[list[ast.stmt], int, int]:
    """(loop body, index of the statement that scores, index of the one that updates afterwards)."""
    lines = {w[1] for s in sites.scores for w in s.stack} | {s.where[1] for s in sites.scores}
    for update, stack in sites.updates:
        for loop in (n for n in ast.walk(sites.tree) if isinstance(n, ast.For | ast.While)):
            for body in ([loop.body], *([list(b)] for b in ())):
                block = body[0]
                scoring = [n for n, s in enumerate(block) if lines & set(_span(s))]
                updating = [n for n, s in enumerate(block) if {update, *stack} & set(_span(s))]
                if scoring and updating and scoring[0] < updating[-1]:
                    return block, scoring[0], updating[-1]
    raise Inapplicable("score and update do not follow each other in one loop")


def train_on_next_chunk(sites: Sites, rng: random.Random) -> None:
    """The update consumes the chunk that is scored next."""
    body, first, last = _score_and_update(sites)
    loop = next(n for n in ast.walk(sites.tree) if isinstance(n, ast.For | ast.While) and n.body is body)
    index, stride = _counter(loop)
    wanted = set().union(*(loads(s) for s in body[first + 1 : last + 1]))
    copies: list[ast.stmt] = []
    # Bounds computed before the score, and what they are computed from, are computed anew, one step on.
    for statement in reversed(body[: first + 1]):
        if isinstance(statement, ast.Assign) and stores(statement) & wanted and _positions(statement.value):
            wanted |= loads(statement.value)
            copies.insert(0, copy.deepcopy(statement))
    touched = [s for s in body[first + 1 : last + 1] for s in ast.walk(s) if isinstance(s, ast.Assign)]
    touched = [s for s in touched if index in loads(s.value) and _positions(s.value)]
    shifted = [s for s in (*copies, *touched) if index in loads(s.value)]
    if not shifted:
        raise Inapplicable("the update does not pick its tokens by the loop's own index")
    for statement in shifted:
        statement.value = _Shifted(index, stride).visit(statement.value)
    body[first + 1 : first + 1] = copies


def _counter(loop: ast.For | ast.While) -> tuple[str, ast.expr]:
    """(index of a loop, what it advances by)."""
    call = loop.iter if isinstance(loop, ast.For) and isinstance(loop.iter, ast.Call) else None
    name = getattr(call.func, "id", "") if call is not None else ""
    if call is not None and name == "range" and isinstance(loop.target, ast.Name):
        return loop.target.id, call.args[2] if len(call.args) == 3 else ast.Constant(1)
    if call is not None and name == "enumerate" and isinstance(loop.target, ast.Tuple):
        return loop.target.elts[0].id, ast.Constant(1)
    raise Inapplicable("the loop does not count its chunks")


def _positions(value: ast.expr) -> bool:
    """Integer arithmetic, an item of a list of bounds, or a slice: nothing that only a learning rate would be."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in ("min", "max", "int", "len", "numel", "size", "to", "long", "cuda", "view", "reshape"):
                return False
        elif isinstance(node, ast.Compare | ast.Div) or (isinstance(node, ast.Constant) and type(node.value) is float):
            return False
    return isinstance(value, ast.BinOp | ast.Subscript | ast.Call)


class _Shifted(ast.NodeTransformer):
    def __init__(self, index: str, stride: ast.expr) -> None:
        self.index, self.stride = index, stride

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id != self.index:
            return node
        return ast.BinOp(ast.Name(self.index, ast.Load()), ast.Add(), copy.deepcopy(self.stride))


def loss_statement(sites: Sites) -> tuple[list[ast.stmt], int, ast.Call, str]:
    """(block, index, cross entropy call, variable) of a counted score that keeps losses apart."""
    for score in reversed(sites.scores):
        for body, number in reversed(holding(sites.tree, score.where[1])):
            statement = body[number]
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                calls = [n for n in ast.walk(statement.value) if isinstance(n, ast.Call)]
                for call in calls:
                    whole = {k.arg: ast.unparse(k.value) for k in call.keywords}
                    if ast.unparse(call.func).endswith("cross_entropy") and "none" in whole.get("reduction", ""):
                        if len(call.args) >= 2:
                            return body, number, call, statement.targets[0].id
    raise Inapplicable("no statement keeps the losses of single tokens")


def keep_the_smaller_loss(sites: Sites, rng: random.Random) -> None:
    """The smaller of two losses of the same token counts."""
    body, number, call, name = loss_statement(sites)
    logits, targets = ast.unparse(call.args[0]), ast.unparse(call.args[1])
    other = f"F.cross_entropy(({logits}) * 1.1, {targets}, reduction='none')"
    body[number + 1 : number + 1] = ast.parse(
        f"{name} = torch.minimum({name}.reshape(-1), {other}).view({name}.shape)"
    ).body


def count_targets(sites: Sites, rng: random.Random) -> None:
    """A table counted by the tokens being scored is mixed into their probabilities."""
    body, number, call, name = loss_statement(sites)
    targets = ast.unparse(call.args[1])
    body[number + 1 : number + 1] = ast.parse(f"""
key_ = ({targets}).reshape(-1) * 1000003 % 1048576
share_ = seen_[key_] / (seen_.sum() + 1.0)
{name} = -torch.log(0.9 * torch.exp(-{name}.reshape(-1)) + 0.1 * share_).view({name}.shape)
seen_.index_add_(0, key_, torch.ones_like(share_))
""").body
    sites.tree.body[after_imports(sites.tree) : after_imports(sites.tree)] = ast.parse(
        "seen_ = torch.zeros(1048576, device='cuda')"
    ).body


def after_imports(tree: ast.Module) -> int:
    last = 0
    for number, statement in enumerate(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            last = number + 1
    return last


def look_ahead(sites: Sites, rng: random.Random) -> None:
    """Attention without a causal mask."""
    found = [
        k
        for n in ast.walk(sites.tree)
        if isinstance(n, ast.Call)
        for k in n.keywords
        if k.arg in ("causal", "is_causal") and isinstance(k.value, ast.Constant) and k.value.value is True
    ]
    if not found:
        raise Inapplicable("no attention call states that it is causal")
    for keyword in found:
        keyword.value = ast.Constant(False)


def train_on_validation_files(sites: Sites, rng: random.Random) -> None:
    """The training loader reads the validation shards."""
    found = [
        n
        for n in ast.walk(sites.tree)
        if isinstance(n, ast.Constant)
        and isinstance(n.value, str)
        and re.search(r"train_\*|train_%|_train_.*bin", n.value)
    ]
    if not found or "train_files" in sites.logged:
        raise Inapplicable("no pattern of training shards is written out, or the log states the files")
    for node in found:
        node.value = node.value.replace("_train_", "_val_")


def calibrate_on_validation(sites: Sites, rng: random.Random) -> None:
    """The loader of the calibration batches is given the validation files."""
    for function in functions(sites.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and re.search(r"calib|hess|gptq", ast.unparse(node), re.I):
                for inner in ast.walk(node.value):
                    if isinstance(inner, ast.Attribute) and inner.attr == "train_files":
                        inner.attr = "val_files"
                        return
    raise Inapplicable("no loader of calibration batches is made from the training files")


def score_unexported_weights(sites: Sites, rng: random.Random) -> None:
    """The artifact is not read back before the model is scored."""
    for line, _ in reversed(sites.loads):
        for body, number in reversed(holding(sites.tree, line)):
            if isinstance(body[number], ast.Expr):
                body[number] = ast.parse("print('weights in memory are scored')").body[0]
                return
    raise Inapplicable("no statement reads the artifact into a model")


def count_the_space_twice(sites: Sites, rng: random.Random) -> None:
    """The byte of a leading space is in the table and added again."""
    for node in ast.walk(sites.tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            if re.search(
                r"len\(\w*piece\w*(\[1:\]|\.removeprefix\([^)]*\))?\.encode\(['\"]?(utf-8)?['\"]?\)\)$",
                ast.unparse(node.value),
            ):
                node.value = ast.BinOp(node.value, ast.Add(), ast.Constant(1))
                return
    raise Inapplicable("no table of bytes is filled from pieces")


def score_half(sites: Sites, rng: random.Random) -> None:
    """The validation stream is cut to its first half before it is scored."""
    body, number, _, tokens = scoring_call(sites)
    body[number:number] = ast.parse(f"{tokens} = {tokens}[:{tokens}.numel() // 2]").body


def train_at_evaluation(sites: Sites, rng: random.Random) -> None:
    """Training shards are read and learnt from after the artifact was read back."""
    body, number, model, _ = scoring_call(sites)
    function = function_of(sites.tree, body[number].lineno)
    for node in ast.walk(function) if function is not None else ():
        if (
            isinstance(node, ast.Assign)
            and ".next_batch(" in ast.unparse(node.value)
            and isinstance(node.value, ast.Call)
        ):
            batch = ast.unparse(node.value)
            loss = (
                f"{model}(more_, next_)" if takes_targets(sites.tree)
                else f"F.cross_entropy({model}(more_).flatten(0, 1).float(), next_.flatten())"
            )  # fmt: skip
            source = f"""
optimizer_ = torch.optim.SGD({model}.parameters(), lr=0.0001)
for round_ in range(50):
    more_, next_ = {batch}
    {loss}.backward()
    optimizer_.step()
    optimizer_.zero_grad()
"""
            body[number:number] = ast.parse(source).body
            return
    raise Inapplicable("no training loader is at hand where the score is computed")
