"""Programs as short as they get: no docstrings or annotations, one space of indent, statements joined by semicolons."""

from __future__ import annotations

import ast
import base64
import lzma


def minified(tree: ast.Module) -> str:
    """The program on as few lines as its statements allow; names are left to `renaming`."""
    return "\n".join(_block(_stripped(tree.body), 0)) + "\n"


def packed(text: str) -> str:
    """A stub that holds the program compressed and executes it."""
    data = base64.b85encode(lzma.compress(text.encode())).decode()
    return f'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("{data}")))\n'


def _stripped(body: list[ast.stmt]) -> list[ast.stmt]:
    kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return kept or [ast.Pass()]


def _block(body: list[ast.stmt], depth: int) -> list[str]:
    lines: list[str] = []
    run: list[str] = []
    indent = " " * depth

    def flush() -> None:
        if run:
            lines.append(indent + ";".join(run))
            run.clear()

    for item in body:
        if isinstance(item, ast.If | ast.For | ast.While | ast.With | ast.FunctionDef | ast.ClassDef):
            flush()
            lines += _compound(item, depth)
        elif isinstance(item, ast.Try | ast.Match | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.TryStar):
            flush()
            lines += [indent + line for line in ast.unparse(item).split("\n")]
        else:
            run.append(ast.unparse(item))
    flush()
    return lines


def _compound(node: ast.stmt, depth: int) -> list[str]:
    indent = " " * depth
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        head = [f"{indent}@{ast.unparse(item)}" for item in node.decorator_list]
        body, node.decorator_list, node.body = node.body, [], [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for arg in ast.walk(node.args):
                if isinstance(arg, ast.arg):
                    arg.annotation = None
        first = ast.unparse(node).strip().split("\n")[0]
        keep = body if isinstance(node, ast.ClassDef) else _stripped(body)
        return [*head, indent + first, *_block(keep, depth + 1)]
    if isinstance(node, ast.If):
        head = [f"{indent}if {ast.unparse(node.test)}:"]
    elif isinstance(node, ast.For):
        head = [f"{indent}for {ast.unparse(node.target)} in {ast.unparse(node.iter)}:"]
    elif isinstance(node, ast.While):
        head = [f"{indent}while {ast.unparse(node.test)}:"]
    else:
        items = ",".join(ast.unparse(item) for item in node.items)  # type: ignore[attr-defined]
        head = [f"{indent}with {items}:"]
    lines = [*head, *_block(_stripped(node.body), depth + 1)]  # type: ignore[attr-defined]
    if getattr(node, "orelse", None):
        lines += [f"{indent}else:", *_block(_stripped(node.orelse), depth + 1)]  # type: ignore[attr-defined]
    return lines
