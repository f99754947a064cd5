"""submission.json and its like: headline, sizes, times, per-seed results and settings, wherever a file keeps them.

The schema was never enforced: 1,873 different top-level keys occur. Keys are therefore recognised by their words, and
every value keeps its key path, line and text, so that a reader can check what was taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from auditor.documents import amounts
from auditor.documents import metadata_keys as keys
from auditor.documents.jsontext import Node, parse
from auditor.documents.metadata_seeds import read_seeds
from auditor.documents.model import Metadata, Quantity, Source
from auditor.text import decode

#: Above this a file is no submission.json (bytes).
MAX_BYTES = 4 * 2**20
_OTHERS = re.compile(
    r"pre_?quant|pre_?ttt|baseline|delta|std|stdev|_sd\b|base_|comparison|threshold|record|"
    r"sota|prior|previous|target|versus|_vs_|"
    r"improv|gain|margin|reference|merged|leaderboard|without|ablat|float|ema|step|train|parent|vs_|reduction|diff|"
    r"predict|expect|estimat|project|goal|hop(?:e|ed)|tentative|recovery|note|method|seeds?$|"
    r"p_value|lower|upper|_ci|worst|max$|min$|range"
)

Leaf = tuple[tuple[str, ...], Node]


def read_metadata(path: str, data: bytes) -> Metadata:
    """Read a submission.json tolerantly.

    Units: sizes in bytes, times in seconds; a number without a unit is interpreted by its magnitude and the problem
    list says so. Never raises: what cannot be read becomes a problem.
    """
    found = Metadata(path)
    if len(data) > MAX_BYTES:
        found.problems.append(f"{path}: {len(data):,} bytes, only the first {MAX_BYTES:,} were read")
    root, repairs = parse(decode(data[:MAX_BYTES]))
    found.problems += [f"{path}: {what}" for what in repairs]
    root = _object(path, root, found.problems)
    if root is None:
        return found
    plain = root.plain()
    found.raw = plain if isinstance(plain, dict) else None
    _Filler(found, root).fill()
    return found


def _object(path: str, root: Node | None, problems: list[str]) -> Node | None:
    """The object that speaks for the file: the root, or the first object of a list."""
    if root is None:
        return None
    if root.kind == "list":
        objects = [item for item in root.items if item.kind == "object"]
        problems.append(f"{path}: the file is a list of {len(root.items)} items, the first object is read")
        return objects[0] if objects else None
    if root.kind != "object":
        problems.append(f"{path}: the file holds a single value, not an object")
        return None
    return root


class _Filler:
    """Fills a `Metadata` from a parsed object; one method per group of fields."""

    def __init__(self, found: Metadata, root: Node) -> None:
        self.found = found
        self.root = root
        self.leaves: list[Leaf] = list(root.walk())
        self.used: set[tuple[str, ...]] = set()

    def fill(self) -> None:
        self._identity()
        self.found.seeds = read_seeds(self.found.path, self.root, self.used)
        self._scores()
        self._sizes()
        self._times()
        self._settings()

    # ------------------------------------------------------------------ helpers

    def quantity(self, leaf: Leaf, value: float, text: str = "") -> Quantity:
        path, node = leaf
        self.used.add(path)
        key = ".".join(path)
        return Quantity(
            value, Source(self.found.path, node.line, f'"{path[-1]}": {node.text}'[:300], key), text or node.text
        )

    def candidates(self, names: Iterable[str]) -> Iterator[Leaf]:
        """Leaves by name, in order of the names; the top level first, then objects that hold results."""
        top = {normal(path[0]): (path, node) for path, node in reversed(self.leaves) if len(path) == 1}
        nested: dict[str, Leaf] = {}
        for path, node in self.leaves:
            parents = [normal(part) for part in path[:-1]]
            if parents and not any(_foreign(part) for part in parents) and any(_holds(part) for part in parents):
                nested.setdefault(normal(path[-1]), (path, node))
        for group in (top, nested):
            for name in names:
                if name in group:
                    yield group[name]
        for name in names:  # an object under the name itself: {"val_bpb": {"mean": ...}}
            for path, node in self.leaves:
                if (
                    len(path) == 2
                    and normal(path[0]) == name
                    and normal(path[1]) in ("mean", "value", "avg", "final", "max")
                ):
                    yield path, node

    # ------------------------------------------------------------------ groups

    def _identity(self) -> None:
        for field_name, names in {
            "author": ("author", "authors"),
            "github_id": ("github_id", "github", "github_username"),
            "name": ("name", "submission_name", "title", "run_name"),
            "date": ("date", "submission_date"),
            "track": ("track", "submission_type", "category"),
            "hardware": ("hardware", "gpu", "gpu_config", "gpu_type", "platform"),
        }.items():
            setattr(self.found, field_name, self._words(names))

    def _words(self, names: tuple[str, ...]) -> str | None:
        for name in names:
            for key, node in self.root.members.items():
                if normal(key) != name:
                    continue
                if node.kind == "scalar" and node.value is not None and str(node.value).strip():
                    return str(node.value)
                inner = [child.text for path, child in node.walk() if child.value is not None]
                if node.kind != "scalar" and inner:
                    return ", ".join(inner)[:300]
        return None

    def _scores(self) -> None:
        found = self.found
        found.mean_bpb = self._first_score(keys.MEAN_BPB, 0.0, 20.0)
        found.std_bpb = self._first_score(keys.STD_BPB, -1e-12, 1.0)
        found.val_bpb = self._first_score(keys.BPB, 0.0, 20.0) or found.mean_bpb or self._other_bpb()
        found.val_loss = self._first_score(keys.LOSS, 0.0, 50.0)
        placeholder = next((leaf for leaf in self.candidates(("val_bpb",)) if not _score(leaf[1])), None)
        if placeholder is not None:
            shown = placeholder[1].text[:40] or "empty"
            found.problems.append(
                f"{found.path}: line {placeholder[1].line}: {'.'.join(placeholder[0])} is {shown}, no score"
            )
        self._loss_that_is_bpb()

    def _first_score(self, names: tuple[str, ...], low: float, high: float) -> Quantity | None:
        for leaf in self.candidates(names):
            value = _score(leaf[1])
            if value is not None and low < value <= high:
                return self.quantity(leaf, value)
        return None

    def _other_bpb(self) -> Quantity | None:
        """A key that ends in bpb and speaks of no other score than the submission's."""
        for depth in (1, 2, 3):
            for path, node in self.leaves:
                names = [normal(part) for part in path]
                if len(path) != depth or any(_foreign(name) for name in names[:-1]) or path in self.used:
                    continue
                if re.search(r"bpb", names[-1]) and not _OTHERS.search(names[-1]):
                    value = _score(node)
                    if value is not None and 0 < value < 20:
                        return self.quantity((path, node), value)
        return None

    def _loss_that_is_bpb(self) -> None:
        """Files without val_bpb whose val_loss is the BPB: no token loss of a subword model is that small."""
        found, loss = self.found, self.found.val_loss
        if loss is None:
            return
        if found.val_bpb is None and loss.value < 1.6:
            found.val_bpb, found.val_loss = loss, None
            found.problems.append(
                f"{found.path}: line {loss.source.line}: {loss.source.key} {loss.text} is read as BPB"
            )
        elif found.val_bpb is not None and loss.value == found.val_bpb.value:
            found.val_loss = None
            found.problems.append(
                f"{found.path}: line {loss.source.line}: {loss.source.key} repeats the BPB, it is no loss"
            )

    def _sizes(self) -> None:
        found = self.found
        totals = [item for leaf in self.candidates(keys.TOTAL) if (item := self._size(leaf))]
        if not totals:
            totals = [values["artifact_bytes"] for values in found.seeds.values() if "artifact_bytes" in values]
        if not totals:
            totals = [item for leaf in self.candidates(keys.TOTAL_MEAN) if (item := self._size(leaf))]
        found.artifact_bytes = max(totals, key=lambda item: item.value, default=None)
        codes = [item for leaf in self.candidates(keys.CODE) if (item := self._size(leaf))]
        found.code_bytes = codes[0] if codes else None
        found.model_bytes = next((item for leaf in self._models() if (item := self._size(leaf))), None)

    def _models(self) -> Iterator[Leaf]:
        yield from self.candidates(keys.MODEL)
        for path, node in self.leaves:  # bytes_model_int6_zstd and its relatives
            if len(path) == 1 and re.match(
                r"(?:bytes_model|model_bytes|bytes_weights)_|(?:int|quant)\w*_bytes$", normal(path[0])
            ):
                yield path, node

    def _size(self, leaf: Leaf) -> Quantity | None:
        path, node = leaf
        got = amounts.size(node.value, node.text, normal(path[-1]))
        if got is None or got.value > 1e12:
            return None
        if got.guessed:
            self.found.problems.append(
                f"{self.found.path}: line {node.line}: {'.'.join(path)} {node.text} has no unit, read as MB"
            )
        return self.quantity(leaf, got.value, got.text)

    def _times(self) -> None:
        self.found.train_seconds = self._time(keys.TRAIN)
        self.found.eval_seconds = self._time(keys.EVAL)

    def _time(self, names: tuple[str, ...]) -> Quantity | None:
        for leaf in self.candidates(names):
            got = amounts.seconds(leaf[1].value, leaf[1].text, normal(leaf[0][-1]))
            if got is not None and got.value > 0:
                return self.quantity(leaf, got.value, got.text)
        items: dict[str, list[Quantity]] = {}
        for path, node in self.leaves:  # a list or an object of times per seed or per pass: the longest is claimed
            if len(path) == 2 and (name := normal(path[0])) in names:
                got = amounts.seconds(node.value, node.text, f"{normal(path[1])}_{name}")
                if got is not None and got.value > 0:
                    items.setdefault(name, []).append(self.quantity((path, node), got.value, got.text))
        for name in names:
            if name in items:
                return max(items[name], key=lambda item: item.value)
        return None

    def _settings(self) -> None:
        for path, node in self.leaves:
            if path in self.used or node.value is None or len(path) > 4:
                continue
            parents = [normal(part) for part in path[:-1]]
            if (
                (parents and parents[0] not in keys.SETTING_PARENTS)
                or normal(path[0]) in keys.IDENTITY
                or path[-1].isdigit()
            ):
                continue
            if isinstance(node.value, str) and len(node.value) > 200:
                continue
            self.found.settings[".".join(path)] = self._setting(path, node)

    def _setting(self, path: tuple[str, ...], node: Node) -> Quantity | str:
        value = node.value
        if isinstance(value, str):
            plain = amounts.to_float(value) if re.fullmatch(amounts.NUMBER, value.strip()) else None
            return value if plain is None else self.quantity((path, node), plain)
        if isinstance(value, bool) or value is None:
            return str(value)
        try:
            return self.quantity((path, node), float(value))
        except OverflowError:
            return node.text


def normal(name: str) -> str:
    """A key in lower case with underscores: `Val BPB (mean)` becomes `val_bpb_mean`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _holds(name: str) -> bool:
    return name in keys.PARENTS or bool(re.search(r"result|metric|mean|size|artifact|timing|(?:^|_)final", name))


def _foreign(name: str) -> bool:
    """An object about something else than this submission's own result."""
    return bool(_OTHERS.search(name)) or bool(re.search(r"seed|ablation|lineage|history|compar|attribution", name))


def _score(node: Node) -> float | None:
    """A number, also out of a string (`"1.1334"`, `"1.0810 (3-seed mean)"`); None for placeholders."""
    value = node.value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        found = re.match(r"\s*[~≈]?\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)(?![\d./-])", value)
        return amounts.to_float(found[1]) if found else None
    try:
        return amounts.to_float(repr(float(value)))
    except OverflowError:
        return None
