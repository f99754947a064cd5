"""English text that is on every machine with Python: the language reference behind `help()`, and docstrings."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from reference.data import split_documents
from reference.errors import DataError


def standard_library_documents(characters: int) -> list[str]:
    """Documents of about `characters` characters in all, the same on every run of one Python version.

    Raises:
        DataError: neither the help topics nor the sources of the standard library are installed.
    """
    documents: list[str] = []
    length = 0
    for text in _texts():
        for document in split_documents(text):
            documents.append(document)
            length += len(document)
            if length >= characters:
                return documents
    if not documents:
        raise DataError("no help topics and no library sources here to make text of; give text files with --text")
    return documents


def _texts() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics

        yield "\n\n".join(topics[name] for name in sorted(topics))
    except ImportError:
        pass
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield "\n\n".join(_docstrings(path))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text) > 200:
                yield text
