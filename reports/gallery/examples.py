"""Invented submissions with every verdict, for the gallery and for the tests of the renderers.

Nothing here is anybody's pull request: names, numbers, logs and code are made up, but consistent in themselves and of
the shape real ones have.
"""

from __future__ import annotations

import datetime as dt
import math

from auditor import timeline as tl
from auditor.case import Case
from auditor.documents.model import (
    Claim,
    EvalResult,
    ForensicFact,
    LogRun,
    Metadata,
    ProgressLine,
    Quantity,
    Readme,
    SizeLine,
    Source,
    StepLine,
    TrainLog,
)
from auditor.findings import Evidence, Finding, Severity, Status, Verdict, Witness
from auditor.review import Review
from auditor.submission import FileEntry, Submission, Track
from auditor.unpack import Layer, Program

FOLDER = "records/track_10min_16mb/2026-04-12_TwelveLayers_ChunkTTT"
HEAD = "5f3c1d9a7be24460c8f0a1d2b3c4e5f60718293a"
SCRIPT = f"{FOLDER}/train_gpt.py"
CHUNKS = 1893

LEGAL_LOOP = '''def evaluate_with_ttt(model, val_tokens, chunk=32768, epochs=3):
    """Score every chunk with the weights of the past, then learn from it."""
    optimizer = torch.optim.SGD(model.adapter_parameters(), lr=0.002, momentum=0.9)
    nats = bytes_scored = 0.0
    for i, tokens in enumerate(val_tokens.split(chunk)):
        with torch.inference_mode():
            loss, n_bytes = score(model, tokens)
        nats += loss.sum().item()
        bytes_scored += n_bytes
        for _ in range(epochs):
            optimizer.zero_grad()
            score(model, tokens)[0].mean().backward()
            optimizer.step()
    return nats / bytes_scored / math.log(2)
'''
ILLEGAL_LOOP = '''def evaluate_with_ttt(model, val_tokens, chunk=32768, epochs=3):
    """Adapt to each chunk, then measure it."""
    optimizer = torch.optim.SGD(model.adapter_parameters(), lr=0.002, momentum=0.9)
    nats = bytes_scored = 0.0
    for i, tokens in enumerate(val_tokens.split(chunk)):
        for _ in range(epochs):
            optimizer.zero_grad()
            score(model, tokens)[0].mean().backward()
            optimizer.step()
        with torch.inference_mode():
            loss, n_bytes = score(model, tokens)
        nats += loss.sum().item()
        bytes_scored += n_bytes
    return nats / bytes_scored / math.log(2)
'''
PREAMBLE = "import math\nimport os\n\nimport torch\n\nEPOCHS = int(os.environ.get('TTT_EPOCHS', '3'))\n\n\n"
FIRST = PREAMBLE.count("\n") + 1  # line of the loop's `def`


def run(
    seed: int, final: float, train_seconds: float, eval_seconds: float, model_bytes: int, steps: int = 7060
) -> LogRun:
    """A log of one seed: training curve, sizes, running score during evaluation, results."""
    path = f"{FOLDER}/train_seed{seed}.log"
    before = final + 0.0142
    lines = []
    for i in range(0, steps + 1, 250):
        val = before + 2.95 * math.exp(-i / 260) + 0.21 * math.exp(-i / 2100) - 0.21 * math.exp(-steps / 2100)
        loss = val / 0.593 + 0.012 * math.sin(i * 0.37 + seed)
        lines.append(
            StepLine(
                40 + i // 250,
                i,
                steps,
                loss,
                None if i % 1000 else loss * 0.998,
                None if i % 1000 else val,
                train_seconds * i / steps,
            )
        )
    lines.append(StepLine(90, steps, steps, before / 0.593, before / 0.593, before, train_seconds))
    progress = []
    for i in range(1, CHUNKS + 1, 20):
        wobble = 0.006 * math.sin(i * 0.013 + seed) * math.exp(-i / 900)
        progress.append(
            ProgressLine(
                110 + i // 20,
                "ttt_chunk",
                i,
                CHUNKS,
                final + 0.012 * math.exp(-i / 350) + wobble,
                None,
                eval_seconds * i / CHUNKS,
            )
        )
    progress.append(ProgressLine(205, "ttt_chunk", CHUNKS, CHUNKS, final + 0.00003, None, eval_seconds))
    code = 71_204
    return LogRun(
        path,
        1,
        210,
        seed=seed,
        steps=lines,
        progress=progress,
        results=[
            EvalResult(96, "final_int6_roundtrip", before * 1.683, before + 0.006, 5.1),
            EvalResult(207, "ttt_score_first_exact", final * 1.688, final, eval_seconds, 8),
        ],
        sizes=[
            SizeLine(93, "model", model_bytes, "zstd-22"),
            SizeLine(94, "code", code),
            SizeLine(95, "total", model_bytes + code),
        ],
        train_seconds=Quantity(train_seconds, Source(path, 90, f"step:{steps}/{steps} train_time:{train_seconds}s")),
        phases=[("hessians", 92, 4.2), ("compile warm-up", 99, 21.0)],
        settings={"ttt_epochs": "3"},
    )


