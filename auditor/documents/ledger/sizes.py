"""Ledger rows about size: artifact, model and code bytes by every convention in use, units, files on disk.

Which code counts is disputed (rule book, PG-S-code-count): the log's own total, the script as shipped, the size a
packed script would have, and helpers the script imports are four different numbers, so all are given.
"""

from __future__ import annotations

import base64
import lzma
from collections.abc import Iterator

from auditor.documents.ledger.common import (
    AGREES,
    CAP,
    CONFLICTS,
    MIB,
    NO_EVIDENCE,
    NOT_CLAIMED,
    Parts,
    at_line,
    claims,
    contrast,
    listing,
    number,
    place,
    row,
    says,
    scope_of,
    seed_key,
    seed_of,
    written,
)
from auditor.documents.ledger.headline import Headline
from auditor.documents.model import Claim, LogRun, Quantity, SizeLine, Source

#: Bytes a self-extracting one-line wrapper adds to its payload (import, decode, exec).
WRAPPER_BYTES = 150


def size_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about bytes."""
    runs = _reported_runs(parts, head)
    told = _seed_claims(parts)
    totals: dict[str, Quantity] = {}
    for run in runs:
        total = _last(run, "total")
        own = told.get(seed_of(run), ())
        if total is None and _last(run, "model") is None:
            continue
        sum_of = _run_total(run, parts.program.counted_bytes)
        yield _run_row(run, own, sum_of)
        if sum_of is not None:
            totals[seed_of(run) or run.path] = sum_of
    yield from _unlogged(told, totals)
    yield from _submission_rows(parts, runs, totals)
    yield from _part_rows(parts, runs)
    yield from _unit_rows(parts, runs, totals)
    yield from _file_rows(parts, runs)


def _reported_runs(parts: Parts, head: Headline) -> list[LogRun]:
    """Runs the claim rests on; every run when no claim could be matched with any."""
    wanted = {id(item.run) for item in head.reported.values()}
    return [run for run in parts.runs if id(run) in wanted] or [run for run in parts.runs if run.sizes]


def _last(run: LogRun, kind: str) -> SizeLine | None:
    return next((line for line in reversed(run.sizes) if line.kind == kind), None)


def _quantity(run: LogRun, line: SizeLine) -> Quantity:
    return at_line(run, line.line, float(line.size), line.text)


def _run_total(run: LogRun, shipped: int = 0) -> Quantity | None:
    """Counted total of a run: as printed, else the printed model plus the printed code, else plus the script as
    shipped (`shipped` bytes)."""
    total, model = _last(run, "total"), _last(run, "model")
    if total is not None:
        return _quantity(run, total)
    code = _last(run, "code packed") or _last(run, "code")
    size = code.size if code else shipped
    if model is None or not size:
        return None
    return at_line(run, model.line, float(model.size + size), model.text)


def _how(run: LogRun) -> str:
    if _last(run, "total") is not None:
        return "as printed"
    if _last(run, "code packed") or _last(run, "code"):
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
    total, model = _last(run, "total"), _last(run, "model")
    code, packed = _last(run, "code"), _last(run, "code packed")
    evidence = [_quantity(run, line) for line in (total, model, packed or code) if line is not None]
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


def size_says(claim: Quantity, size: float) -> bool:
    """Whether a stated size can be this one: to the byte, or for a round number (15900000) to its last digit that is
    not zero, at best a tenth of a megabyte."""
    digits = f"{claim.value:.0f}"
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros >= 3:
        return abs(claim.value - size) <= min(10.0**zeros, 1e5)
    return says(claim, size)


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
        line = _last(run, kind)
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
    models = {seed_of(run) or run.path: line for run in runs if (line := _last(run, "model"))}
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
    files = [(path, size) for path in parts.submission.artifacts if (size := _size(parts, path))]
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
    evidence = [_quantity(run, model)]
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
        if total > CAP and not parts.program.packed and parts.program.main is not None:
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
    helpers = {path: size for path in parts.local_files if (size := _size(parts, path))}
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


def _size(parts: Parts, path: str) -> int | None:
    entry = parts.submission.files.get(path)
    return entry.size if entry else None


def _part_rows(parts: Parts, runs: list[LogRun]) -> Iterator[Claim]:
    """Model bytes and code bytes apart: stated, logged, shipped."""
    data = parts.main
    models = {seed_of(run) or run.path: (run, line) for run in runs if (line := _last(run, "model"))}
    if data is not None and data.model_bytes is not None:
        lines = [_quantity(run, line) for run, line in models.values()]
        every = [_quantity(run, line) for run in parts.runs for line in run.sizes if line.kind == "model"]
        fits = not lines or any(size_says(data.model_bytes, item.value) for item in every)
        near = min(lines, key=lambda item: abs(item.value - data.model_bytes.value), default=None)
        note = ""
        if not fits and near is not None:
            note = contrast(data.model_bytes, near, "bytes")
        yield row(
            "model bytes",
            "submission",
            claimed=(data.model_bytes,),
            evidence=lines,
            computed=max((item.value for item in lines), default=None),
            how="largest logged",
            unit="bytes",
            status=NO_EVIDENCE if not lines else AGREES if fits else CONFLICTS,
            note=note,
        )
    yield from _code_row(parts, runs)


def _code_row(parts: Parts, runs: list[LogRun]) -> Iterator[Claim]:
    told = claims(parts.main.code_bytes if parts.main else None)
    logged_code = [_quantity(run, line) for run in runs if (line := _last(run, "code"))]
    packed = [_quantity(run, line) for run in runs if (line := _last(run, "code packed"))]
    shipped = parts.program.counted_bytes
    sizes = sorted({int(item.value) for item in logged_code})
    problems = []
    if len(sizes) > 1:
        problems.append(f"the runs print different code sizes: {listing(map(number, sizes))}")
    if shipped and sizes and shipped not in sizes and not _known_variant(parts, sizes, packed):
        differ = shipped - sizes[-1]
        problems.append(
            f"the runs print {listing(map(number, sizes))} bytes of code ({place(logged_code[-1])}), the shipped "
            f"script has {number(shipped)} ({differ:+,}): it is not the file that ran"
        )
    possible = [*sizes, *(int(item.value) for item in packed), *([shipped] if shipped else [])]
    for claim in told:
        if possible and not any(size_says(claim, float(size)) for size in possible):
            problems.append(
                f"{place(claim)} says {number(claim.value)}; logged and shipped are {listing(map(number, possible))}"
            )
        elif shipped and not size_says(claim, float(shipped)) and sizes == [int(claim.value)] and problems:
            problems[-1] += f"; {place(claim)} repeats the logged number"
    if told or logged_code or packed:
        yield row(
            "code bytes",
            "submission",
            claimed=told,
            evidence=(*logged_code, *packed),
            computed=float(shipped) if shipped else None,
            how="main script as shipped",
            unit="bytes",
            status=CONFLICTS if problems else None,
            note="; ".join(problems),
        )


def _known_variant(parts: Parts, sizes: list[int], packed: list[Quantity]) -> bool:
    """Whether a logged code size is that of another layer of the shipped program (a packed script prints the size of
    either layer), of the script with other line ends, or of script and helpers together."""
    layers = {len(layer.data) for layer in parts.program.layers}
    layers |= {len(layer.text.encode()) for layer in parts.program.layers}
    main = parts.program.main
    if main is not None:
        lines = main.text.count("\n")
        layers |= {len(main.text.encode()) + lines, len(main.data) - lines, len(main.text)}
        # Editors and web forms add or drop the final newline.
        stripped = len(main.data.rstrip())
        layers |= {stripped, stripped + 1}
    layers |= {int(item.value) for item in packed if parts.program.packed}
    helpers = sum(size for path in parts.local_files if (size := _size(parts, path)))
    layers.add(parts.program.counted_bytes + helpers)
    python = sum(entry.size or 0 for path, entry in parts.submission.files.items() if path.endswith(".py"))
    layers.add(python)
    return any(size in layers for size in sizes)


def _unit_rows(parts: Parts, runs: list[LogRun], totals: dict[str, Quantity]) -> Iterator[Claim]:
    """Sizes written as MB: decimal, or MiB under another name? Only statements that one reading explains are judged."""
    if parts.readme is None:
        return
    known: dict[str, float] = {f"total of {key.rsplit('/', 1)[-1]}": item.value for key, item in totals.items()}
    for run in runs:
        for line in run.sizes:
            if line.kind == "model":
                known[f"model of {scope_of(run)}"] = float(line.size)
    stated_total = parts.main.artifact_bytes if parts.main else None
    if stated_total is not None:
        known.setdefault("stated total", stated_total.value)
    wrong: dict[str, tuple[Quantity, str]] = {}
    for claim in parts.readme.values.get("mb", []):
        meant = mib_as_mb(claim, known)
        if meant:
            wrong.setdefault(claim.text, (claim, meant))
    if not wrong:
        return
    notes = [f"{claim.text.strip()} ({place(claim)}) is {meant}" for claim, meant in wrong.values()]
    yield row(
        "size unit",
        "submission",
        claimed=[claim for claim, _ in wrong.values()],
        computed=max(known.values()),
        how="largest known size",
        unit="bytes",
        status=CONFLICTS,
        note="; ".join(notes[:4]) + "; 1 MB is 1,000,000 bytes, and so is the cap's",
    )


def mib_as_mb(claim: Quantity, known: dict[str, float]) -> str:
    """What a size written in MB is when only the reading as MiB explains it, "" otherwise.

    `known` maps names to byte counts. Three or more digits are needed: "16 MB" can be anything.
    """
    value = claim.value / 1e6 if claim.value > 1000 else claim.value
    digits = claim.text.partition(".")[2]
    decimals = len(digits) - len(digits.lstrip("0123456789"))
    if decimals < 2:
        return ""
    unit = 10.0**-decimals
    if any(abs(size / 1e6 - value) <= unit for size in known.values()):
        return ""
    for name, size in known.items():
        if abs(size / MIB - value) <= unit / 2 * 1.0001:
            return f"MiB: the {name} is {number(size)} bytes = {size / 1e6:.2f} MB"
    return ""


def _file_rows(parts: Parts, runs: list[LogRun]) -> Iterator[Claim]:
    """Model files in the folder against the sizes the logs print."""
    sizes = {line.size for run in parts.runs for line in run.sizes if line.kind in ("model", "model raw", "total")}
    for path in parts.submission.artifacts:
        size = _size(parts, path)
        if size is None:
            continue
        evidence = (Quantity(float(size), Source(path)),)
        models = [line for run in runs for line in run.sizes if line.kind == "model"]
        note, status = "", None
        if sizes and size not in sizes and models:
            near = min(models, key=lambda line: abs(line.size - size))
            note = f"the file has {number(size)} bytes, the nearest logged model {number(near.size)} (line {near.line})"
            # Foreign blobs lie in folders too; only a file of an artifact's size can be meant as the artifact.
            status = CONFLICTS if abs(size - near.size) < 0.05 * near.size else None
        yield row(
            "artifact file",
            path.rsplit("/", 1)[-1],
            evidence=evidence,
            computed=float(size),
            how="file in the folder",
            unit="bytes",
            status=status,
            note=note,
        )
