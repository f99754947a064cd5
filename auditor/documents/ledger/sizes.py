"""Ledger rows about size: artifact, model and code bytes by every convention in use, units, files on disk.

Which code counts is disputed (rule book, PG-S-code-count): the log's own total, the script as shipped, the size a
packed script would have, and helpers the script imports are four different numbers, so all are given.
"""

from __future__ import annotations

import base64
import lzma
from collections.abc import Iterator

from auditor.documents.ledger.common import (
    CAP,
    CONFLICTS,
    NO_EVIDENCE,
    NOT_CLAIMED,
    Parts,
    at_line,
    claims,
    file_size,
    last_size,
    listing,
    number,
    place,
    row,
    scope_of,
    seed_key,
    seed_of,
    size_quantity,
    size_says,
    written,
)
from auditor.documents.ledger.headline import Headline
from auditor.documents.ledger.parts_of_size import file_rows, part_rows, unit_rows
from auditor.documents.model import Claim, LogRun, Quantity, SizeLine

#: Bytes a self-extracting one-line wrapper adds to its payload (import, decode, exec).
WRAPPER_BYTES = 150


def size_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about bytes."""
    runs = _reported_runs(parts, head)
    told = _seed_claims(parts)
    totals: dict[str, Quantity] = {}
    for run in runs:
        total = last_size(run, "total")
        own = told.get(seed_of(run), ())
        if total is None and last_size(run, "model") is None:
            continue
        sum_of = _run_total(run, parts.program.counted_bytes)
        yield _run_row(run, own, sum_of)
        if sum_of is not None:
            totals[seed_of(run) or run.path] = sum_of
    yield from _unlogged(told, totals)
    yield from _submission_rows(parts, runs, totals)
    yield from part_rows(parts, runs)
    yield from unit_rows(parts, runs, totals)
    yield from file_rows(parts, runs)


def _reported_runs(parts: Parts, head: Headline) -> list[LogRun]:
    """Runs the claim rests on; every run when no claim could be matched with any."""
    wanted = {id(item.run) for item in head.reported.values()}
    return [run for run in parts.runs if id(run) in wanted] or [run for run in parts.runs if run.sizes]


def _run_total(run: LogRun, shipped: int = 0) -> Quantity | None:
    """Counted total of a run: as printed, else the printed model plus the printed code, else plus the script as
    shipped (`shipped` bytes)."""
    total, model = last_size(run, "total"), last_size(run, "model")
    if total is not None:
        return size_quantity(run, total)
    code = last_size(run, "code packed") or last_size(run, "code")
    size = code.size if code else shipped
    if model is None or not size:
        return None
    return at_line(run, model.line, float(model.size + size), model.text)


def _how(run: LogRun) -> str:
    if last_size(run, "total") is not None:
        return "as printed"
    if last_size(run, "code packed") or last_size(run, "code"):
        return "model + code as printed"
    return "printed model + script as shipped"


def _seed_claims(parts: Parts) -> dict[str, tuple[Quantity, ...]]:
    """Seed -> stated artifact bytes (values in MB or MiB stay with the unit rows)."""
    found: dict[str, list[Quantity]] = {}
    tables = ([parts.main.seeds] if parts.main else []) + ([parts.readme.seeds] if parts.readme else [])
    for table in tables:
        for name, values in table.items():
            if "artifact_bytes" in values and values["artifact_bytes"].value > 1000:
                found.setdefault(seed_key(name), []).append(values["artifact_bytes"])
    return {seed: claims(*values) for seed, values in found.items()}


def _run_row(run: LogRun, told: tuple[Quantity, ...], sum_of: Quantity | None) -> Claim:
    total, model = last_size(run, "total"), last_size(run, "model")
    code, packed = last_size(run, "code"), last_size(run, "code packed")
    evidence = [size_quantity(run, line) for line in (total, model, packed or code) if line is not None]
    problems = [text for claim in told if (text := _mismatch(claim, run, sum_of))]
    printed = [line.size for line in run.sizes if line.kind in ("code", "code packed")]
    if total and model and printed and all(total.size != model.size + size for size in printed):
        if total.size == model.size:
            problems.append(f"the printed total ({number(total.size)}) is the model alone, without code")
        elif not _fits_other_lines(run, total):
            problems.append(
                f"model {number(model.size)} + code {listing(map(number, sorted(set(printed))))} is not the printed "
                f"total {number(total.size)} (lines {model.line}, {total.line})"
            )
    status = CONFLICTS if problems else None if sum_of else NO_EVIDENCE
    return row(
        "artifact bytes",
        scope_of(run),
        claimed=told,
        evidence=evidence,
        computed=sum_of.value if sum_of else None,
        how=_how(run),
        unit="bytes",
        status=status,
        note="; ".join(problems),
    )


def _fits_other_lines(run: LogRun, total: SizeLine) -> bool:
    """Whether any printed model and code (a log can hold several artifacts) add up to the total."""
    models = [line.size for line in run.sizes if line.kind in ("model", "model raw")]
    codes = [line.size for line in run.sizes if line.kind in ("code", "code packed")]
    return any(model + code == total.size for model in models for code in codes)


def _mismatch(claim: Quantity, run: LogRun, total: Quantity | None) -> str:
    """Why a stated size is not the run's total, "" when it is."""
    if total is None or size_says(claim, total.value):
        return ""
    told = f"{place(claim)} says {number(claim.value)} bytes"
    for kind, meaning in (
        ("model", "the model without code"),
        ("total raw", "the uncompressed total"),
        ("model raw", "the uncompressed model"),
    ):
        line = last_size(run, kind)
        if line is not None and size_says(claim, float(line.size)):
            return f"{told}: that is {meaning}; the total is {number(total.value)} ({place(total)})"
    others = {line.size: line for line in run.sizes if line.kind == "total"}
    for size, line in others.items():
        if size_says(claim, float(size)):
            return "" if len(others) > 1 else f"{told}, line {line.line}"
    difference = claim.value - total.value
    return f"{told}, the log {number(total.value)} ({place(total)}): {difference:+,.0f}"


