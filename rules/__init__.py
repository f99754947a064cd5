"""The rule book as code: one module `pg_*.py` per rule, each exporting `RULE`.

A new rule is one new file; nothing has to be registered.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from auditor.errors import AuditorError
from rules.base import Example, Rule

__all__ = ["Example", "Rule", "UnknownRule", "all_rules", "rule"]


class UnknownRule(AuditorError, KeyError):
    """There is no rule of that name; the message offers the closest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the rule book's groups, then by id."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("pg_"))
    found = [importlib.import_module(f"{__name__}.{name}").RULE for name in names]
    return tuple(sorted(found, key=_order))


def rule(name: str) -> Rule:
    """The rule with this id; upper or lower case, with or without the prefix `PG-`.

    Raises:
        UnknownRule: there is none; the message names the closest ids.
    """
    from difflib import get_close_matches

    by_id = {rule.id.lower(): rule for rule in all_rules()}
    wanted = name.strip().lower().replace("_", "-")
    for key in (wanted, f"pg-{wanted}"):
        if key in by_id:
            return by_id[key]
    inside = [rule.id for key, rule in by_id.items() if wanted and wanted.removeprefix("pg-") in key]
    close = get_close_matches(wanted, by_id, n=3, cutoff=0.5) or get_close_matches(f"pg-{wanted}", by_id, n=3)
    offers = list(dict.fromkeys(inside[:5] + [by_id[key].id for key in close]))
    hint = f"; did you mean {', '.join(offers)}?" if offers else ""
    raise UnknownRule(f"there is no rule {name!r}{hint} `auditor rules` lists all of them")


# Groups of the rule book, most consequential first: conditions, data, metric, size, time, environment, statistics,
# process.
_GROUPS = ("C1", "C2", "C3", "C4", "TRACK", "D", "X", "B", "S", "T", "E", "ST", "P")


def _order(rule: Rule) -> tuple[int, str]:
    group = rule.id.split("-")[1]
    return (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS), rule.id)