def case(
    runs: list[LogRun],
    claimed_bpb: float,
    claimed_bytes: int,
    loop: str = LEGAL_LOOP,
    pr: int | None = 90012,
    track: Track = Track.RECORD,
    stated_train: float = 599.9,
) -> Case:
    """A case file around logs: script, metadata, README, ledger."""
    source = PREAMBLE + loop
    meta = f"{FOLDER}/submission.json"
    texts = {
        SCRIPT: source,
        meta: "{}",
        f"{FOLDER}/README.md": "# Twelve layers, chunk TTT\n",
        f"{FOLDER}/final_model.int6.ptz": "",
    } | {run.path: "" for run in runs}
    data = {path: text.encode() for path, text in texts.items()}
    sizes = {path: len(raw) for path, raw in data.items()} | {f"{FOLDER}/final_model.int6.ptz": runs[0].sizes[0].size}
    submission = Submission(
        label=str(pr or FOLDER),
        folder=FOLDER,
        files={p: FileEntry(p, sizes[p]) for p in sorted(data)},
        read_bytes=data.__getitem__,
        pr=pr,
        head=HEAD if pr else "",
        base="4908dc46f" if pr else "",
        track=track,
        date=dt.date(2026, 4, 12),
        main_script=SCRIPT,
        readme=f"{FOLDER}/README.md",
        metadata=[meta],
        logs=[run.path for run in runs],
        artifacts=[f"{FOLDER}/final_model.int6.ptz"],
    )
    layer = Layer(SCRIPT, source, source.encode())
    claim = Quantity(claimed_bpb, Source(meta, 5, f'"val_bpb": {claimed_bpb}', "val_bpb"), f"{claimed_bpb}")
    total = Quantity(
        claimed_bytes, Source(meta, 6, f'"bytes_total": {claimed_bytes}', "bytes_total"), f"{claimed_bytes:,}"
    )
    metadata = Metadata(
        meta,
        {},
        "Kim Example",
        "kim-example",
        "12L chunk TTT, int6",
        val_bpb=claim,
        artifact_bytes=total,
        train_seconds=Quantity(stated_train, Source(meta, 9)),
    )
    return Case(
        submission,
        Program(main=layer, layers=[layer], counted_bytes=len(source)),
        [metadata],
        Readme(f"{FOLDER}/README.md", title="Twelve layers, chunk TTT"),
        [TrainLog(run.path, [], [run]) for run in runs],
        _ledger(runs, claim, total, stated_train),
        absent={Witness.REPRODUCTION: "needs 8 GPUs; run `auditor reproduce`"},
    )


def _ledger(runs: list[LogRun], claim: Quantity, total: Quantity, stated_train: float) -> list[Claim]:
    finals = [
        Quantity(
            r.results[-1].val_bpb,
            Source(r.path, 207, f"val_bpb:{r.results[-1].val_bpb:.8f}"),
            f"{r.results[-1].val_bpb:.8f}",
        )
        for r in runs
    ]
    sizes = [Quantity(r.sizes[-1].size, Source(r.path, 95, "total"), f"{r.sizes[-1].size:,}") for r in runs]
    trained = [Quantity(r.train_seconds.value, r.train_seconds.source, f"{r.train_seconds.value:,.1f}") for r in runs]
    mean = sum(item.value for item in finals) / len(finals)
    largest = max(item.value for item in sizes)
    longest = max(item.value for item in trained)
    off = total.value != largest
    slow = abs(longest - stated_train) > 1
    rows = [
        Claim(
            "val_bpb",
            "submission",
            (claim,),
            tuple(finals),
            mean,
            f"mean of {len(runs)} logged results",
            "BPB",
            "agrees" if abs(mean - claim.value) < 2e-4 else "conflicts",
        ),
        Claim(
            "artifact bytes",
            "submission",
            (total,),
            tuple(sizes),
            largest,
            "largest logged total",
            "bytes",
            "conflicts" if off else "agrees",
            f"{total.text} bytes claimed, {largest:,.0f} logged" if off else "",
        ),
        Claim(
            "train seconds",
            "submission",
            (Quantity(stated_train, Source(claim.source.path, 9), f"{stated_train}"),),
            tuple(trained),
            longest,
            "longest logged run",
            "s",
            "conflicts" if slow else "agrees",
            f"{stated_train} s claimed, {longest:,.1f} s logged" if slow else "",
        ),
        Claim(
            "seeds",
            "submission",
            (),
            tuple(Quantity(r.seed, Source(r.path, 3, f"seed:{r.seed}")) for r in runs),
            len(runs),
            "runs with a logged seed",
            "",
            "agrees",
        ),
        Claim(
            "eval seconds",
            "submission",
            (),
            tuple(Quantity(r.results[-1].seconds, Source(r.path, 207), f"{r.results[-1].seconds}") for r in runs),
            max(r.results[-1].seconds for r in runs),
            "longest logged evaluation",
            "s",
            "not claimed",
        ),
    ]
    for one, final in zip(runs, finals, strict=True):
        rows.append(
            Claim("val_bpb", f"seed {one.seed}", (), (final,), final.value, "last result line", "BPB", "not claimed")
        )
    return rows