def _unlogged(told: dict[str, tuple[Quantity, ...]], totals: dict[str, Quantity]) -> Iterator[Claim]:
    for seed, values in told.items():
        if seed not in totals:
            note = f"seed {seed} has no log with a size" if seed.isdigit() else ""
            yield row(
                "artifact bytes",
                f"seed {seed}" if seed.isdigit() else seed,
                claimed=values,
                computed=max(value.value for value in values),
                how="as stated",
                unit="bytes",
                status=NO_EVIDENCE,
                note=note,
            )


def _submission_rows(parts: Parts, runs: list[LogRun], totals: dict[str, Quantity]) -> Iterator[Claim]:
    """The submission's size: stated, and by every convention, the largest over the runs."""
    told = claims(parts.main.artifact_bytes if parts.main else None, *_readme_totals(parts, totals))
    largest = max(totals.values(), key=lambda item: item.value, default=None)
    models = {seed_of(run) or run.path: line for run in runs if (line := last_size(run, "model"))}
    if largest is None:
        yield _without_log(parts, told)
    else:
        yield _submission_row(parts, told, runs, totals, largest)
    if models:
        biggest = max(models.values(), key=lambda line: line.size)
        yield from _conventions(parts, runs, biggest)


def _readme_totals(parts: Parts, totals: dict[str, Quantity]) -> list[Quantity]:
    """README byte counts of the magnitude of an artifact that no log explains are not claims about the total: only
    those that equal a total are taken, so that a table of ablations is not read as a contradiction."""
    if parts.readme is None:
        return []
    values = {item.value for item in totals.values()}
    return [item for item in parts.readme.values.get("bytes", []) if item.value in values][:3]


def _submission_row(
    parts: Parts, told: tuple[Quantity, ...], runs: list[LogRun], totals: dict[str, Quantity], largest: Quantity
) -> Claim:
    every = [item.value for item in totals.values()]
    notes, conflict = [], False
    for claim in told:
        if size_says(claim, largest.value):
            continue
        fits = [item for item in totals.values() if size_says(claim, item.value)]
        if fits:
            notes.append(
                f"{place(claim)} states {number(claim.value)}, one run of {len(every)}; the largest is "
                f"{number(largest.value)} ({place(largest)})"
            )
        elif size_says(claim, sum(every) / len(every)):
            notes.append(f"{place(claim)} states the mean of {len(every)} runs; the largest is {number(largest.value)}")
        else:
            others = [run for run in parts.runs if (t := _run_total(run)) is not None and size_says(claim, t.value)]
            if others:
                name = others[0].path.rsplit("/", 1)[-1]
                notes.append(
                    f"{place(claim)} states the total of {name}; the largest reported is {number(largest.value)}"
                )
                continue
            reasons = [_mismatch(claim, run, totals.get(seed_of(run) or run.path)) for run in runs]
            best = min(filter(None, reasons), key=lambda text: "that is" not in text, default="")
            if best:
                conflict = True
                notes.append(best)
    parts_sum = _sum_problem(parts)
    if parts_sum:
        conflict, notes = True, [*notes, parts_sum]
    return row(
        "artifact bytes",
        "submission",
        claimed=told,
        evidence=tuple(totals.values()),
        computed=largest.value,
        how=f"largest total of {len(every)} logged runs",
        unit="bytes",
        status=CONFLICTS if conflict else None,
        note="; ".join(notes),
    )


