"""Compliance auditor for Parameter Golf submissions: a submission goes in, a verdict with evidence comes out."""

__version__ = "0.1.0"
