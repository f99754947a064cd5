"""`auditor smoke`: run one submission at reduced scale in the sandbox and say what its headline consists of."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from auditor.casefile import Call, build_case
from auditor.dynamic.witness import Testimony, testimony_of
from auditor.report import plain
from auditor.report.trees import describe
from auditor.targets import resolve

_EVENTS = 40


def run(target: str, repo: Path | None = None, seconds: float = 60.0, console: Console | None = None) -> int:
    """Run a folder, pull request or ref and print what was seen.

    Returns:
        0 when the headline was explained and nothing counted came late, 1 when counted tokens had shaped the model
        before, 3 when the run or its headline could not be explained.

    Raises:
        AuditorError: the target cannot be found, or this machine cannot contain an untrusted program.
    """
    console = console or Console()
    case = build_case(next(iter(resolve([target], repo))).load(), Call(static=False))
    made = testimony_of(case, seconds=seconds)
    say = _Speaker(console)
    _run(say, made)
    _results(console, made)
    _order(say, made)
    if made.attribution is None:
        return 3
    return 1 if made.late else 0


class _Speaker:
    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, text: str) -> None:
        self.console.print(plain(text), markup=False, highlight=False)


def _run(say: _Speaker, made: Testimony) -> None:
    run = made.run
    say(
        f"run: {run.status}{': ' + run.reason[:300] if run.reason else ''} ({run.seconds:.1f} s, {run.peak_bytes >> 20} MiB)"
    )
    if run.layers:
        say("sandbox: " + ", ".join(sorted(run.layers)))
    if run.plan:
        changed = [f"{name} {old} -> {new}" for name, (old, new) in sorted(run.plan.notes.items()) if old != new]
        say(f"scale-down ({run.attempts}. plan): " + "; ".join(changed))


def _results(console: Console, made: Testimony) -> None:
    if not made.explained.results:
        return
    table = Table("printed result", "BPB", "consists of", "positions", box=box.SIMPLE)
    for index, (result, why) in enumerate(made.explained.results):
        mark = "* " if index == made.explained.headline else "  "
        consists = (
            f"{why.how} scores, {why.matched}{', changed after the model' if why.derived else ''}"
            if why
            else "unexplained"
        )
        distinct = f"{len(set(why.position.tolist())):,} of {made.available:,}" if why else ""
        bpb = "" if result.bpb is None else f"{result.bpb:.6f}"
        table.add_row(plain(mark + result.label), bpb, consists, distinct)
    console.print(table)


def _order(say: _Speaker, made: Testimony) -> None:
    if made.absent:
        say(made.absent)
    if made.timeline is None:
        return
    for number, event in enumerate(made.timeline.events()):
        if number == _EVENTS:
            say("  ...")
            break
        say(f"  {event.place.path.rsplit('/', 1)[-1]}:{event.place.line}  {describe(event)}")
    if made.attribution is not None:
        say(f"{made.late:,} of {made.counted:,} counted tokens had shaped the model before they were scored")