def _sum_problem(parts: Parts) -> str:
    """Model plus code as stated against the stated total."""
    data = parts.main
    if data is None or not (data.artifact_bytes and data.model_bytes and data.code_bytes):
        return ""
    total = written(data.model_bytes) + written(data.code_bytes)
    if total.overlaps(written(data.artifact_bytes)):
        return ""
    return (
        f"{place(data.model_bytes)} + {place(data.code_bytes)} are {number(data.model_bytes.value)} + "
        f"{number(data.code_bytes.value)} = {number(data.model_bytes.value + data.code_bytes.value)}, stated total "
        f"{number(data.artifact_bytes.value)}"
    )


def _without_log(parts: Parts, told: tuple[Quantity, ...]) -> Claim:
    """No log has a total: what is stated, and whether a file of that size is in the folder."""
    problem = _sum_problem(parts)
    files = [(path, size) for path in parts.submission.artifacts if (size := file_size(parts, path))]
    match = next(((p, s) for p, s in files for claim in told if size_says(claim, float(s))), None)
    notes = [problem] if problem else []
    if match:
        notes.append(f"the stated total is the size of {match[0].rsplit('/', 1)[-1]} alone, without code")
    notes.append("no log prints a size" if told else "")
    return row(
        "artifact bytes",
        "submission",
        claimed=told,
        computed=told[0].value if told else None,
        how="as stated" if told else "",
        unit="bytes",
        status=CONFLICTS if problem or match else NO_EVIDENCE if told else NOT_CLAIMED,
        note="; ".join(filter(None, notes)),
    )


def _conventions(parts: Parts, runs: list[LogRun], model: SizeLine) -> Iterator[Claim]:
    """Model plus code by the conventions that the log's own total does not use."""
    shipped = parts.program.counted_bytes
    run = next(run for run in runs if model in run.sizes)
    evidence = [size_quantity(run, model)]
    if shipped:
        script = parts.submission.main_script or "the main script"
        total = model.size + shipped
        yield row(
            "artifact bytes, script as shipped",
            "submission",
            evidence=evidence,
            computed=float(total),
            how=f"largest model {number(model.size)} + {script.rsplit('/', 1)[-1]} {number(shipped)}",
            unit="bytes",
            note=_over(total),
        )
        if model.size < CAP < total and not parts.program.packed and parts.program.main is not None:
            packed = packed_size(parts.program.main.data or parts.program.main.text.encode())
            yield row(
                "artifact bytes, script packed",
                "submission",
                evidence=evidence,
                computed=float(model.size + packed),
                unit="bytes",
                how=f"largest model {number(model.size)} + lzma and base85 of the script, about {number(packed)}",
                note=_over(model.size + packed),
            )
    helpers = {path: size for path in parts.local_files if (size := file_size(parts, path))}
    helpers.pop(parts.submission.main_script or "", None)
    if helpers and shipped:
        total = model.size + shipped + sum(helpers.values())
        names = listing(f"{path.rsplit('/', 1)[-1]} {number(size)}" for path, size in helpers.items())
        yield row(
            "artifact bytes, with local files",
            "submission",
            evidence=evidence,
            computed=float(total),
            how=f"model + script + {names}",
            unit="bytes",
            note=_over(total),
        )


def packed_size(source: bytes) -> int:
    """Bytes of a self-extracting wrapper (lzma, base85) around a script, without minifying it: an upper estimate of
    what packing would give."""
    raw = lzma.compress(source, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    return len(base64.b85encode(raw)) + WRAPPER_BYTES


def _over(total: int) -> str:
    return f"{number(total - CAP)} bytes over {number(CAP)}" if total > CAP else ""