def static_timeline(legal: bool) -> tl.Timeline:
    """What reading the loop yields, symbolic spans."""
    at = (FIRST + 5, FIRST + 11) if legal else (FIRST + 9, FIRST + 7)
    whole, item = tl.Span(tl.Split.VAL, tl.Extent.ALL), tl.Span(tl.Split.VAL, tl.Extent.ITEM, "chunk i")
    train = tl.Span(tl.Split.TRAIN, tl.Extent.ALL)
    score = tl.Score(_at(at[0] + 1), item, True, "ttt", phase=tl.Phase.EVALUATION, why=(_at(FIRST + 4),))
    update = tl.Loop(
        "epoch",
        _at(at[1] - 2),
        "range(epochs)",
        tl.Sequence(
            (
                tl.Update(
                    _at(at[1] + 1),
                    item,
                    "adapter",
                    tl.Via.OPTIMIZER,
                    phase=tl.Phase.EVALUATION,
                    why=(_at(FIRST + 2),),
                ),
            )
        ),
    )
    inner = (tl.Read(_at(FIRST + 4), item, phase=tl.Phase.EVALUATION), score, update)
    chunks = tl.Loop(
        "chunk i",
        _at(FIRST + 4),
        "enumerate(val_tokens.split(chunk))",
        tl.Sequence(inner if legal else (inner[0], update, score)),
    )
    body = (
        tl.PhaseMark(_at(4), tl.Phase.TRAINING),
        tl.Loop(
            "step",
            _at(5),
            "range(iterations)",
            tl.Sequence((tl.Read(_at(5), train), tl.Update(_at(6), train, "parameters", phase=tl.Phase.TRAINING))),
        ),
        tl.Serialize(_at(6)),
        tl.Branch(
            _at(6),
            "EPOCHS > 0",
            True,
            tl.Sequence(
                (
                    tl.Load(_at(7), "final_model.int6.ptz"),
                    tl.Call(_at(8), "evaluate_with_ttt", tl.Sequence((tl.Read(_at(FIRST), whole), chunks))),
                )
            ),
            tl.Sequence(()),
        ),
        tl.Report(_at(FIRST + 13), "val_bpb"),
    )
    return tl.Timeline("static analysis", tl.Sequence(body), {"TTT_EPOCHS": "3", "iterations": "20000"})


def executed_timeline(legal: bool, chunks: int = 16, size: int = 512) -> tl.Timeline:
    """What a scaled-down run yields: the same order with token positions."""
    rows: list[tl.Node] = [tl.PhaseMark(_at(8), tl.Phase.EVALUATION)]
    for i in range(chunks):
        span = tl.Span(tl.Split.VAL, tl.Extent.ITEM, "", ((i * size, (i + 1) * size),))
        score = tl.Score(_at(FIRST + (6 if legal else 10)), span, True, "ttt")
        updates = [tl.Update(_at(FIRST + (12 if legal else 8)), span, "adapter") for _ in range(2)]
        rows += [score, *updates] if legal else [*updates, score]
    rows.append(tl.Report(_at(FIRST + 13), "val_bpb", 3.2718))
    return tl.Timeline("CPU run", tl.Sequence(tuple(rows)), {"TTT_EPOCHS": "2", "iterations": "12"})


def _at(line: int) -> tl.Place:
    return tl.Place(SCRIPT, line)


