"""Ledger rows about sizes beside the log: code and model apart, units, files in the folder."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.documents.ledger.common import (
    AGREES,
    CONFLICTS,
    MIB,
    NO_EVIDENCE,
    Parts,
    claims,
    contrast,
    file_size,
    last_size,
    listing,
    number,
    place,
    row,
    scope_of,
    seed_of,
    size_quantity,
    size_says,
)
from auditor.documents.model import Claim, LogRun, Quantity, Source


def part_rows(parts: Parts, runs: list[LogRun]) -> Iterator[Claim]:
    """Model bytes and code bytes apart: stated, logged, shipped."""
    data = parts.main
    models = {seed_of(run) or run.path: (run, line) for run in runs if (line := last_size(run, "model"))}
    if data is not None and data.model_bytes is not None:
        lines = [size_quantity(run, line) for run, line in models.values()]
        every = [size_quantity(run, line) for run in parts.runs for line in run.sizes if line.kind == "model"]
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
    logged_code = [size_quantity(run, line) for run in runs if (line := last_size(run, "code"))]
    packed = [size_quantity(run, line) for run in runs if (line := last_size(run, "code packed"))]
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
    helpers = sum(size for path in parts.local_files if (size := file_size(parts, path)))
    layers.add(parts.program.counted_bytes + helpers)
    python = sum(entry.size or 0 for path, entry in parts.submission.files.items() if path.endswith(".py"))
    layers.add(python)
    return any(size in layers for size in sizes)


def unit_rows(parts: Parts, runs: list[LogRun], totals: dict[str, Quantity]) -> Iterator[Claim]:
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


def file_rows(parts: Parts, runs: list[LogRun]) -> Iterator[Claim]:
    """Model files in the folder against the sizes the logs print."""
    sizes = {line.size for run in parts.runs for line in run.sizes if line.kind in ("model", "model raw", "total")}
    for path in parts.submission.artifacts:
        size = file_size(parts, path)
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
