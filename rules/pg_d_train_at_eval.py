"""PG-D-train-at-eval: No training data at evaluation time."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from auditor.timeline import Calibrate, Counted, Event, Read, Report, Score, Split, Timeline, Update, Via
from rules.base import Example, Rule
from rules.calibration import behind_the_clock, clocked_out
from rules.events import blind_spots, evaluation_events, place
from rules.example_program import EVALUATION, EXPORT, MAIN, edited, program
from rules.examples import RUNS, variant
from rules.support import at_line, failed, passed, warned
from rules.testimony import ORDER_WITNESSES, from_timelines

WARM_CACHE = """
    inputs, targets = next(train_batches(rank, world_size, device))
    token_losses(scored, inputs, targets).mean().backward()
    torch.optim.SGD(scored.parameters(), lr=0.001).step()
    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)
"""

# Counts of token pairs kept in memory since training and mixed into the probabilities.
PAIRS = edited(
    edited(
        EVALUATION,
        "            nll = token_losses(model, inputs, targets)\n",
        "            nll = token_losses(model, inputs, targets)\n"
        "            pair = torch.from_numpy(pairs[inputs[0].cpu().numpy(), targets[0].cpu().numpy()]).to(device)\n"
        "            nll = -torch.log(0.9 * torch.exp(-nll) + 0.1 * pair)\n",
    ),
    "def evaluate(model, ",
    "def evaluate(pairs, model, ",
)
FILLED = """
    pairs = np.ones((args.vocab_size, args.vocab_size)) / args.vocab_size
    for path in sorted(glob.glob(f"{args.data_path}/fineweb_train_*.bin")):
        tokens = load_shard(path).numpy()
        np.add.at(pairs, (tokens[:-1], tokens[1:]), 1e-9)
    val_loss, val_bpb = evaluate(pairs, scored, val_tokens, tables, rank, world_size, device)
"""
# The same counts as part of the artifact, read back from it.
STORED = """
    pairs = torch.ones(args.vocab_size, args.vocab_size) / args.vocab_size
    for path in sorted(glob.glob(f"{args.data_path}/fineweb_train_*.bin")):
        tokens = load_shard(path)
        pairs.index_put_((tokens[:-1], tokens[1:]), torch.tensor(1e-9), accumulate=True)
    torch.save({"model": model.state_dict(), "pairs": pairs}, "final_model.pt")
"""
READ_BACK = """
    pairs = torch.load("final_model.pt")["pairs"].numpy()
    val_loss, val_bpb = evaluate(pairs, scored, val_tokens, tables, rank, world_size, device)
"""
# Statistics of training batches for the quantiser, collected when the clock has stopped; no log shows its time.
COLLECT = """
def input_scales(model, rank, world_size, device):
    sums = {}
    kept = [
        block.register_forward_hook(lambda module, given, out, n=n: sums.update({n: given[0].float().abs().mean()}))
        for n, block in enumerate(model.blocks)
    ]
    inputs, _ = next({batches})
    model(inputs)
    for hook in kept:
        hook.remove()
    return sums
