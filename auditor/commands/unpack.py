"""`auditor unpack`: the readable source inside a packed script, printed or written, with an outline."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditor.errors import AuditorError
from auditor.submission import Submission
from auditor.unpack import Layer, Program, outline, read_program

# Control characters of a submission must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def run(
    target: str,
    repo: Path | None = None,
    out: Path | None = None,
    outline_only: bool = False,
    console: Console | None = None,
) -> int:
    """Print or write the layers of a script, folder or pull request.

    Returns:
        0 when everything was read, 3 when something could not be decoded or is not Python.

    Raises:
        AuditorError: the target cannot be found or the output folder cannot be written.
    """
    console = console or Console()
    program = read_program(_load(target, repo))
    layers = _shown(program)
    if out:
        _write(layers, out, console)
    if out or outline_only:
        for layer in layers:
            console.print(_outline(layer))
    else:
        for layer in layers:
            console.rule(Text(_plain(f"{layer.name}  {len(layer.data)} bytes")), style="dim")
            console.print(_plain(layer.text), markup=False, highlight=False, soft_wrap=True)
    for problem in program.problems:
        Console(stderr=True).print(_plain(problem), style="yellow", markup=False, highlight=False, soft_wrap=True)
    return 3 if program.problems or program.main is None else 0


def _load(target: str, repo: Path | None) -> Submission:
    path = Path(target)
    if path.is_file():
        folder = Submission.from_folder(path.resolve().parent)
        chosen = next(
            (
                p
                for p in folder.files
                if p.rsplit("/", 1)[-1] == path.name and p.count("/") == folder.folder.count("/") + 1
            ),
            None,
        )
        if chosen is None or folder.files[chosen].kind != "file":
            raise AuditorError(f"{target} is not a regular file; name the script itself")
        folder.modules = []
        folder.main_script = chosen
        return folder
    from auditor.targets import resolve

    return next(iter(resolve([target], repo))).load()


def _shown(program: Program) -> list[Layer]:
    """The program first, then everything else that was packed; plain companions are left to the reader's editor."""
    main = [program.main] if program.main else []
    return main + [layer for layer in program.layers if layer.parent and layer is not program.main]


def _plain(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)


def _outline(layer: Layer) -> Table:
    title = f"{layer.name}: {len(layer.data)} bytes, {layer.text.count(chr(10)) + 1} lines"
    table = Table(title=Text(_plain(title)), title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("lines", "right"), ("characters", "right"), ("", "left"), ("name", "left")):
        table.add_column(heading, justify=justify)
    for entry in outline(layer):
        name = "  " * entry.name.count(".") + entry.name.rsplit(".", 1)[-1]
        table.add_row(f"{entry.line}-{entry.end}", str(entry.size), entry.kind, Text(_plain(name)))
    return table


def _write(layers: list[Layer], out: Path, console: Console) -> None:
    taken: set[str] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for layer in layers:
            stem = re.sub(
                r"[^\w.-]+", "_", layer.name.rsplit("/", 1)[-1].removesuffix(".py").replace(".py!", "!")
            ).strip("_.")
            name = stem or "layer"
            while f"{name}.py" in taken:
                name += "_"
            taken.add(f"{name}.py")
            path = out / f"{name}.py"
            path.write_bytes(layer.data)
            console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    except OSError as error:
        raise AuditorError(f"cannot write the layers to {out}: {error}; choose another folder with --out") from error
