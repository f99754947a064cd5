"""Source in a newer grammar than this interpreter's: f-strings of Python 3.12 are rewritten before they are compiled.

Submissions ran on interpreters from 3.10 to 3.13, and packed scripts reach the compiler as text through `exec`. What else a
newer grammar has stays a SyntaxError that names its line.
"""

from __future__ import annotations

import builtins
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

from auditor.static.fstrings import rewrite

_compile, _exec = builtins.compile, builtins.exec


def install() -> None:
    """Let `compile`, `exec`, `import` and the start of a script read the newer grammar. Nothing to do on 3.12 and later."""
    if sys.version_info >= (3, 12):
        return
    builtins.compile = _compiling  # type: ignore[assignment]
    builtins.exec = _executing  # type: ignore[assignment]
    SourceFileLoader.source_to_code = _loading  # type: ignore[method-assign]


def _compiling(
    source: Any, filename: Any, mode: str, flags: int = 0, dont_inherit: bool = False, *rest: Any, **more: Any
) -> Any:
    # Flags of the calling module would be those of this one, so nothing is inherited.
    try:
        return _compile(source, filename, mode, flags, True, *rest, **more)
    except SyntaxError:
        text = source.decode("utf-8", "replace") if isinstance(source, bytes | bytearray) else source
        older = rewrite(text) if isinstance(text, str) else None
        if older is None:
            raise
        return _compile(older, filename, mode, flags, True, *rest, **more)


def _executing(source: Any, globals_: Any = None, locals_: Any = None, /, **more: Any) -> None:
    if not isinstance(source, CodeType):
        source = _compiling(source, "<string>", "exec")
    if globals_ is None:
        caller = sys._getframe(1)
        globals_ = caller.f_globals
        locals_ = caller.f_locals if locals_ is None else locals_
    _exec(source, globals_, globals_ if locals_ is None else locals_, **more)


def _loading(self: SourceFileLoader, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
    return _compiling(data, path, "exec", 0, True, _optimize)
