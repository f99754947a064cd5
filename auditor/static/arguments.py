"""Command-line options of the submission: `argparse` parsers filled with defaults and the documented command's flags."""

from __future__ import annotations

import re
from collections.abc import Iterable

from auditor.static.heap import Listing, Mapping
from auditor.static.values import Value, constant

_OPTION = re.compile(r"(?<!\S)--([A-Za-z][\w-]*)(?:[= ](?!-)(\S+))?")


def options_of(commands: Iterable[str]) -> dict[str, str]:
    """`--slot-steps 100 --compile` as `{"slot_steps": "100", "compile": ""}`; an earlier command wins."""
    found: dict[str, str] = {}
    for command in commands:
        script = re.search(r"\S+\.py\b", command)
        for name, value in _OPTION.findall(command[script.end() :] if script else ""):
            found.setdefault(name.replace("-", "_"), value.strip("'\""))
    return found


class Arguments:
    """Mixed into `Machine`; `options` are the flags of the documented commands, None when no command is documented."""

    options: dict[str, str] | None = None

    def function_ArgumentParser(self, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        return Value(obj=Mapping(), solid=True)

    def method_add_argument_group(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        return receiver if isinstance(receiver.obj, Mapping) else None

    method_add_mutually_exclusive_group = method_add_argument_group

    def method_add_argument(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """One option: its default, or what the documented command gives it."""
        names = [str(value.const) for value in args if value.known]
        if not isinstance(receiver.obj, Mapping) or not names:
            return None
        dest = keywords.get("dest")
        name = str(dest.const) if dest is not None and dest.known else max(names, key=len).lstrip("-").replace("-", "_")
        value = self._option(names, keywords)
        self.journal.put(receiver.obj.slots, ("k", name), value)
        return Value(solid=True)

    def _option(self, names: list[str], keywords: dict[str, Value]) -> Value:
        spelled = [name.lstrip("-").replace("-", "_") for name in names]
        given = next((self.options[name] for name in spelled if name in self.options), None) if self.options else None
        action = keywords.get("action")
        switch = str(action.const) if action is not None and action.known else ""
        if switch in ("store_true", "store_false"):
            if self.options is None:
                return Value(solid=True)  # nobody says which switches were given
            return constant((given is not None) == (switch == "store_true"))
        if given:
            return self.stated(_converted(given, keywords.get("type")))
        return keywords.get("default") or (constant(None) if names[0].startswith("-") else Value(solid=True))

    def method_parse_args(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """A namespace with one attribute for each option."""
        if not isinstance(receiver.obj, Mapping):
            return None
        options = {key[1]: value for key, value in receiver.obj.slots.items() if isinstance(key, tuple)}
        found = self.function_SimpleNamespace([], options)
        self.override(found.obj.slots)
        return found

    def method_parse_known_args(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        found = self.method_parse_args(receiver, args, keywords)
        return None if found is None else Value(obj=Listing([found, Value(obj=Listing(None, Value(solid=True)))]))

    def method_set_defaults(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        if not isinstance(receiver.obj, Mapping):
            return None
        for name, value in keywords.items():
            self.journal.put(receiver.obj.slots, ("k", name), value)
        return Value(solid=True)


def _converted(text: str, kind: Value | None) -> str | int | float:
    """The text of an option as its type has it; without a known type, as it stands."""
    name = getattr(kind.obj, "name", "") if kind is not None else ""
    for wanted, make in (("int", int), ("float", float)):
        if name.rsplit(".", 1)[-1] == wanted:
            try:
                return make(text)
            except ValueError:
                return text
    return text
