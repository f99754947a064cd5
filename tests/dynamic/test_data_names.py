"""Data under the names programs look for: folders, shards with another beginning, downloads that are no downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auditor.dynamic.dataset import build
from auditor.dynamic.inside.hub import Hub
from auditor.dynamic.run import names_in


class Refused(Exception):
    """What the stand-in ends a run with."""


def refuse(what: str):
    def end(*_: object, **__: object) -> None:
        raise Refused(what)

    return end


@pytest.fixture
def data(tmp_path: Path) -> Path:
    build(
        tmp_path / "data", vocab_size=1024, train_tokens=20_000, val_tokens=2049,
        folders=("fineweb10B_plain",), models=("other.model",), shards=("web_bpe", "fineweb"),
    )  # fmt: skip
    return tmp_path / "data"


def test_names_that_are_put_together_hold_the_vocabulary() -> None:
    folders, models, shards = names_in(
        """
        root = os.path.join(data_dir, "datasets", f"fineweb10B_sp{h.vocab_size}_lower")
        model = f"fineweb_{h.vocab_size}_lower.model"
        files = glob.glob(f"{root}/web_bpe_{split}_*.bin") + glob.glob("fineweb_val_*.bin")
        other = "./data/datasets/plain/fineweb_train_*.bin"
        """,
        4096,
    )
    assert set(folders) == {"fineweb10B_sp4096_lower", "plain"}
    assert models == ("fineweb_4096_lower.model",)
    assert set(shards) == {"web_bpe", "fineweb"}


def test_shards_are_found_under_the_programs_name(data: Path) -> None:
    named = np.fromfile(data / "datasets/fineweb10B_plain/web_bpe_val_000000.bin", dtype="<u2")
    assert (named == np.fromfile(data / "fineweb_val_000000.bin", dtype="<u2")).all()
    assert len(list(data.glob("fineweb_train_*.bin"))) == len(list(data.glob("web_bpe_train_*.bin"))) == 1


def test_a_download_is_a_link_to_the_data_set(data: Path, tmp_path: Path) -> None:
    hub = Hub(refuse, data)
    folder = tmp_path / "down"
    assert hub.snapshot_download("some/data", repo_type="dataset", local_dir=folder) == str(folder)
    assert (folder / "fineweb_val_000000.bin").read_bytes() == (data / "fineweb_val_000000.bin").read_bytes()
    only = tmp_path / "only"
    hub.snapshot_download("some/data", repo_type="dataset", local_dir=only, allow_patterns="*_val_*.bin")
    assert {path.name for path in only.iterdir()} == {"fineweb_val_000000.bin", "web_bpe_val_000000.bin"}
    got = hub.hf_hub_download(
        repo_id="some/data", filename="datasets/x/fineweb_val_000000.bin", local_dir=tmp_path / "x"
    )
    assert Path(got).stat().st_size == (data / "fineweb_val_000000.bin").stat().st_size
    assert Path(hub.hf_hub_download("some/data", "other.model")).exists()


def test_what_is_no_data_ends_the_run_with_its_name(data: Path) -> None:
    np.save(data / "table.npy", np.zeros(1))
    for filename in ("model.safetensors", "fineweb_train_000080.bin", "table.npy"):
        with pytest.raises(Refused, match=filename):
            Hub(refuse, data).hf_hub_download("some/model", filename)
    with pytest.raises(Refused, match="some/model"):
        Hub(refuse, data).snapshot_download("some/model")
