"""Which log line is the headline: the claimed BPB matched with the result lines of every run.

A log prints several results (during training, before quantisation, after the round trip, sliding, with test-time
training). The claim belongs to one of them, and which one decides whether it is the score of the artifact.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from auditor.documents.interval import Interval, mean_interval
from auditor.documents.ledger.common import Parts, at_line, claims, says, seed_key, seed_of
from auditor.documents.metric import bpb_interval
from auditor.documents.model import EvalResult, LogRun, Quantity, StepLine

QUANTISED, FLOAT, UNSTATED = "quantised", "float", "unstated"

_FLOAT_WORDS = re.compile(
    r"pre[-_ ]?(?:gptq|quant\w*|export)|post[-_ ]?ema|float|fp32|bf16|raw[-_ ]?model|(?:^|[_ ])ema(?:$|[_ ])|"
    r"diagnostic(?! quant)|unquantized|before[-_ ]quant",
    re.IGNORECASE,
)
_QUANTISED_WORDS = re.compile(
    r"int\d|quant|roundtrip|round[-_ ]trip|gptq|ternary|binary|zlib|zstd|lzma|brotli|lzr?ip|q\d(?:\D|$)|mixed|final|"
    r"ttt|sliding|legal|nf4|fp4|fp8",
    re.IGNORECASE,
)


def kind_of(label: str) -> str:
    """What an evaluation's label says about the model it scored: quantised artifact, float weights, or nothing.

    `pre_ttt_quant_eval` is quantised, `pre-quantization post-ema` and `DIAGNOSTIC` without a quantiser's name float.
    """
    if _FLOAT_WORDS.search(label):
        return FLOAT
    return QUANTISED if _QUANTISED_WORDS.search(label) else UNSTATED


@dataclass(frozen=True)
class Scored:
    """One evaluation of one run: the line that prints it with the most digits.

    `kind` is `kind_of` its label; validation lines of training are float.
    """

    run: LogRun
    line: int
    label: str
    bpb: Interval
    value: float
    kind: str
    result: EvalResult | StepLine

    @property
    def where(self) -> str:
        """`train.log:12`."""
        return f"{self.run.path.rsplit('/', 1)[-1]}:{self.line}"


@dataclass(frozen=True)
class Headline:
    """The claimed BPB and the lines it rests on.

    Attributes:
        claimed: every place that states the headline (submission.json first, then the README).
        seed_claims: seed -> places that state its BPB.
        reported: the line of each reported run, by seed ("" where no seed is known), in file order.
        matched_by: for `claimed[0]`: "mean", "line", "float line", "mean of claims", "" (nothing matches).
        label: label of the evaluation the claim belongs to.
        mean: mean BPB over `reported`, None without logs.
    """

    claimed: tuple[Quantity, ...]
    seed_claims: dict[str, tuple[Quantity, ...]]
    reported: dict[str, Scored]
    matched_by: str = ""
    label: str = ""
    mean: float | None = None


def evaluations(run: LogRun) -> list[Scored]:
    """Every evaluation of a run, in order; twins (a rounded line and its `_exact` line) are one, with its digits."""
    found: dict[str, Scored] = {}
    for result in run.results:
        value = bpb_interval(result)
        if value is None or not result.val_bpb:
            continue
        label = re.sub(r"[_ ]exact$", "", result.label)
        old = found.pop(label, None)
        new = Scored(run, result.line, label, value, result.val_bpb, kind_of(label), result)
        twin = old is not None and old.bpb.overlaps(value) and old.bpb.width < value.width
        found[label] = old if twin and old else new
    return list(found.values())


def evidence_of(item: Scored) -> Quantity:
    """The log line of an evaluation as evidence."""
    return at_line(item.run, item.line, item.value, item.result.text)


def with_loss(item: Scored) -> EvalResult | StepLine:
    """The line of the same evaluation that also prints the loss: itself, or a twin of the same BPB."""
    if item.result.val_loss:
        return item.result
    twins = [line for line in item.run.results if line.val_loss and (value := bpb_interval(line)) is not None
             and value.overlaps(item.bpb)]  # fmt: skip
    return max(twins, key=lambda line: line.digits, default=item.result)


def validation_lines(run: LogRun) -> list[Scored]:
    """Validation during training as evaluations of float weights."""
    return [
        Scored(run, step.line, f"step {step.step}", value, step.val_bpb, FLOAT, step)
        for step in run.steps
        if step.val_bpb and (value := bpb_interval(step))
    ]


def find_headline(parts: Parts) -> Headline:
    """Match the claimed BPB with the logs; see `Headline`."""
    claimed = headline_claims(parts)
    per_seed = seed_claims(parts)
    finished = [(run, evals) for run in parts.runs if (evals := evaluations(run) or validation_lines(run)[-1:])]
    label, matched = _label(claimed, per_seed, finished)
    reported = _reported(claimed, per_seed, finished, label)
    mean = sum(item.value for item in reported.values()) / len(reported) if reported else None
    if claimed and not matched:
        matched = _other_match(claimed[0], parts, per_seed)
    return Headline(claimed, per_seed, reported, matched, label, mean)


def headline_claims(parts: Parts) -> tuple[Quantity, ...]:
    """Places that state the headline BPB: submission.json (val_bpb, its mean), the README's title."""
    data = parts.main
    stated = [data.val_bpb, data.mean_bpb] if data else []
    return claims(*(item for item in stated if item is not None and item.value > 0), *_title_claims(parts))


