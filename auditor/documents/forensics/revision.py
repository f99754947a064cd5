"""Is the program in the log the submitted one? Printed source, logged code size, settings it does not have."""

from __future__ import annotations

import re

from auditor.documents.forensics.context import (
    CONTRADICTION,
    NOTABLE,
    SUSPICIOUS,
    Context,
    LogView,
    at,
    documents,
    fact,
    short,
)
from auditor.documents.forensics.embedded import Difference, EmbeddedSource, compare
from auditor.documents.forensics.provenance import is_result_line
from auditor.documents.model import ForensicFact, Source
from auditor.static.settings import declared_settings, known_names
from auditor.static.templates import LINE_PREFIX

_CODE_SIZE = re.compile(
    r"\b[Cc]ode(?:[ _](?:size|bytes))?(?:[ _]*\((?P<kind>[^)]*)\))?\s*[:=]\s*(?P<size>\d[\d,]*)\s*(?:bytes|B)\b"
)
_DUMPED = re.compile(r"^ {1,6}(?P<name>[A-Za-z_]\w*): (?P<value>.*)$")
_HEADER = re.compile(r"^\W*(?:hyper-?parameters|config(?:uration)?|settings)\W*$", re.I)
_FREE = {"rank", "local_rank", "world_size", "is_main_process", "distributed", "device", "run_id"}


def revision(context: Context, view: LogView) -> list[ForensicFact]:
    """Facts that tell whether the log belongs to the submitted text or to another one."""
    return [*_source(context, view), *_code_size(context, view), *_settings(context, view)]


def _source(context: Context, view: LogView) -> list[ForensicFact]:
    """One fact a log: the printed program that is nearest to the submission, and how far it is."""
    found: list[tuple[int, EmbeddedSource, str, Difference]] = []
    for source in view.sources[:8]:
        name, difference = _closest(context, source)
        if difference is not None and source.parses:
            rank = {"identical": -2, "comments": -1, "other program": 10**9}.get(difference.kind, difference.changed)
            found.append((rank, source, name, difference))
    if not found:
        return []
    _, source, name, difference = min(found, key=lambda item: item[0])
    if difference.kind == "identical":
        return []
    return [_source_fact(view, source, name, difference)]


def _closest(context: Context, source: EmbeddedSource) -> tuple[str, Difference | None]:
    """The layer of the submission that is nearest to the printed program."""
    best: tuple[str, Difference | None] = ("", None)
    layers = sorted(context.program.layers, key=lambda layer: abs(len(layer.text) - len(source.text)))
    for layer in layers[:6]:
        difference = compare(source.text, layer.text)
        if difference.kind in ("identical", "comments"):
            return layer.name, difference
        if difference.kind == "other program" and best[1] is not None:
            continue
        if best[1] is None or best[1].kind == "other program" or difference.changed < best[1].changed:
            best = (layer.name, difference)
    return best


def _source_fact(view: LogView, source: EmbeddedSource, name: str, difference: Difference) -> ForensicFact:
    first = at(view.log, source.first)
    if difference.kind == "comments":
        summary = f"the program printed in the log differs from {short(name)} in comments and blanks only"
        return fact("source-differs", NOTABLE, summary, [first])
    sources = [
        at(view.log, source.first + number - 1, text) if sign == "-" else Source(name, number, text)
        for sign, number, text in difference.examples
    ] or [first]
    if difference.kind == "other program":
        place = f"lines {source.first}-{source.last - 1}"
        summary = f"the program printed in the log ({place}) is not {short(name) or 'the submitted one'}"
        return fact("source-differs", SUSPICIOUS, summary, sources, "Fewer than a third of its lines are shared.")
    results = [(n, t) for n, t in view.elsewhere if is_result_line(t)]
    summary = (
        f"the log was written by another revision: {difference.removed} code lines only in the printed program, "
        f"{difference.added} only in {short(name)}"
    )
    explanation = "The log holds the source that ran; it is not the submitted text."
    if results:
        explanation += f" {len(results)} result lines of the log can only be printed by that revision."
        sources = [*[at(view.log, n, t) for n, t in results[:4]], *sources]
    strength = SUSPICIOUS if results or difference.changed > 40 else NOTABLE
    return fact("source-differs", strength, summary, sources, explanation)


def _code_size(context: Context, view: LogView) -> list[ForensicFact]:
    """The code size the program measured on itself, against every file and layer of the submission."""
    logged: dict[int, int] = {}
    for number, text in view.lines:
        for found in _CODE_SIZE.finditer(text):
            logged.setdefault(int(found["size"].replace(",", "")), number)
    if not logged or not context.program.layers:
        return []
    sizes = _sizes(context)
    strange = {size: line for size, line in logged.items() if not _explained(size, sizes)}
    # A log often states several sizes (readable and compressed); one that fits ties the log to the submission.
    if not strange or len(strange) < len(logged):
        return []
    shipped = context.program.counted_bytes or max(sizes, default=0)
    size = next(iter(strange))
    summary = (
        f"the log states {size:,} bytes of code; the submitted script has {shipped:,} and no file or layer matches"
    )
    explanation = "The script measures its own file, so another revision of it ran."
    return [fact("code-size", NOTABLE, summary, [at(view.log, n) for n in strange.values()], explanation)]


