"""huggingface_hub without a network: the data set made for this run under the names programs download it by.

Only data is offered. What is asked for and is not there (weights of a trained model, other data) ends the run with its name.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DATA = "/data"
_OWN = ("table.npy", "repeats.npz")  # what tells the recorder where tokens stand is no part of the data set


def install(refuse: Callable[[str], Callable], data: str = DATA) -> None:
    """Put the module in place where the package is absent. `refuse` makes a function that ends the run with a name."""
    if "huggingface_hub" in sys.modules or importlib.util.find_spec("huggingface_hub") is not None:
        return
    hub = Hub(refuse, Path(data))
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download, module.hf_hub_download = hub.snapshot_download, hub.hf_hub_download
    module.login = module.logout = lambda *_, **__: None
    module.__getattr__ = lambda name: _missing(name, refuse)
    sys.modules["huggingface_hub"] = module


def _missing(name: str, refuse: Callable[[str], Callable]) -> Callable:
    if name.startswith("__"):
        raise AttributeError(name)
    return refuse(f"huggingface_hub.{name}")


class Hub:
    """Downloads as links to the files of `data`."""

    def __init__(self, refuse: Callable[[str], Callable], data: Path) -> None:
        self._refuse, self._data = refuse, data

    def hf_hub_download(
        self, repo_id: str, filename: str, *, subfolder: str | None = None, local_dir: Any = None, **_: Any
    ) -> str:
        """Path of one file, below `local_dir` where that is given."""
        name = Path(filename).name
        found = next((path for path in self._files() if path.name == name), None)
        if found is None:
            return self._refuse(f"huggingface_hub: {filename} of {repo_id}, which is no file of the data set,")()
        return str(found) if local_dir is None else self._link(found, Path(local_dir, subfolder or "", filename))

    def snapshot_download(
        self, repo_id: str, *, local_dir: Any = None, allow_patterns: Any = None, repo_type: Any = None, **_: Any
    ) -> str:
        """Folder with all files of the data set that `allow_patterns` lets through."""
        patterns = [allow_patterns] if isinstance(allow_patterns, str) else allow_patterns
        found = [path for path in self._files() if self._asked(path.name, patterns)]
        if repo_type != "dataset" or not found:
            return self._refuse(f"huggingface_hub: {repo_id}, which is not the data set,")()
        if local_dir is None:
            return str(self._data)
        for path in found:
            self._link(path, Path(local_dir, path.name))
        return str(local_dir)

    def _asked(self, name: str, patterns: Iterable[str] | None) -> bool:
        return patterns is None or any(fnmatch.fnmatch(name, Path(pattern).name) for pattern in patterns)

    def _files(self) -> list[Path]:
        folders = [self._data, self._data / "tokenizers"]
        return [
            path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())
            if path.is_file() and path.name not in _OWN
        ]  # fmt: skip

    def _link(self, source: Path, target: Path) -> str:
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        return str(target)
