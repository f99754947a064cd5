"""Shared fixtures. `repo` is a clone of the public repository, for tests marked `corpus`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run the tests differ too much in speed for a time limit on single examples. Continuous integration
# draws the same examples each time: what it reports about a change must come from that change.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.fixture(scope="session")
def repo() -> Path:
    """Clone named by PARAMETER_GOLF_REPO; tests that need one are left out without it."""
    path = os.environ.get("PARAMETER_GOLF_REPO", "")
    if not path:
        pytest.skip("PARAMETER_GOLF_REPO names no clone of the public repository")
    return Path(path)


@pytest.fixture(scope="session")
def submissions() -> Path:
    """Folder of the small submissions written for the tests."""
    return Path(__file__).parent / "submissions"
