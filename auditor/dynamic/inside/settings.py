"""Settings of this run, given to the program where it asks for them: class attributes, options, environment variables.

Static reading finds most settings beforehand. What it cannot see (names put together at run time, readers behind an alias)
is answered here, by the same rules, when the program asks.
"""

from __future__ import annotations

import argparse
import builtins
import os
import sys
from collections.abc import Callable
from typing import Any

from auditor.dynamic.inside.constants import Shrinker
from auditor.dynamic.plan import Scale, planned, written

_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3", "<frozen")


def install(given: dict[str, Any], tell: Callable[..., Any]) -> Shrinker | None:
    """Put the settings in place; returns what makes sizes smaller that are written into the source.

    Args:
        given: `attributes` (`Class.attribute`, or `.option` for a command line option -> value), `wanted` (lower-case
            name -> value in force at full scale), `scale` (fields of `auditor.dynamic.plan.Scale`).
        tell: called as tell("setting", name=..., full=..., value=...) for every variable answered during the run.
    """
    owners: dict[str, dict[str, Any]] = {}
    for name, value in given.get("attributes", {}).items():
        owner, _, attribute = name.rpartition(".")
        owners.setdefault(owner, {})[attribute] = value
    _classes(owners)
    if "" in owners:
        _options(owners[""])
    if "scale" not in given:
        return None
    scale, wanted = Scale(**given["scale"]), given.get("wanted", {})
    _environment(scale, wanted, tell)
    return Shrinker(scale, wanted, lambda name, full, new: tell("setting", name=name, full=str(full), value=str(new)))


def _classes(owners: dict[str, dict[str, Any]]) -> None:
    """Change a class between its body and its decorators, so that a dataclass takes the value as a field's default."""
    real = builtins.__build_class__

    def build(body: Any, name: str, *bases: Any, **keywords: Any) -> type:
        made = real(body, name, *bases, **keywords)
        for attribute, value in owners.get(name, {}).items():
            if attribute in made.__dict__:
                setattr(made, attribute, value)
        return made

    builtins.__build_class__ = build


def _options(options: dict[str, Any]) -> None:
    add = argparse._ActionsContainer.add_argument

    def add_argument(self: Any, *flags: Any, **keywords: Any) -> Any:
        action = add(self, *flags, **keywords)
        given = options.get(action.dest)
        if isinstance(action.const, bool) and isinstance(action.default, bool):
            action.default = action.const if given == "" else action.default
        elif given not in (None, ""):
            action.default, action.required = given, False
        return action

    argparse._ActionsContainer.add_argument = add_argument  # type: ignore[method-assign]


def _environment(scale: Scale, wanted: dict[str, str], tell: Callable[..., Any]) -> None:
    """Variables that nobody set are answered as the plan would have."""
    real_get, real_item = os._Environ.get, os._Environ.__getitem__
    told: set[str] = set()

    def answer(name: Any, default: Any) -> str | None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_code.co_filename == os.__file__:
            frame = frame.f_back
        if not isinstance(name, str) or any(part in frame.f_code.co_filename for part in _LIBRARIES):
            return None
        full, value = planned(name, default, wanted, scale)
        if value is None:
            return None
        if name not in told:
            told.add(name)
            tell("setting", name=name, full=str(full), value=written(value, default))
        return written(value, default)

    def get(self: Any, name: Any, default: Any = None) -> Any:
        found = real_get(self, name, None)
        if found is None and self is os.environ:
            found = answer(name, default)
        return default if found is None else found

    def item(self: Any, name: Any) -> Any:
        try:
            return real_item(self, name)
        except KeyError:
            found = answer(name, None) if self is os.environ else None
            if found is None:
                raise
            return found

    os._Environ.get, os._Environ.__getitem__ = get, item
