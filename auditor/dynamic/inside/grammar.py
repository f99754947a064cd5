"""How source of the submission is compiled here: newer grammar on an older interpreter, and sizes written into it.

Submissions ran on interpreters from 3.10 to 3.13, and packed scripts reach the compiler as text through `exec`. On an older
interpreter f-strings of Python 3.12 are rewritten; what else a newer grammar has stays a SyntaxError that names its line.
"""

from __future__ import annotations

import ast
import builtins
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

from auditor.dynamic.inside.constants import Shrinker
from auditor.static.fstrings import rewrite

_compile, _exec = builtins.compile, builtins.exec
_SMALL = 1000  # characters; what libraries put together for a class or a tuple is shorter than any program


class Compiler:
    """Stands in for `compile`, `exec` and the loader of modules; `home` is the folder of the submission."""

    def __init__(self, shrinker: Shrinker | None, home: str) -> None:
        self.shrinker, self.home = shrinker, home

    def install(self) -> None:
        """Put in place for the rest of the process."""
        compiler = self

        def load(loader: SourceFileLoader, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
            return compiler.compile(data, path, "exec", 0, True, _optimize)

        builtins.compile = self.compile  # type: ignore[assignment]
        builtins.exec = self.exec  # type: ignore[assignment]
        SourceFileLoader.source_to_code = load  # type: ignore[method-assign]

    def compile(
        self, source: Any, filename: Any, mode: str, flags: int = 0, dont_inherit: bool = False, *rest: Any, **more: Any
    ) -> Any:
        """As the builtin. Flags of the calling module would be those of this one, so nothing is inherited."""
        source = self._shrunk(source, str(filename), mode, flags)
        try:
            return _compile(source, filename, mode, flags, True, *rest, **more)
        except SyntaxError:
            older = _older(source)
            if older is None:
                raise
            return _compile(older, filename, mode, flags, True, *rest, **more)

    def exec(self, source: Any, globals_: Any = None, locals_: Any = None, /, **more: Any) -> None:
        """As the builtin."""
        if not isinstance(source, CodeType):
            source = self.compile(source, "<string>", "exec")
        if globals_ is None:
            caller = sys._getframe(1)
            globals_ = caller.f_globals
            locals_ = caller.f_locals if locals_ is None else locals_
        _exec(source, globals_, globals_ if locals_ is None else locals_, **more)

    def _shrunk(self, source: Any, filename: str, mode: str, flags: int) -> Any:
        """The tree of a source with smaller sizes; the source itself where nothing is to be changed."""
        mine = filename.startswith((self.home, "<")) and not filename.startswith("<frozen")
        if self.shrinker is None or mode != "exec" or flags or not mine or not isinstance(source, str | bytes):
            return source
        if len(source) < _SMALL:
            return source
        try:
            tree = _compile(source, filename, mode, ast.PyCF_ONLY_AST, True)
        except SyntaxError:
            older = _older(source)
            if older is None:
                return source
            try:
                tree = _compile(older, filename, mode, ast.PyCF_ONLY_AST, True)
            except SyntaxError:
                return source
        except ValueError:
            return source
        return tree if self.shrinker.shrink(tree) else source


def _older(source: Any) -> str | None:
    """The source for an older grammar, None when there is nothing to rewrite."""
    if sys.version_info >= (3, 12):
        return None
    text = bytes(source).decode("utf-8", "replace") if isinstance(source, bytes | bytearray) else source
    return rewrite(text) if isinstance(text, str) else None
