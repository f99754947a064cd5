"""Per-seed results of a submission.json: `seed_results`, `seeds`, flat `seed_42` objects, lists, parallel lists."""

from __future__ import annotations

import re

from auditor.documents import amounts
from auditor.documents.jsontext import Node
from auditor.documents.model import Quantity, Source

#: metric -> words of keys that hold it, first match counts.
METRICS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "std",
        re.compile(
            r"std|stdev|delta|gain|improv|baseline|pre_?quant|pre_?ttt|pre_|post_ema|float|diff|"
            r"recover|cost|note|log|sha|git"
        ),
    ),
    ("val_bpb", re.compile(r"bpb|^score$")),
    ("val_loss", re.compile(r"val_loss|^loss$|loss_nats|^val_loss")),
    (
        "artifact_bytes",
        re.compile(r"artifact|total_(?:bytes|size)|bytes_total|submission_(?:bytes|size)|^size|total_submission"),
    ),
    ("model_bytes", re.compile(r"model_(?:bytes|size)|bytes_model|compressed_bytes|^bytes")),
    ("code_bytes", re.compile(r"code")),
    ("step_ms", re.compile(r"step_avg|ms_per_step|step_ms|avg_step|step_time|ms_step")),
    ("eval_seconds", re.compile(r"eval_?(?:time|s$|sec|wall|ms)|ttt_(?:time|s$|sec|eval)|eval_wallclock")),
    (
        "train_seconds",
        re.compile(r"train(?:ing)?_?(?:time|s$|sec|wall|ms)|wall_?(?:clock|time)|^time|stopped_at|elapsed"),
    ),
    (
        "steps",
        re.compile(
            r"^(?:total_|num_|train(?:ing)?_|n_|final_|max_)?(?:steps?|iterations)(?:_stop|_completed|"
            r"_reached|_count)?$|step_stop|stop_step"
        ),
    ),
)
_PREFERENCE = {
    "val_bpb": (
        "val_bpb",
        "ttt_val_bpb",
        "post_ttt_val_bpb",
        "final_val_bpb",
        "ttt_bpb",
        "bpb",
        "val_bpb_exact",
        "val_bpb_ttt",
        "post_ttt_bpb",
        "quantized_ttt_val_bpb",
        "sliding_val_bpb",
        "val_bpb_sliding",
        "sliding_bpb",
    ),
    "val_loss": ("val_loss", "ttt_val_loss", "post_ttt_val_loss"),
    "artifact_bytes": ("artifact_bytes", "bytes_total", "total_bytes", "artifact_size_bytes", "total_submission_bytes"),
    "train_seconds": ("train_time_s", "train_time_seconds", "train_seconds", "training_time_seconds"),
    "eval_seconds": ("eval_time_s", "eval_seconds", "eval_time_seconds", "total_eval_time_s"),
}
_SEED_KEY = re.compile(r"^(?:seed|s|run)?[ _-]?(\d{1,10})$", re.IGNORECASE)
_SEED_NAMED = re.compile(r"^seed[ _-]?(\d{1,10})$", re.IGNORECASE)
_FLAT = re.compile(r"^(?:(?P<before>[a-z_]*?)_)?seed_?(?P<seed>\d{1,10})(?:_(?P<after>[a-z][a-z0-9_]*))?$")
_FOREIGN = re.compile(r"baseline|comparison|reference|ablation|previous|prior|lineage|base_")

Seeds = dict[str, dict[str, Quantity]]


def metric_of(name: str) -> str | None:
    """Name of the metric a key holds, None when it is none of the known ones."""
    lower = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    found = next((metric for metric, pattern in METRICS if pattern.search(lower)), None)
    return None if found == "std" else found


def read_seeds(path: str, root: Node, used: set[tuple[str, ...]] | None = None) -> Seeds:
    """Seed (digits) -> metric -> quantity; a seed that is only listed has no metrics. Adds key paths read to `used`."""
    reader = _Reader(path, used if used is not None else set())
    reader.visit(root, (), None)
    reader.parallel_lists(root)
    reader.flat(root)
    return reader.seeds


