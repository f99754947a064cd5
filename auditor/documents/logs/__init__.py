"""Train logs: bytes to lines, lines to facts, facts to runs."""

from __future__ import annotations

from auditor.documents.logs.reader import final_candidates, read_log

__all__ = ["final_candidates", "read_log"]
