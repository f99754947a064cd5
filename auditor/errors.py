"""Errors a user can act on. Each names the thing that is wrong and what to do about it.

The command line prints the message of an `AuditorError` and exits with code 4 ("could not be audited");
anything else that escapes is a defect of this program.
"""

from __future__ import annotations


class AuditorError(Exception):
    """Base of every error that is shown to the user as one message, without a traceback."""


class SubmissionNotFound(AuditorError):
    """The folder, ref or pull request that was asked for does not exist or cannot be read."""


class GitError(AuditorError):
    """git refused a request; the message holds the command's own words."""


class MissingBlob(AuditorError):
    """The clone lists a file whose content it does not hold (a partial or pruned clone)."""


class UnpackLimit(AuditorError):
    """A packed source grew past the bound on expansion (see `auditor.unpack`)."""
