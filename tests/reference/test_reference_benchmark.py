"""The comparison with a submission's own loops: what fits, what is refused, and that both sides compute the same."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_run import tiny

from reference.config import load
from reference.model import GPT


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmarks' folder on the path."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    yield
    for name in ("reference_inside", "reference_submission", "reference_eval"):
        sys.modules.pop(name, None)


def as_a_script_names_them(name: str) -> str:
    """A tensor of the reference under the names of the scripts."""
    for pattern, there in (
        (r"^tok_embed$", "tok_emb.weight"),
        (r"^bigram\.table$", "bigram_emb.embed.weight"),
        (r"^bigram\.", "bigram_emb."),
        (r"^smear\.", "smear_gate."),
        (r"^value_embed\.table$", "ve_shared.embed.weight"),
        (r"^value_embed\.layer_scales", "ve_layer_scales"),
        (r"^value_embed\.", "ve_shared."),
        (r"\.attn\.([qkv])\.", r".attn.c_\1."),
        (r"\.attn\.o\.", ".attn.proj."),
        (r"\.attn\.gain$", ".attn.q_gain"),
        (r"\.mlp\.(up|down)\.", r".mlp.\1_proj."),
        (r"\.mlp\.hidden_", ".mlp."),
    ):
        name = re.sub(pattern, there, name)
    return name


def test_weights_find_their_counterparts(benchmarks: None) -> None:
    from reference_inside import DoesNotFit, mapped_weights

    model = GPT(tiny("model.bigram.hash=xor", "model.bigram.scale_init=0.05"))
    own = dict(model.named_parameters())
    theirs = {as_a_script_names_them(name): p.detach() for name, p in own.items()}
    mapped = mapped_weights(theirs, own)
    assert set(mapped) == set(own) and all(torch.equal(mapped[n], p) for n, p in own.items())
    with pytest.raises(DoesNotFit, match=r"its tensor gate\.weight \[3\] has no counterpart"):
        mapped_weights({**theirs, "gate.weight": torch.ones(3)}, own)
    with pytest.raises(DoesNotFit, match="no counterpart"):
        mapped_weights({**theirs, "tok_emb.weight": torch.ones(3, 3)}, own)
    theirs.pop("skip_gates")
    with pytest.raises(DoesNotFit, match="no tensor for skip_gates"):
        mapped_weights(theirs, own)


def test_arguments_are_found_by_the_names_of_parameters(benchmarks: None) -> None:
    from reference_inside import DoesNotFit, arguments_of

    def loop(model: object, stride: int, batch_seqs: int = 32, log0: object = print) -> None:
        """A loop of a script."""

    assert arguments_of(loop, {"model": 1, "stride": 64, "other": 2}) == {"model": 1, "stride": 64}
    with pytest.raises(DoesNotFit, match="no value for parameter stride of loop"):
        arguments_of(loop, {"model": 1})


@pytest.mark.corpus
@pytest.mark.parametrize("number", [598, 612, 861])
def test_bits_per_byte_are_those_of_the_submission(benchmarks: None, repo: Path, number: int) -> None:
    """Its loops and the reference's on the same noisy weights.

    NTK, xor hash and its factor (#598); polynomial hash, another schedule (#612); no grouped queries, leaky activation,
    AdamW on parameters chosen by name (#861).
    """
    from reference_eval import ON_CPU, SMALL, SWITCHES
    from reference_submission import measure

    sizes = ["model.dim=64", "model.mlp_hidden=96", "model.heads=4", "model.kv_heads=2", "model.value_embed.dim=16"]
    sizes += ["data.seq_len=128", "eval.seq_len=128", "ttt.chunk_tokens=256", "model.rope_train_len=64"]
    sizes += ["ttt.lr=0.002" if number == 861 else "ttt.lr=0.05"]
    overrides = [*SWITCHES, *ON_CPU, *SMALL, *sizes]
    options = argparse.Namespace(
        config=f"pr{number}",
        overrides=overrides,
        chunks=3,
        repeat=1,
        threads=1,
        modes=["standard", "sliding", "ttt"],
        loop=[],
        attribute=[],
        minutes=5.0,
    )
    rows = measure(repo, number, load(f"pr{number}", overrides), options)["rows"]
    for mode in options.modes:
        assert rows[mode]["bpb"]["ours"] == pytest.approx(rows[mode]["bpb"]["theirs"], abs=1e-6), mode
    assert abs(rows["ttt"]["bpb"]["ours"] - rows["sliding"]["bpb"]["ours"]) > 1e-5  # it did adapt
