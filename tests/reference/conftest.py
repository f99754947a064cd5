"""A tiny model, its data, and one short training run shared by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import tiny

from reference import pipeline
from reference.data import make_shards
from reference.model import GPT
from reference.ranks import Ranks
from reference.runlog import RunLog
from reference.texts import standard_library_documents
from reference.tokenizer import ByteTokenizer
from reference.validation import ValidationStream


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products are faster on one thread, and results repeat."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with byte260 shards of English text; training spans three shards."""
    folder = tmp_path_factory.mktemp("shards")
    encoder = ByteTokenizer()
    documents = [encoder.encode(text[:1500]) for text in standard_library_documents(60_000)]
    documents[0] = documents[0][:1200]
    make_shards(documents, folder, val_documents=1, shard_tokens=7_000)
    return folder


@pytest.fixture(scope="session")
def stream() -> ValidationStream:
    """A short validation stream whose length is not a multiple of the chunk: 9 rows of 32, 4.5 chunks."""
    text = "\n\n".join(standard_library_documents(3_000))
    tokens = np.concatenate([ByteTokenizer().encode(text[:150]), ByteTokenizer().encode(text[150:600])])
    return ValidationStream.from_tokens(tokens[:300], ByteTokenizer().tables, 32)


@pytest.fixture(scope="session")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of one complete training run of the tiny configuration."""
    out = tmp_path_factory.mktemp("trained")
    work = pipeline.Workspace(tiny(), shards, out, Ranks(), RunLog(out / "logs", "run", console=False))
    pipeline.train(work)
    return out


@pytest.fixture
def model(trained: Path, shards: Path) -> GPT:
    """The trained tiny model, float weights, fresh for each test."""
    work = pipeline.Workspace(tiny(), shards, trained, Ranks(), RunLog(None, ""))
    return pipeline.load_model(work, trained / pipeline.WEIGHTS_FILE)
