"""Ledger rows about the model and the machine: parameters, vocabulary, other settings, hardware."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from auditor.documents.ledger.common import (
    CONFLICTS,
    NO_EVIDENCE,
    Parts,
    at_line,
    contrast,
    listing,
    number,
    place,
    row,
    says,
)
from auditor.documents.ledger.headline import Headline
from auditor.documents.metric import quotient_hull, tokenizer_for, vocabulary_of
from auditor.documents.model import Claim, LogRun, Quantity, Source

#: Setting names that mean the same, by the name the ledger uses.
ALIASES = {
    "vocab_size": ("vocab_size", "vocab", "vocabulary", "vocabulary_size"),
    "num_layers": ("num_layers", "n_layers", "layers", "n_layer", "physical_layers"),
    "model_dim": ("model_dim", "d_model", "dim", "n_embd", "hidden_dim", "embed_dim", "embedding_dim"),
    "num_heads": ("num_heads", "n_heads", "heads", "n_head", "attention_heads"),
    "num_kv_heads": ("num_kv_heads", "n_kv_heads", "kv_heads", "n_kv_head"),
    "train_seq_len": ("train_seq_len", "seq_len", "sequence_length", "train_seq_length"),
    "iterations": ("iterations",),
    "warmdown_iters": ("warmdown_iters", "warmdown_steps", "warmdown"),
    "tie_embeddings": ("tie_embeddings", "tied_embeddings"),
}


#: Type annotations that a log with embedded source may show in the place of a value.
TYPE_NAMES = frozenset({"int", "float", "str", "bool"})
_GPU = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\d[x×]))(GH200|GB200|B200|B300|H200|H100|H800|H20|A100|A800|A6000|A5000|A40|A10G|A10"
    r"|L40S|L40|L4|V100|T4|P100|MI300X|MI250X?|RTX ?(?:PRO )?\d{4}|[2345]0[6789]0|GB10|TPU"
    r"|M[1-4](?: (?:Max|Pro|Ultra))?)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


_COUNT = re.compile(r"(\d{1,3})\s*[x×]\s*(?:NVIDIA\s*)?", re.IGNORECASE)
_MACHINE = re.compile(
    rf"(?:{_COUNT.pattern})?{_GPU.pattern}[ -]?(?:\d\d ?GB)?(?: ?(?:SXM\d?|NVL|PCIe))?", re.IGNORECASE
)


def number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def settings_claims(parts: Parts, names: tuple[str, ...]) -> list[Quantity]:
    """Numeric settings of submission.json under any of the names (whole key or its last part)."""
    data = parts.main
    if data is None:
        return []
    found = []
    for key, value in data.settings.items():
        if re.split(r"[./]", key)[-1].lower() in names:
            quantity = _as_quantity(value, data.path, key)
            if quantity is not None:
                found.append(quantity)
    return found


def _as_quantity(value: Quantity | str, path: str, key: str) -> Quantity | None:
    if isinstance(value, Quantity):
        return value
    match = re.fullmatch(r"\s*~?([\d,_]+(?:\.\d+)?)([KMB]?)\s*", str(value))
    if not match:
        return None
    factor = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}[match.group(2)]
    return Quantity(float(re.sub("[,_]", "", match.group(1))) * factor, Source(path, key=key), str(value))


def parameters_row(parts: Parts) -> Iterator[Claim]:
    told = settings_claims(parts, ("model_params", "params", "num_params", "parameters", "n_params", "total_params"))
    logged = [run.params for run in parts.runs if run.params]
    if not told:
        return
    wrong = [c for c in told if logged and not any(says(c, item.value) for item in logged)]
    note = ""
    if wrong:
        note = contrast(wrong[0], logged[0], "parameters")
    yield row(
        "parameters",
        "submission",
        claimed=told,
        evidence=logged[:3],
        computed=logged[0].value if logged else None,
        how="as logged",
        unit="parameters",
        status=CONFLICTS if wrong else None if logged else NO_EVIDENCE,
        note=note,
    )


def vocabulary_row(parts: Parts) -> Iterator[Claim]:
    """Claimed vocabulary against the settings, the counts of the validation set and the first loss (ln V)."""
    told = settings_claims(parts, ALIASES["vocab_size"])
    found: list[tuple[int, str, Quantity]] = []
    for run in parts.runs:
        found += vocabulary_evidence(run)
    if not told and not found:
        return
    sizes = {size for size, _, _ in found}
    wrong = [claim for claim in told if sizes and int(claim.value) not in sizes]
    note = ""
    if wrong:
        reasons = {reason: size for size, reason, _ in found}
        note = f"{place(wrong[0])} says {number(wrong[0].value)}; " + listing(reasons)
        first = next((step for run in parts.runs for step in run.steps if step.step == 0 and step.val_loss), None)
        if first is not None and first.val_loss:
            start = f"a vocabulary of {number(wrong[0].value)} starts near {math.log(wrong[0].value):.4f}"
            note += f"; the loss before training is {first.val_loss:.4f}, {start}"
    yield row(
        "vocabulary",
        "submission",
        claimed=told,
        evidence=[item for _, _, item in found[:4]],
        computed=float(found[0][0]) if found else None,
        how=found[0][1] if found else "",
        unit="tokens",
        status=CONFLICTS if wrong else None,
        note=note,
    )


def vocabulary_evidence(run: LogRun) -> list[tuple[int, str, Quantity]]:
    """(vocabulary size, why, place) from the settings, the target count, the tokens per byte of a run."""
    found = []
    size = vocabulary_of(run)
    if size is not None:
        line = next((run.setting_lines[n] for n in run.setting_lines if n.lower() == "vocab_size"), run.first_line)
        found.append((size, f"the log's settings say {size}", at_line(run, line, float(size))))
    if run.val_tokens is not None:
        known = tokenizer_for(tokens=int(run.val_tokens.value))
        if known is not None:
            why = f"{number(run.val_tokens.value)} validation targets are those of {known.name}"
            found += [(size, why, Quantity(float(size), run.val_tokens.source)) for size in known.vocabulary]
    ratio = quotient_hull(run)
    if ratio is not None and not found and ratio.width < 0.002:
        known = tokenizer_for(ratio=ratio)
        if known is not None:
            item = run.results[-1] if run.results else run.steps[0]
            why = f"{ratio.middle:.4f} tokens per byte are those of {known.name}"
            found += [(size, why, at_line(run, item.line, float(size), item.text)) for size in known.vocabulary]
    return found


def setting_rows(parts: Parts) -> Iterator[Claim]:
    """Other hyper-parameters of submission.json against the settings that the logs say were in force."""
    data = parts.main
    if data is None:
        return
    for name, aliases in ALIASES.items():
        if name == "vocab_size":
            continue
        told = [(key, value) for key, value in data.settings.items() if re.split(r"[./]", key)[-1].lower() in aliases]
        if not told:
            continue
        in_force = [(run, value) for run in parts.runs if (value := _setting(run, aliases)) is not None]
        if not in_force:
            continue
        key, value = told[0]
        text = value.text or f"{value.value:g}" if isinstance(value, Quantity) else str(value)
        values = sorted({v for _, v in in_force})
        if _same_setting(text, values):
            continue
        claim = value if isinstance(value, Quantity) else Quantity(math.nan, Source(data.path, key=key), text)
        run = in_force[0][0]
        line = next((run.setting_lines[n] for n in run.setting_lines if n.lower() in aliases), None)
        yield row(
            name,
            "submission",
            claimed=(claim,),
            evidence=(at_line(run, line, math.nan, values[0]),),
            how="setting in force by the log",
            status=CONFLICTS,
            note=f"{place(claim)} says {text}, the log {listing(values)} ({run.path.rsplit('/', 1)[-1]})",
        )


def _setting(run: LogRun, aliases: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): value for name, value in run.settings.items()}
    values = (lowered[alias].strip() for alias in aliases if alias in lowered)
    # The type in an embedded `num_layers: int = 9` is not the setting.
    return next((value for value in values if value not in TYPE_NAMES), None)


def _same_setting(text: str, values: list[str]) -> bool:
    """Equal as numbers, as truth values, or as text; a text that is neither (a description) is not comparable."""
    truth = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "yes": 1.0, "no": 0.0}
    told = truth.get(text.strip().lower(), number_or_text(text.strip()))
    if isinstance(told, str):
        return True
    return any(truth.get(v.lower(), number_or_text(v)) == told for v in values)


def gpu_of(text: str) -> str:
    """GPU model named in a text, upper case without blanks, "" when none is."""
    match = _GPU.search(text)
    return re.sub(r"\s", "", match.group(1)).upper() if match else ""


def gpu_count(text: str) -> int | None:
    """Number of GPUs stated as `8x H100`, None when not stated."""
    match = next((m for m in _COUNT.finditer(text) if _GPU.match(text[m.end() :].lstrip())), None)
    return int(match.group(1)) if match else None


def machine_of(text: str) -> str:
    """The words of a text that name a machine (`8×H100 SXM`), its beginning when none do."""
    match = _MACHINE.search(text)
    return match.group().strip() if match else text[:40]


def hardware_row(parts: Parts, head: Headline) -> Iterator[Claim]:
    told: list[tuple[str, Source]] = []
    if parts.main is not None and parts.main.hardware:
        told.append((parts.main.hardware, Source(parts.main.path, key="hardware", excerpt=parts.main.hardware)))
    if parts.readme is not None:
        told += [(s.excerpt, s) for s in parts.readme.statements.get("hardware", []) if s.excerpt and gpu_of(s.excerpt)]
    runs = list({id(item.run): item.run for item in head.reported.values()}.values()) or parts.runs
    seen = [(run, gpu_of(_env(run, "gpu")), _count(run)) for run in runs]
    seen = [(run, gpu, count) for run, gpu, count in seen if gpu or count]
    if not told:
        return
    found = [_hardware_problems(words, source, seen) for words, source in told]
    # A README also names machines of earlier or other runs: it contradicts the logs only when no statement fits them.
    problems = [] if any(not item for item in found) else found[0]
    claimed = [Quantity(float(gpu_count(words) or 0), source, machine_of(words)) for words, source in told]
    evidence = [Quantity(float(count or 0), Source(run.path, run.first_line), gpu) for run, gpu, count in seen]
    yield row(
        "hardware",
        "submission",
        claimed=claimed,
        evidence=evidence,
        computed=float(seen[0][2]) if seen and seen[0][2] else None,
        how=listing({g for _, g, _ in seen if g}),
        unit="GPUs",
        status=CONFLICTS if problems else None if seen else NO_EVIDENCE,
        note="; ".join(problems[:3]),
    )


def _hardware_problems(words: str, source: Source, seen: list[tuple[LogRun, str, int | None]]) -> list[str]:
    models = {re.sub(r"\s", "", match.group(1)).upper() for match in _GPU.finditer(words)}
    count = gpu_count(words)
    problems = []
    for run, gpu, number_of in seen:
        log = run.path.rsplit("/", 1)[-1]
        if gpu and models and not any(gpu in model or model in gpu for model in models):
            problems.append(f"{place(Quantity(0.0, source))} says {'/'.join(sorted(models))}, {log} a {gpu}")
        elif count and number_of and count != number_of and len(models) == 1:
            problems.append(f"{place(Quantity(0.0, source))} says {count} GPUs, {log} {number_of}")
    return problems


def _env(run: LogRun, *names: str) -> str:
    return next((run.environment[name] for name in (*names, "gpu_name", "device") if name in run.environment), "")


def _count(run: LogRun) -> int | None:
    for text in (run.environment.get("gpu_count"), run.environment.get("world_size"), run.settings.get("world_size")):
        if text and text.strip().isdigit():
            return int(text)
    return None