"""
FROM_SHARDS = COLLECT.replace("{batches}", "train_batches(rank, world_size, device)")
FROM_NOWHERE = COLLECT.replace(
    "{batches}", "iter([(torch.randint(0, args.vocab_size, (8, args.seq_len), device=device), None)])"
)
SCALED = edited(
    edited(EXPORT, "def write_artifact(model, path):", "def write_artifact(model, path, sums):"),
    "clamp_min(1e-8) / 127\n",
    "clamp_min(1e-8) / 127 * sums[0]\n",
)
CALL = edited(
    MAIN,
    'write_artifact(model, "final_model.int8.ptz")',
    'write_artifact(model, "final_model.int8.ptz", input_scales(model, rank, world_size, device))',
)
NO_LOGS = {f"train_seed{run.seed}.log": None for run in RUNS}


def decide(case: Case) -> Finding:
    """Needs to see what is read after the export; behind a clock that runs its full 600 s, before it too."""
    if case.submission.track in (Track.RECORD, Track.UNKNOWN) and (behind := behind_the_clock(case)):
        return failed(
            "training data calibrates the quantiser behind a training clock of 600 s, and no log shows another time",
            behind,
            _PROVABLY,
        )
    heard = from_timelines(case, "whether anything reads training data after training", read, rule=RULE.id)
    if heard.status is not Status.FAIL and case.submission.track in (Track.RECORD, Track.UNKNOWN):
        late = clocked_out(case)
        if late:
            return replace(failed(_CLOCKED, late, _PROVABLY), witness=Witness.RUN)
    return heard


_CLOCKED = (
    "training data calibrates the quantiser after a training loop that was seen to end by its clock at 600 s only"
)
_PROVABLY = "Calibration on training data has to be provably inside the 600 s (PG-D-gptq-calibration)."


def read(timeline: Timeline) -> Finding | None:
    """Training data that changes anything in the evaluation phase is the breach; a bare read may only set a scalar."""
    kept = next(
        (e for e in timeline.events() if isinstance(e, Report) and e.headline and _trained_counts(e)),
        None,
    )
    if kept is not None:
        filled = [e for e in timeline.events() if isinstance(e, Update) and e.via is Via.TABLE and _of_train(e)]
        read_at = [
            at_line(c.place.path, c.place.line, note="reads the count during evaluation") for c in _trained_counts(kept)
        ]
        return failed(
            "a table filled with training tokens takes part in the claimed number without having been in the artifact",
            [
                *(place(e, "counts training tokens") for e in filled[:1]),
                *read_at[:1],
                place(kept, "reports the number"),
            ],
        )
    late = [event for event in evaluation_events(timeline) if _of_train(event)]
    changes = [event for event in late if not isinstance(event, Read)]
    if changes:
        return failed(
            "training data changes what is evaluated, during evaluation", [place(e) for e in (*changes, *late)]
        )
    counted = [e for e in timeline.events() if isinstance(e, Score) and e.counted]
    if late and counted and all(score.with_train is False for score in counted):
        # Lighter than the rule: what accepted records did, and all that can pass is the number that was chosen.
        return replace(
            warned(
                "training data is read during evaluation and only chooses a number",
                [place(event) for event in late],
                "Nothing of it takes part in the scores, and nothing changes through it but a choice between constants, "
                "such as one temperature: accepted records did this.",
            ),
            severity=Severity.DISPUTED,
        )
    if late:
        return warned(
            "training data is read during evaluation",
            [place(event) for event in late],
            "No parameter, table or quantiser is seen to change through it. Accepted records fitted one temperature on "
            "training tokens after the export; whether more than that is carried over is for the reader to judge.",
        )
    hidden = list(blind_spots(timeline))
    if any(not spot.reason.startswith("native code") for spot in hidden):
        return None
    return passed(
        "nothing reads training data after the artifact is written",
        explanation=_COMPILED if hidden else "",
    )


_COMPILED = "Compiled code was not read; the program hands it no training tokens at any time."


def _trained_counts(report: Report) -> list[Counted]:
    """Counts of training tokens in a number; a table read back from a file has lost its identity and is not among them."""
    return [count for count in report.counts if count.split is Split.TRAIN]


def _of_train(event: Event) -> bool:
    return isinstance(event, (Read, Update, Calibrate)) and event.span.split is Split.TRAIN


RULE = Rule(
    id="PG-D-train-at-eval",
    title="No training data at evaluation time",
    statement=(
        "After the training phase nothing may read the training shards, a cache of training batches, or "
        "anything derived from training data that is not in the counted artifact. The information that passes "
        "from training to evaluation is the artifact and nothing else (0hq's flash-drive picture: 10 minutes "
        "on one box, a 16 MB stick, 10 minutes on another box)."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README + organiser rulings",
    violations=(
        "`train_files`/train loader used after `stopping_early`/the wall-clock break",
        ("eval cache pre-filled from train shards at start-up (#945, #925) or from tensors kept in RAM since training"),
        (
            "eval in the same process reading live training objects (EMA weights, BN stats, retrieval store) "
            "instead of the deserialised artifact"
        ),
    ),
    allowed=(
        (
            "same process for train and eval, as the baseline does, if the evaluated model is rebuilt from "
            "the artifact file"
        ),
        "unlimited run-time memory during eval for state built from scored tokens",
        (
            "training-derived tables or tokens that are inside the counted 16 MB (README: allowed if you pay "
            "for the bits) - they still have to pass PG-C2"
        ),
    ),
    history="Flash-drive statement: Discord, Will DePue, 2026-03-25, preserved in the README of PR #891/#892.",
    legal_precedents=(549, 1019, 1060),
    illegal_precedents=(593, 606, 615, 626, 639, 656, 706, 925, 945, 1028),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/593",
        "https://github.com/openai/parameter-golf/pull/606",
        "https://github.com/openai/parameter-golf/pull/656",
        "https://github.com/openai/parameter-golf/pull/706",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Let evaluation read the artifact, the code and the validation shards and nothing else; put what is "
        "needed from training into the counted artifact."
    ),
    legal=(
        Example("evaluation reads artifact and validation shards", witnesses=ORDER_WITNESSES),
        Example(
            "counts of training tokens in the artifact",
            variant(program(evaluation=PAIRS, after_training=STORED, score=READ_BACK)),
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "the quantiser is calibrated on random tokens",
            {**variant(program(extra=FROM_NOWHERE, export=SCALED, main=CALL)), **NO_LOGS},
            witnesses=ORDER_WITNESSES,
        ),
    ),
    illegal=(
        Example(
            "a training step on train shards before scoring",
            variant(program(score=WARM_CACHE)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "counts of training tokens kept in memory",
            variant(program(evaluation=PAIRS, score=FILLED)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "calibration on train shards behind the full 600 s, without a log",
            {**variant(program(extra=FROM_SHARDS, export=SCALED, main=CALL)), **NO_LOGS},
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