def _sizes(context: Context) -> dict[int, str]:
    """Sizes a script may report of itself: bytes and characters of every file and layer, with either line end."""
    sizes: dict[int, str] = {}
    for layer in context.program.layers:
        text = layer.text
        for value in (len(layer.data), len(text.encode("utf-8", "surrogatepass")), len(text)):
            sizes.setdefault(value, layer.name)
        sizes.setdefault(len(text) + text.count("\n"), layer.name)
    for path, entry in context.submission.files.items():
        size = getattr(entry, "size", None)
        if size and path.endswith(".py"):
            sizes.setdefault(size, path)
    return sizes


def _explained(size: int, sizes: dict[int, str]) -> bool:
    """Equal to one size, to the sum of two of them or of all files, or to a size with its final line end."""
    if any(abs(size - known) <= 1 for known in sizes):
        return True
    values = sorted(sizes)
    if len(values) <= 60 and any(size - value in sizes for value in values):
        return True
    files = {name: value for value, name in sizes.items() if "!" not in name}
    return size == sum(files.values())


def _settings(context: Context, view: LogView) -> list[ForensicFact]:
    """Listed settings the program does not have, and values nobody documents."""
    listed = listed_settings(view)
    if len(listed) < 8 or not any(item.dump for item in context.templates.dynamic):
        return []
    if context.templates.unreadable or context.program.main is None:
        return []
    known: set[str] = set(_FREE)
    for layer in context.program.layers:
        known |= known_names(layer.text)
    foreign = {name: place for name, place in listed.items() if name not in known}
    facts = []
    printed: set[str] = set()
    for source in view.sources:
        printed |= known_names(source.text)
    foreign = {name: place for name, place in foreign.items() if name not in printed}
    if foreign:
        names = ", ".join(sorted(foreign)[:8])
        summary = f"the log lists {len(foreign)} settings the submitted program does not have: {names}"
        explanation = (
            f"The program prints all attributes of its settings; {len(listed)} names are listed in this log, and these "
            "occur nowhere in the submitted source. Another program, or another revision, wrote it."
        )
        active = any(value == "True" for _, value in foreign.values())
        certain = active and context.readable and len(foreign) < 0.5 * len(listed)
        strength = CONTRADICTION if certain else SUSPICIOUS
        if not active:
            explanation += (
                " None of them is a switch that is on: a dormant feature that was taken out is the usual reason."
            )
        sources = [at(view.log, number) for number, _ in foreign.values()]
        facts.append(fact("foreign-setting", strength, summary, sources, explanation))
    return facts + _undocumented(context, view, listed)


def listed_settings(view: LogView) -> dict[str, tuple[int, str]]:
    """`  name: value` lines of the settings listing: name -> (line, value)."""
    found: dict[str, tuple[int, str]] = {}
    inside = False
    for number, text in view.lines:
        bare = LINE_PREFIX.sub("", text)
        if _HEADER.match(bare.strip()):
            inside = True
            continue
        match = _DUMPED.match(bare)
        if inside and match:
            found.setdefault(match["name"], (number, match["value"].strip()))
        elif inside and not re.match(r"^ {1,6}[A-Za-z_]\w*:?\s*$", bare):
            inside = False
    return found


def _undocumented(context: Context, view: LogView, listed: dict[str, tuple[int, str]]) -> list[ForensicFact]:
    """Values that are not the defaults and that no document of the folder sets."""
    text = documents(context)
    odd: list[tuple[int, str]] = []
    for layer in context.program.layers:
        for setting in declared_settings(layer.text, layer.name):
            place = listed.get(setting.name)
            if place is None or not setting.environment or setting.default is None or setting.name in _FREE:
                continue
            if _same(place[1], setting.default) or re.search(rf"\b{re.escape(setting.environment)}\b", text):
                continue
            if re.search(r"(?:path|dir|files|seed|id)$", setting.name):
                continue
            odd.append((place[0], f"{setting.name} = {place[1]} (default {setting.default})"))
    odd = list(dict.fromkeys(odd))
    if not odd:
        return []
    summary = f"{len(odd)} settings of the log are neither the defaults nor set by a documented command"
    shown = "; ".join(item for _, item in odd[:6])
    return [fact("undocumented-setting", NOTABLE, f"{summary}: {shown}", [at(view.log, n) for n, _ in odd])]


def _same(shown: str, default: object) -> bool:
    if shown == str(default):
        return True
    try:
        if isinstance(default, bool) or default in ("0", "1"):
            return shown in (str(bool(int(default))), str(int(default)))  # type: ignore[call-overload]
        return float(shown) == float(default)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
