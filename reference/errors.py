"""Errors a user can act on: each message names the thing that is wrong and what to change."""

from __future__ import annotations


class UserError(Exception):
    """Base of all errors shown as one message without a traceback."""


class ConfigError(UserError):
    """A configuration key is unknown, has the wrong type, or contradicts another key."""


class DataError(UserError):
    """A shard, a sidecar, a text file or a tokenizer is missing or malformed."""


class ArtifactError(UserError):
    """A container or artifact is malformed, truncated, or does not belong to this model."""


class ScoringError(UserError):
    """A position would be scored twice, never, or after it was trained on."""