def finding(
    rule: str,
    status: Status,
    summary: str,
    severity: Severity = Severity.ILLEGAL,
    witness: Witness = Witness.DOCUMENTS,
    evidence: tuple[Evidence, ...] = (),
    explanation: str = "",
    remedy: str = "",
    decided: tuple[Witness, ...] = (),
) -> Finding:
    """A finding with its fields in the order in which examples state them."""
    return Finding(rule, status, summary, explanation, evidence, remedy, witness, severity, decided)


def passes() -> list[Finding]:
    """Findings of a submission by the book."""
    ok, ill, nre = Status.PASS, Severity.ILLEGAL, Severity.NOT_RECORD_ELIGIBLE
    return [
        finding(
            "PG-C1-causality",
            ok,
            "changing later tokens moved no earlier loss (2,048 positions, 3 probes)",
            ill,
            Witness.RUN,
        ),
        finding("PG-C2-normalisation", ok, "losses come from cross entropy over all 1,024 tokens", ill, Witness.STATIC),
        finding(
            "PG-C3-score-first",
            ok,
            "16 of 16 chunks scored before the first update that saw them",
            ill,
            Witness.RUN,
            (Evidence(SCRIPT, FIRST + 6, "", "score"), Evidence(SCRIPT, FIRST + 12, "", "update")),
        ),
        finding("PG-C4-single-pass", ok, "every position counted once", ill, Witness.RUN),
        finding("PG-B-bpb-formula", ok, "implied bytes 151,080,363: the full sp1024 validation set", ill),
        finding("PG-D-val-in-train", ok, "training reads train shards only", ill, Witness.STATIC),
        finding("PG-S-cap", ok, "largest total 15,682,411 bytes, 317,589 below the cap", nre),
        finding("PG-T-train", ok, "599.9 s in the longest of 3 logs", nre),
        finding("PG-T-eval", ok, "212.4 s in the longest of 3 logs", nre),
        finding("PG-ST-seeds", ok, "3 runs of one configuration: seeds 42, 314, 2025", nre),
        finding("PG-P-required-files", ok, "README, submission.json, script and 3 logs are there", Severity.PACKAGING),
        finding("PG-TRACK-AB", Status.NOT_APPLICABLE, "the label is not asked for on this date", Severity.ADVICE),
    ]


def _with(findings: list[Finding], *changed: Finding) -> list[Finding]:
    names = {item.rule for item in changed}
    return [item for item in findings if item.rule not in names] + list(changed)


def clean() -> Review:
    """A clean record submission that every local witness examined."""
    runs = [
        run(seed, bpb, 599.9, 212.4, 15_611_207 - seed) for seed, bpb in ((42, 1.0952), (314, 1.0949), (2025, 1.0957))
    ]
    made = case(runs, 1.0953, 15_682_369)
    made.timelines = {Witness.STATIC: static_timeline(True), Witness.RUN: executed_timeline(True)}
    return Review(
        "90012",
        Verdict.CLEAN,
        "every rule that binds a record submission of 2026-04-12 was checked and met",
        "8-GPU reproduction: speed and the headline BPB are taken from the logs",
        made.submission,
        made,
        passes(),
        seconds=31.4,
    )


def violation() -> Review:
    """Trains on each chunk before scoring it; both program witnesses see it."""
    runs = [
        run(seed, bpb, 599.9, 212.4, 15_611_207 - seed) for seed, bpb in ((42, 1.0552), (314, 1.0549), (2025, 1.0557))
    ]
    made = case(runs, 1.0553, 15_682_369, ILLEGAL_LOOP, 90013)
    made.timelines = {Witness.STATIC: static_timeline(False), Witness.RUN: executed_timeline(False)}
    seen = (
        Evidence(SCRIPT, FIRST + 8, "", "weights change: the chunk has been seen"),
        Evidence(SCRIPT, FIRST + 10, "", "only now is the same chunk scored"),
        Evidence(SCRIPT, FIRST + 11, "", "and this score is the one reported"),
    )
    fails = finding(
        "PG-C3-score-first",
        Status.FAIL,
        "16 of 16 chunks were trained on before they were scored",
        Severity.ILLEGAL,
        Witness.RUN,
        seen,
        "In the scaled-down run every counted position came after an update that had seen it, and static "
        "analysis finds the same order in the source. The reported BPB is a training loss.",
        "Score each chunk first, add its loss to the totals, and train on it only afterwards.",
    )
    return Review(
        "90013",
        Verdict.VIOLATION,
        "every chunk is trained on before it is scored (train_gpt.py:17, :19)",
        "8-GPU reproduction; log provenance of seed 2025",
        made.submission,
        made,
        _with(passes(), fails),
        seconds=28.9,
    )