class _Reader:
    def __init__(self, path: str, used: set[tuple[str, ...]]) -> None:
        self.path = path
        self.used = used
        self.seeds: Seeds = {}
        self._rank: dict[tuple[str, str], int] = {}

    def visit(self, node: Node, place: tuple[str, ...], parent: str | None) -> None:
        """Depth first through objects and lists; `parent` is the name of the container."""
        about_seeds = parent is not None and re.search(r"seed|per_run|^runs$|^results$|bpb", parent.lower()) is not None
        for name, child in node.children():
            if _FOREIGN.search(name.lower()):
                continue
            here = (*place, name)
            named = _SEED_NAMED.match(name) or (node.kind == "object" and about_seeds and _SEED_KEY.match(name))
            if named:
                self.take(str(int(named[1])), child, here, parent or "")
            elif name.lower() in ("seed", "seeds") and child.kind == "scalar":
                self._scalar_seed(child, here, node, place)
            elif name.lower() in ("seeds", "seed", "seed_list") and child.kind == "list":
                self._list(child, here)
            elif child.kind != "scalar":
                self.visit(child, here, name)

    def _scalar_seed(self, child: Node, here: tuple[str, ...], owner: Node, place: tuple[str, ...]) -> None:
        self.used.add(here)
        for seed in (
            re.findall(r"\d{1,10}", child.text) if child.value is not None and not isinstance(child.value, bool) else []
        ):
            values = self.seeds.setdefault(str(int(seed)), {})
            if place and not values:  # an item of a list, or an object of one run: its other members are the results
                self.take(str(int(seed)), owner, place, "")

    def _list(self, child: Node, here: tuple[str, ...]) -> None:
        for name, item in child.children():
            if item.kind == "scalar":
                found = _SEED_KEY.match(item.text.strip())
                if found:
                    self.used.add((*here, name))
                    self.seeds.setdefault(str(int(found[1])), {})
            else:
                self.visit(Node(item.line, "list", items=[item]), here, "seeds")

    def take(self, seed: str, node: Node, place: tuple[str, ...], parent: str) -> None:
        """Results of one seed: an object of metrics, or a bare number named by its container."""
        self.seeds.setdefault(seed, {})
        if node.kind == "scalar":
            metric = metric_of(parent) or "val_bpb"
            self.put(seed, metric, place, node, parent if metric_of(parent) else "")
            return
        for path, leaf in node.walk():
            if (
                not path
                or len(path) > 3
                or normal_seed(path[-1])
                or any(_FOREIGN.search(part.lower()) for part in path)
            ):
                continue
            metric = metric_of(path[-1]) or (metric_of(path[-2]) if len(path) > 1 and not path[-1].isdigit() else None)
            if metric:
                self.put(seed, metric, (*place, *path), leaf, path[-1])

    def put(self, seed: str, metric: str, place: tuple[str, ...], node: Node, name: str) -> None:
        """Keep the value under the preferred key when several hold the same metric."""
        quantity = self._quantity(metric, place, node, name)
        if quantity is None:
            return
        order = _PREFERENCE.get(metric, ())
        lower = name.lower()
        rank = (order.index(lower) if lower in order else len(order)) + 100 * (len(place) > 4)
        if rank < self._rank.get((seed, metric), 10**6):
            self._rank[seed, metric] = rank
            self.seeds.setdefault(seed, {})[metric] = quantity
        self.used.add(place)

    def _quantity(self, metric: str, place: tuple[str, ...], node: Node, name: str) -> Quantity | None:
        if node.kind != "scalar" or isinstance(node.value, bool) or node.value is None:
            return None
        if metric.endswith("bytes"):
            amount = amounts.size(node.value, node.text, name)
        elif metric.endswith("seconds"):
            amount = amounts.seconds(node.value, node.text, name)
        else:
            amount = None
            value = amounts.number(node.text)
            if value is None or (metric == "val_bpb" and not 0 < value < 20):
                return None
            return self._at(place, node, value, node.text)
        return None if amount is None else self._at(place, node, amount.value, amount.text)

    def _at(self, place: tuple[str, ...], node: Node, value: float, text: str) -> Quantity:
        excerpt = f'"{place[-1]}": {node.text}'[:300]
        return Quantity(value, Source(self.path, node.line, excerpt, ".".join(place)), text)

    def parallel_lists(self, node: Node, place: tuple[str, ...] = ()) -> None:
        """`seeds: [42, 314]` beside `val_bpb_seeds: [1.08, 1.09]`: items belong together by position."""
        for name, child in node.children():
            if child.kind == "object" and not _FOREIGN.search(name.lower()) and len(place) < 4:
                self.parallel_lists(child, (*place, name))
        seeds = next(
            (n for k, n in node.members.items() if k.lower() in ("seeds", "seed_list") and n.kind == "list"), None
        )
        if seeds is None or not seeds.items or any(item.kind != "scalar" for item in seeds.items):
            return
        found = [_SEED_KEY.match(item.text.strip()) for item in seeds.items]
        names = [str(int(match[1])) if match else "" for match in found]
        for name, child in node.members.items():
            metric = metric_of(name)
            if metric is None or child is seeds or len(child.items) != len(names) or _FOREIGN.search(name.lower()):
                continue
            for i, (seed, item) in enumerate(zip(names, child.items, strict=True)):
                if seed and item.kind == "scalar":
                    self.put(seed, metric, (*place, name, str(i)), item, re.sub(r"_?seeds?$", "", name))

    def flat(self, root: Node) -> None:
        """`seed_42_val_bpb`, `val_bpb_seed42` at the top level."""
        for name, node in root.members.items():
            lower = re.sub(r"[^a-z0-9]+", "_", name.lower())
            found = _FLAT.match(lower)
            rest = (found["after"] or found["before"] or "") if found else ""
            metric = metric_of(rest) if rest else None
            if found and metric and node.kind == "scalar":
                self.put(str(int(found["seed"])), metric, (name,), node, rest)


def normal_seed(name: str) -> bool:
    """Whether a key only says which seed it is."""
    return name.lower() in ("seed", "seeds", "run", "run_id")
