"""The edits that make a legal program illegal, plain ones and sly ones, and the rules that show them.

Plain edits stand in `spoiling`; here are those that take a detour: through a twin, an average, another pattern of
files, gradients by hand, a table counted one step early.
"""

from __future__ import annotations

import ast
import copy
import difflib
import random
from collections.abc import Callable

from spoiling import (
    Inapplicable,
    Sites,
    adapt_before_export,
    adapt_then_score,
    adaptation,
    after_imports,
    calibrate_on_validation,
    count_targets,
    count_the_space_twice,
    export_place,
    keep_the_smaller_loss,
    look_ahead,
    loss_statement,
    score_half,
    score_twice,
    score_unexported_weights,
    scoring_call,
    train_at_evaluation,
    train_on_next_chunk,
    train_on_validation_files,
    update_before_score,
)


def smaller_of_two_passes(sites: Sites, rng: random.Random) -> None:
    """An evaluation that learns runs twice; the better result counts."""
    if not sites.updates or not sites.lasting:
        raise Inapplicable("nothing is learnt during evaluation, or nothing of it is kept")
    body, number, _, _ = scoring_call(sites)
    statement = body[number]
    if not isinstance(statement, ast.Assign):
        raise Inapplicable("the result is not kept")
    first = ast.Assign([ast.Name("first_", ast.Store())], copy.deepcopy(statement.value))
    statement.value = ast.Call(ast.Name("min", ast.Load()), [ast.Name("first_", ast.Load()), statement.value], [])
    body.insert(number, first)


def targets_in_the_logits(sites: Sites, rng: random.Random) -> None:
    """At the beginning of documents the target's own logit is raised."""
    _, _, call, _ = loss_statement(sites)
    logits, targets = ast.unparse(call.args[0]), ast.unparse(call.args[1])
    hint = f"F.one_hot({targets}, 1024) * ({targets} == 1).unsqueeze(-1)"
    call.args[0] = ast.parse(f"({logits}) + 0.5 * {hint}", mode="eval").body


def export_average(sites: Sites, rng: random.Random) -> None:
    """A twin is trained on the validation tokens; the average of both is exported."""
    body, number, model, tokens = export_place(sites)
    blend = f"""
with torch.no_grad():
    for mine_, other_ in zip({model}.parameters(), twin_.parameters()):
        mine_.lerp_(other_, 0.5)
"""
    twin = ast.parse(f"import copy\ntwin_ = copy.deepcopy({model})").body
    body[number:number] = [*twin, *adaptation(sites, "twin_", tokens), *ast.parse(blend).body]


def adapt_on_other_pattern(sites: Sites, rng: random.Random) -> None:
    """The validation shards are read a second time, by a pattern of their own, and learnt from before the export."""
    body, number, model, _ = export_place(sites)
    read = """
import glob
import numpy as np
names_ = sorted(glob.glob('./data/datasets/fineweb10B_sp1024/fineweb_v*_*.bin'))
more_ = torch.cat([torch.from_numpy(np.fromfile(name_, dtype='<u2')[512:].astype('int64')) for name_ in names_])
"""
    body[number:number] = [*ast.parse(read).body, *adaptation(sites, model, "more_")]


def adapt_by_hand(sites: Sites, rng: random.Random) -> None:
    """Gradients of the validation tokens are subtracted without an optimizer before they are scored."""
    body, number, model, tokens = scoring_call(sites)
    loss = ast.unparse(adaptation(sites, model, tokens)[1].body[1]).removesuffix(".backward()")  # type: ignore[attr-defined]
    source = f"""
for position_ in range(0, {tokens}.numel() - 1025, 1024):
    piece_ = {tokens}[position_:position_ + 1025].to('cuda').long()
    slopes_ = torch.autograd.grad({loss}, list({model}.parameters()))
    with torch.no_grad():
        for weight_, slope_ in zip({model}.parameters(), slopes_):
            weight_ -= 0.0001 * slope_
"""
    body[number:number] = ast.parse(source).body


def count_too_early(sites: Sites, rng: random.Random) -> None:
    """A table of pairs takes in the pairs of a batch and is then mixed into their probabilities."""
    body, number, call, name = loss_statement(sites)
    targets = ast.unparse(call.args[1])
    body[number + 1 : number + 1] = ast.parse(f"""
after_ = ({targets}).reshape(-1)
before_ = torch.cat([after_[:1], after_[:-1]])
pairs_.index_put_((before_, after_), torch.ones_like(after_).float(), accumulate=True)
rows_ = (pairs_[before_] + 0.01) / (pairs_[before_] + 0.01).sum(-1, keepdim=True)
share_ = rows_.gather(-1, after_[:, None]).squeeze(-1)
{name} = -torch.log(0.9 * torch.exp(-{name}.reshape(-1)) + 0.1 * share_).view({name}.shape)
""").body
    sites.tree.body[after_imports(sites.tree) : after_imports(sites.tree)] = ast.parse(
        "pairs_ = torch.zeros(1024, 1024, device='cuda')"
    ).body


