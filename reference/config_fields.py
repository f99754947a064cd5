"""Checks shared by the configuration dataclasses."""

from __future__ import annotations

from typing import Any

from reference.errors import ConfigError


def require(condition: bool, key: str, rule: str, value: Any) -> None:
    """Raises `ConfigError` naming the key, the rule and the value received unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}: {rule}; got {value!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Requires the named fields to be `least` or more; keys are prefixed with the table's name."""
    table = type(config).__name__.removesuffix("Config").lower()
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{table}.{name}", f"must be at least {least}", value)