def _title_claims(parts: Parts) -> list[Quantity]:
    """BPB values in the README's title: the headline of a reader who opens the folder."""
    readme = parts.readme
    if readme is None or not readme.title:
        return []
    shown = set(re.findall(r"\d\.\d{3,}", readme.title))
    return [
        item
        for item in readme.values.get("val_bpb", [])
        if item.source.line is not None and re.sub(r"[^\d.]", "", item.text) in shown and item.value > 0.5
    ][: len(shown)]


def seed_claims(parts: Parts) -> dict[str, tuple[Quantity, ...]]:
    """Seed -> every place that states its BPB (submission.json, then the README's tables).

    README tables count only when one of their keys is a seed that submission.json or a log names (or nothing names
    any): a table by training step or by depth looks the same.
    """
    found: dict[str, list[Quantity]] = defaultdict(list)
    for table in _seed_tables(parts):
        for seed, values in table.items():
            if "val_bpb" in values and values["val_bpb"].value > 0:
                found[seed_key(seed)].append(values["val_bpb"])
    return {seed: claims(*values) for seed, values in found.items()}


def _seed_tables(parts: Parts) -> list[dict[str, dict[str, Quantity]]]:
    stated = parts.main.seeds if parts.main else {}
    shown = parts.readme.seeds if parts.readme else {}
    known = {seed_key(name) for name in stated} | {seed for run in parts.runs if (seed := seed_of(run))}
    keys = {seed_key(name) for name in shown}
    return [stated, shown] if not known or keys & known else [stated]


Finished = list[tuple[LogRun, list[Scored]]]


def _label(
    claimed: tuple[Quantity, ...], per_seed: dict[str, tuple[Quantity, ...]], finished: Finished
) -> tuple[str, str]:
    """(label, how) of the evaluation that the first claim is, trying the mean over seeds, then single lines."""
    votes: dict[tuple[str, str], int] = defaultdict(int)
    if claimed:
        by_label: dict[str, dict[str, Scored]] = defaultdict(dict)
        for run, evals in finished:
            for item in evals:
                by_label[item.label][seed_of(run) or run.path] = item
        for label, items in by_label.items():
            if len(items) > 1:
                votes[(label, "mean")] += 10 * _fit(claimed[0], mean_interval(item.bpb for item in items.values()))
            votes[(label, "line")] += 4 * max(_fit(claimed[0], item.bpb) for item in items.values())
        votes = defaultdict(int, {key: count for key, count in votes.items() if count})
    for run, evals in finished:
        for item in evals:
            if any(says(claim, item.bpb) for claim in per_seed.get(seed_of(run), ())):
                for how in ("mean", "line"):
                    if (item.label, how) in votes:
                        votes[(item.label, how)] += 3
    if not votes:
        return _usual_label(claimed, per_seed, finished), ""
    # Among equals the artifact's own score, then the later evaluation, is meant.
    order = [item.label for _, evals in finished for item in evals]
    best = max(votes, key=lambda key: (votes[key], kind_of(key[0]) == QUANTISED, order.index(key[0])))
    return best