def not_eligible() -> Review:
    """Over the cap and over the time budget by its own log, with claims that conflict; nobody ran the program."""
    runs = [run(42, 1.13256182, 1386.503, 178.5, 16_265_723, 20_000)]
    made = case(runs, 1.1326, 15_510_000, pr=90014, stated_train=2222.0)
    made.absent |= {
        Witness.STATIC: "the main script does not parse (train_gpt.py:212)",
        Witness.RUN: "left out with --no-run",
    }
    made.forensics = [
        ForensicFact(
            "line no template prints",
            "contradiction",
            "14 log lines cannot come from this script",
            (Source(runs[0].path, 93, "quant:int5 artifact size: 16265723 bytes"),),
            "No print or log call of train_gpt.py yields a line of this shape.",
        ),
        ForensicFact(
            "round numbers",
            "notable",
            "running scores end in 01 five times in a row",
            (Source(runs[0].path, 120, "ttt_chunk [1000/1893] bpb=1.1801"),),
        ),
    ]
    log, nre = runs[0].path, Severity.NOT_RECORD_ELIGIBLE
    both = (Witness.STATIC, Witness.RUN)
    changed = [
        finding(
            "PG-S-cap",
            Status.FAIL,
            "16,336,927 bytes, 336,927 over the cap of 16,000,000",
            nre,
            evidence=(Evidence(log, 95, "total: 16336927 bytes", "model 16,265,723 + code 71,204"),),
            explanation="The README gives 15.51 MB; that is mebibytes. The cap is decimal and counts the code.",
            remedy="Reduce the artifact by 336,927 bytes, or submit to the non-record track.",
        ),
        finding(
            "PG-T-train",
            Status.FAIL,
            "1,386.5 s of training on a 600 s track",
            nre,
            evidence=(Evidence(log, 90, "step:20000/20000 train_time:1386503ms"),),
            remedy="Train within 600 s on 8xH100, or submit as unlimited compute.",
        ),
        finding(
            "PG-ST-seeds",
            Status.FAIL,
            "one log for three claimed seeds",
            nre,
            remedy="Add the logs of seeds 314 and 2025.",
        ),
        finding(
            "PG-P-log-provenance",
            Status.WARN,
            "14 log lines cannot come from this script",
            Severity.DISPUTED,
            evidence=(Evidence(log, 93, "quant:int5 artifact size: 16265723 bytes"),),
        ),
    ]
    for rule in (
        "PG-C1-causality",
        "PG-C2-normalisation",
        "PG-C3-score-first",
        "PG-C4-single-pass",
        "PG-D-val-in-train",
    ):
        changed.append(
            finding(
                rule,
                Status.UNKNOWN,
                "not examined: the order of scores and updates",
                decided=both,
                explanation="Static analysis: the script does not parse. CPU run: left out.",
                remedy="Repair the syntax error, then review again.",
            )
        )
    return Review(
        "90014",
        Verdict.NOT_ELIGIBLE,
        "336,927 bytes over the cap and 786.5 s over the training budget, by its own log",
        "conditions C1-C4 (the script does not parse), reproduction",
        made.submission,
        made,
        _with(passes(), *changed),
        seconds=1.2,
    )


def needs_review() -> Review:
    """The witnesses disagree: the run never reaches the path that static analysis worries about."""
    runs = [run(seed, bpb, 598.2, 401.0, 15_401_207) for seed, bpb in ((1337, 1.0811), (42, 1.0815), (7, 1.0808))]
    made = case(runs, 1.0811, 15_472_411, pr=90015)
    made.timelines = {Witness.STATIC: static_timeline(False), Witness.RUN: executed_timeline(True)}
    changed = finding(
        "PG-C3-score-first",
        Status.WARN,
        "witnesses disagree about the order of score and update",
        Severity.DISPUTED,
        Witness.STATIC,
        (Evidence(SCRIPT, FIRST + 6, "", "score"),),
        "Static analysis: update before score when TTT_PRE=1; the run had TTT_PRE=0.",
        "Say in the README which setting the reported runs used.",
    )
    return Review(
        "90015",
        Verdict.NEEDS_REVIEW,
        "the path that decides the score-first rule depends on TTT_PRE, which no log states",
        "the branch TTT_PRE=1 (never executed), reproduction",
        made.submission,
        made,
        _with(passes(), changed),
        seconds=33.0,
    )


def error() -> Review:
    """Could not be audited at all."""
    text = "'90016' changes no file of a submission; name a pull request that adds a folder under records/"
    return Review("90016", Verdict.ERROR, text, "everything", error=text, seconds=0.1)


EXAMPLES = {
    "clean": clean,
    "violation": violation,
    "not-eligible": not_eligible,
    "needs-review": needs_review,
    "error": error,
}