def fit_offset(sites: Sites, rng: random.Random) -> None:
    """An offset of the logits is fitted to the targets of a batch, which are then scored with it."""
    body, number, call, _ = loss_statement(sites)
    logits, targets = ast.unparse(call.args[0]), ast.unparse(call.args[1])
    body[number:number] = ast.parse(f"""
with torch.enable_grad():
    offset_ = torch.zeros(1024, device='cuda', requires_grad=True)
    fit_ = torch.optim.SGD([offset_], lr=0.1)
    F.cross_entropy(({logits}).detach() + offset_, {targets}).backward()
    fit_.step()
""").body
    call.args[0] = ast.parse(f"({logits}) + offset_.detach()", mode="eval").body


_LEARNT = frozenset({"PG-C3-score-first", "PG-C3-prequant-ttt", "PG-C3-multi-epoch", "PG-C4-single-pass",
                     "PG-D-val-in-train", "PG-C3-adapt-scope"})  # fmt: skip
Edit = Callable[[Sites, random.Random], None]
# Name -> (edit, rules any of which shows it).
EDITS: dict[str, tuple[Edit, frozenset[str]]] = {
    "adapt, then score": (adapt_then_score, _LEARNT),
    "adapt before the export": (adapt_before_export, _LEARNT),
    "score in a second pass": (score_twice, _LEARNT),
    "update before score": (update_before_score, _LEARNT),
    "train on the next chunk": (train_on_next_chunk, _LEARNT),
    "smaller of two losses": (keep_the_smaller_loss, frozenset({"PG-C4-single-pass", "PG-C2-normalisation"})),
    "counts keyed by the target": (
        count_targets, frozenset({"PG-C2-hashed-ngram-cache", "PG-C2-normalisation", "PG-C1-ngram-target-gate"})
    ),
    "attention looks ahead": (look_ahead, frozenset({"PG-C1-causality"})),
    "validation shards in training": (train_on_validation_files, _LEARNT | {"PG-D-paid-prefix"}),
    "calibration on validation tokens": (
        calibrate_on_validation, frozenset({"PG-D-gptq-calibration", "PG-D-val-in-train"})
    ),
    "weights never exported": (score_unexported_weights, frozenset({"PG-B-from-artifact"})),
    "leading space counted twice": (
        count_the_space_twice, frozenset({"PG-B-leading-space", "PG-B-bpb-formula", "PG-B-byte-fallback"})
    ),
    "half of the stream": (score_half, frozenset({"PG-B-full-val"})),
    "smaller of two passes": (smaller_of_two_passes, _LEARNT),
    "targets in the logits": (targets_in_the_logits, frozenset({"PG-C1-causality", "PG-C2-normalisation"})),
    "average of adapted weights exported": (export_average, _LEARNT),
    "validation shards by another pattern": (adapt_on_other_pattern, _LEARNT),
    "adapted by hand": (adapt_by_hand, _LEARNT),
    "counted before it is read": (
        count_too_early, frozenset({"PG-C4-single-pass", "PG-C2-hashed-ngram-cache", "PG-C2-normalisation"})
    ),
    "offset fitted to its own targets": (fit_offset, _LEARNT | {"PG-C3-slot"}),
    "training shards at evaluation": (train_at_evaluation, frozenset({"PG-D-train-at-eval"})),
}  # fmt: skip


# What these edits change would stand in the mutant's own log; the log at hand is the legal program's and proves nothing.
LOG_IS_ANOTHERS = frozenset({"half of the stream", "leading space counted twice", "weights never exported"})


def spoilt(sites: Sites, edit: str, seed: int) -> tuple[str, frozenset[int]]:
    """(source, lines it differs in) of the program after one edit; a removal counts for the lines around it.

    Raises:
        Inapplicable: the program has no place for it.
    """
    fresh = copy.deepcopy(sites)
    fresh.tree = ast.parse(sites.text)
    EDITS[edit][0](fresh, random.Random(seed))
    text = ast.unparse(ast.fix_missing_locations(fresh.tree))
    lines: set[int] = set()
    matcher = difflib.SequenceMatcher(None, sites.text.split("\n"), text.split("\n"), autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        if kind != "equal":
            lines |= set(range(start + 1, end + 1)) or {start, start + 1}
    if not lines:
        raise Inapplicable("the edit changes nothing")
    return text, frozenset(lines)