def _fit(claim: Quantity, evidence: Interval) -> int:
    """2 when the claim is the evidence rounded, 1 when it can be with digits cut off, else 0."""
    return 2 if says(claim, evidence, tight=True) else int(says(claim, evidence))


def _usual_label(claimed: tuple[Quantity, ...], per_seed: dict[str, tuple[Quantity, ...]], finished: Finished) -> str:
    """Label that the per-seed claims match, else that of the evaluation nearest to the claim, else of the last one."""
    for run, evals in finished:
        for item in reversed(evals):
            if any(says(claim, item.bpb) for claim in per_seed.get(seed_of(run), ())):
                return item.label
    near = [item for _, evals in finished for item in evals if claimed and _is_near(item, claimed[0])]
    if near:
        return min(near, key=lambda item: abs(item.value - claimed[0].value)).label
    return finished[0][1][-1].label if finished else ""


def _reported(
    claimed: tuple[Quantity, ...], per_seed: dict[str, tuple[Quantity, ...]], finished: Finished, label: str
) -> dict[str, Scored]:
    """The line each reported run contributes. Of a seed that was run twice, the run that fits its first claim best
    (submission.json before the README) counts, else the one that prints the headline, the later one among equals."""
    chosen: dict[str, tuple[int, Scored]] = {}
    for run, evals in finished:
        seed = seed_of(run)
        own = per_seed.get(seed, ())
        ranked = [(rank, item) for item in evals if (rank := _rank(item, own)) < len(own)]
        labelled = [item for item in evals if item.label == label]
        if claimed and labelled and _is_near(labelled[-1], claimed[0]):
            # A table of the README may state another evaluation of each seed, the one before quantisation say.
            ranked = [(rank, item) for rank, item in ranked if _is_near(item, claimed[0])]
        item = (labelled or evals)[-1]
        rank = len(own) + (not any(says(claim, item.bpb) for claim in claimed))
        if ranked:
            rank = min(rank for rank, _ in ranked)
            item = [item for other, item in ranked if other == rank][-1]
        if per_seed and not own and not any(says(claim, item.bpb) for claim in claimed):
            continue
        key = seed or run.path
        if key not in chosen or rank <= chosen[key][0]:
            chosen[key] = (rank, item)
    if not chosen:
        return {seed_of(run) or run.path: evals[-1] for run, evals in finished}
    return {key: item for key, (_, item) in chosen.items()}


#: Seeds of one configuration spread by less than this, BPB; evaluations of one run lie further apart.
NEAR = 0.01


def _is_near(item: Scored, claim: Quantity) -> bool:
    return abs(item.value - claim.value) <= NEAR * min(claim.value, 1)


def _rank(item: Scored, own: tuple[Quantity, ...]) -> int:
    """Index of the first claim that the line states, `len(own)` for none."""
    return next((index for index, claim in enumerate(own) if says(claim, item.bpb)), len(own))


def _other_match(claim: Quantity, parts: Parts, per_seed: dict[str, tuple[Quantity, ...]]) -> str:
    """What a claim that no result line states may still be: a validation line of training, a mean of claims."""
    for run in parts.runs:
        if any(says(claim, item.bpb) for item in validation_lines(run)):
            return "float line"
    values = [stated_values[0].value for stated_values in per_seed.values()]
    if len(values) > 1 and says(claim, sum(values) / len(values)):
        return "mean of claims"
    return ""
