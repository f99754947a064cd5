"""The CPU run as a witness: runs a submission, explains its headline, and testifies as a timeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from auditor.case import Case
from auditor.dynamic.account import Account
from auditor.dynamic.attribution import Attribution, Explained, Printed, explain
from auditor.dynamic.experiment import Experiment, experiment
from auditor.dynamic.probe_words import probed
from auditor.dynamic.run import RunResult, run_submission
from auditor.submission import Submission
from auditor.timeline import Sequence, Timeline
from auditor.unpack import Program

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Testimony:
    """What the CPU run has to say.

    Attributes:
        run: the run itself. explained: printed results with what they consist of.
        timeline: None when the run recorded no result (see `absent`).
        absent: why there is no timeline, in words.
        late: counted positions that had shaped the model when they were scored; counted: distinct counted positions;
            available: positions the stream holds.
        experiment: what a second run on another future showed, None when it was not asked for.
    """

    run: RunResult
    explained: Explained = field(default_factory=Explained)
    timeline: Timeline | None = None
    absent: str = ""
    late: int = 0
    counted: int = 0
    available: int = 0
    repeated: int = 0
    experiment: Experiment | None = None

    @property
    def headline(self) -> Printed | None:
        """The printed result that counts."""
        return self.explained.claim[0] if self.explained.claim else None

    @property
    def attribution(self) -> Attribution | None:
        """What the headline consists of."""
        return self.explained.claim[1] if self.explained.claim else None


def testify(
    submission: Submission,
    program: Program,
    effective: dict[str, str] | None = None,
    claimed_label: str = "",
    *,
    seconds: float = 60.0,
    probe: bool = False,
    progress: Callable[[str], None] | None = None,
    options: dict[str, str] | None = None,
) -> Testimony:
    """Run a submission at reduced scale and say what it did; never raises for what the submission does.

    Args:
        effective: settings in force by run command and log, name -> value.
        claimed_label: label of the log line that carries the submission's claim.
        seconds: CPU time of one attempt.
        probe: run it a second time on an altered stream to test causality and normalisation.
        progress: told in words what is being done.
        options: flags of the documented command.

    Raises:
        SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    tell = progress or (lambda words: None)
    tell("running the submission at reduced scale")
    run = run_submission(submission, program, effective or {}, seconds=seconds, options=options)
    tell("explaining the headline by recorded losses")
    made = from_run(run, submission, program, claimed_label)
    if not probe or made.timeline is None:
        return made
    tell("running it again with another future")
    tried = experiment(submission, program, run, made.explained.claim, seconds, made.late)
    return with_experiment(made, tried, submission, program)


def with_experiment(made: Testimony, tried: Experiment, submission: Submission, program: Program) -> Testimony:
    """A testimony whose timeline ends with what a probe run showed."""
    account = _account(made.run, made.explained, submission, program)
    root = Sequence((*made.timeline.root.items, *probed(tried, account)))
    return replace(made, experiment=tried, timeline=replace(made.timeline, root=root))


def from_run(run: RunResult, submission: Submission, program: Program, claimed_label: str = "") -> Testimony:
    """Testimony from a run that was made."""
    if run.status == "not run" or run.dataset_bytes is None:
        return Testimony(run, absent=f"not run: {run.reason}")
    import numpy as np

    explained = explain(run.events, run.dataset_bytes, claimed_label)
    made = Testimony(run, explained, available=len(run.dataset_bytes) - 1)
    if run.status != "finished":
        # What it had printed by then need not be its headline.
        made.absent = f"stopped before its last result: {run.reason}"
        return made
    if run.plan is not None and not run.plan.documented:
        # What a program does by default is not what was submitted; nobody is judged by it.
        made.absent = "it ran with the program's own defaults only, not with the settings its documents show"
        return made
    account = _account(run, explained, submission, program)
    made.timeline = account.timeline(_settings(run))
    if made.attribution is not None:
        distinct = np.unique(made.attribution.position)
        made.counted, made.late = len(distinct), int(account.fate.late.sum())
        made.repeated = len(made.attribution.position) - len(distinct)
    return made


def _account(run: RunResult, explained: Explained, submission: Submission, program: Program) -> Account:
    main = program.main.name if program.main else submission.main_script or ""
    return Account(
        run.events, explained, len(run.dataset_bytes), submission.folder, main, _tail(run), _marks(run), _spared(run)
    )


def _spared(run: RunResult) -> float | None:
    """Seconds by which the clock of the submitted run ends later than that of this run, None where it is another clock."""
    from auditor.dynamic.plan import SCALES, is_clock

    if run.plan is None or run.plan.scale.seconds != SCALES[0].seconds:
        return None
    spared = 0.0
    for name, (full, given) in run.plan.notes.items():
        set_aside = "reserve" in name.lower()
        if not set_aside and not is_clock(name):
            continue
        try:
            seconds = (float(full) - float(given)) / (1000.0 if name.lower().endswith("ms") else 1.0)
        except ValueError:
            return None
        # What is set aside for later ends the loop earlier; this run sets nothing aside.
        spared += -seconds if set_aside else seconds
    return spared


def _marks(run: RunResult) -> np.ndarray:
    """Positions of the tokens that have no text."""
    import numpy as np

    return np.flatnonzero(run.dataset_bytes == 0)


def _tail(run: RunResult) -> int:
    return 2 * run.plan.scale.seq if run.plan else 0


def _settings(run: RunResult) -> dict[str, str]:
    return {name: f"{new} (full scale: {old})" for name, (old, new) in run.plan.notes.items()} if run.plan else {}


def testimony_of(
    case: Case, *, seconds: float = 60.0, probe: bool = False, progress: Callable[[str], None] | None = None
) -> Testimony:
    """Run the submission of a case under the settings its documents show; arguments as for `testify`.

    Raises:
        SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    from auditor.static.effective import settings_of_case

    settings = settings_of_case(case)
    effective = {**settings.environment, **settings.logged}
    effective |= _proved(case, settings.lines, effective, settings.logged)
    claim = next(iter(case.headline.reported.values()), None) if case.headline is not None else None
    label = getattr(claim.result, "label", "") if claim is not None else ""
    return testify(
        case.submission,
        case.program,
        effective,
        label,
        seconds=seconds,
        probe=probe,
        progress=progress,
        options=settings.options,
    )


def _proved(case: Case, lines: list[str], effective: dict[str, str], logged: dict[str, str]) -> dict[str, str]:
    """Settings that the log of the claimed run proves to differ from those its documents show."""
    if not lines or case.program.main is None:
        return {}
    from auditor.dynamic.run import settings_of
    from auditor.dynamic.switches import shown_by

    text = case.program.main.text
    return shown_by(lines, text, settings_of(text, case.submission.main_script or ""), effective, logged)
