"""One submission in, one review out; many submissions as a stream that never stops on a bad one.

`review_submission` runs the witnesses, the rules and the judge. `review_target` does so for one of many targets and
turns whatever goes wrong with it into an ERROR review that names the file and what to do.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from auditor.case import Case
from auditor.errors import AuditorError
from auditor.findings import Finding, Verdict
from auditor.submission import Submission
from auditor.targets import Target

if TYPE_CHECKING:
    from auditor.casefile import Call


@dataclass
class Review:
    """Outcome of one review.

    Attributes:
        label: how the submission was named on the command line.
        verdict: the one-word answer; `reason` the sentence behind it, `not_checked` what nobody looked at.
        submission, case, findings: None or empty when the submission could not be read at all.
        error: for an ERROR review, what is wrong and what to do.
        defect: traceback when the cause is a defect of this program, for a bug report; "" otherwise.
        seconds: wall-clock time of the review, seconds.
    """

    label: str
    verdict: Verdict
    reason: str
    not_checked: str = ""
    submission: Submission | None = None
    case: Case | None = None
    findings: list[Finding] = field(default_factory=list)
    error: str = ""
    defect: str = ""
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """One JSON line for a table of many reviews.

        Keys: pr (number, "main" for a folder of the main branch, or the label), main_file, verdict, findings
        (rule, status), seconds, and head, folder, label, reason for whoever reads the table.
        """
        s = self.submission
        pr: int | str = self.label
        if s is not None:
            pr = s.pr if s.pr is not None else ("main" if s.label.startswith("main:") else s.label)
        return {
            "pr": pr,
            "main_file": (s.main_script if s else None) or "",
            "verdict": self.verdict.value,
            "findings": [{"rule": f.rule, "status": f.status.value} for f in self.findings],
            "seconds": round(self.seconds, 3),
            "label": self.label,
            "head": s.head if s else "",
            "folder": s.folder if s else "",
            "reason": self.reason,
        }


def review_submission(submission: Submission, label: str = "", call: Call | None = None) -> Review:
    """Review one submission with the witnesses `call` names (default: documents and static analysis).

    Raises nothing for a bad submission: what cannot be read is a problem of the case and an unknown of the rules.
    """
    from auditor.casefile import build_case
    from auditor.judge import judge

    start = time.perf_counter()
    case = build_case(submission, call)
    judgement = judge(case)
    return Review(
        label=label or submission.label,
        verdict=judgement.verdict,
        reason=judgement.reason,
        not_checked=judgement.second_line,
        submission=submission,
        case=case,
        findings=list(judgement.findings),
        seconds=time.perf_counter() - start,
    )


def review_target(target: Target, call: Call | None = None) -> Review:
    """Review one target; an error becomes an ERROR review (the user's errors plainly, ours with a traceback)."""
    start = time.perf_counter()
    try:
        review = review_submission(target.load(), target.label, call)
    except AuditorError as error:
        review = Review(target.label, Verdict.ERROR, reason=str(error), error=str(error))
    except Exception as error:  # one submission must never stop the others
        text = f"internal error while reviewing {target.label}: {type(error).__name__}: {error}"
        review = Review(target.label, Verdict.ERROR, reason=text, error=text, defect=traceback.format_exc())
    review.seconds = time.perf_counter() - start
    return review
