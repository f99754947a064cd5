"""Sizes of a run: what is made smaller, what stays, and how values are written."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.dynamic.inside.constants import Shrinker
from auditor.dynamic.plan import SCALES, make_plan, planned, written
from auditor.dynamic.run import settings_of
from auditor.static.settings import declared_settings


def plan_of(text: str, effective: dict[str, str] | None = None, scale: int = 0):
    return make_plan(declared_settings(text, "train_gpt.py"), effective or {}, SCALES[scale], text)


@pytest.mark.parametrize(
    ("value", "default", "text"),
    [
        ("off", "off", "off"),  # the name of a mode
        ("soft", "off", "soft"),
        ("1", "off", "on"),
        ("0", "True", "false"),
        ("True", "0", "1"),
        ("off", None, "off"),
        ("False", None, "0"),
        (6, "20000", "6"),
        (True, False, "1"),
    ],
)
def test_switches_are_written_in_the_form_of_the_default(value: object, default: object, text: str) -> None:
    assert written(value, default) == text


def test_heads_and_chunks_fit() -> None:
    for scale in SCALES:
        assert scale.width % scale.heads == scale.heads % scale.kv_heads == 0
        assert scale.chunk % scale.seq == 0
        assert (scale.val_tokens - 1) // scale.chunk >= 8


@given(
    st.sampled_from(["NUM_EPOCHS", "TTT_STEPS", "LORA_RANK", "MODEL_DIM", "GPTQ_CALIBRATION_BATCHES"]),
    st.integers(1, 4),
)
def test_sizes_are_small_and_what_is_off_stays_off(name: str, full: int) -> None:
    assert planned(name, full, {}, SCALES[0])[1] in (None, *range(1, 65))
    assert planned(name, 0, {}, SCALES[0])[1] in (None, 0)


def test_what_was_in_force_is_switched_on() -> None:
    text = 'import os\nttt = bool(int(os.environ.get("TTT_ENABLED", "0")))\nfused = os.environ.get("FUSED_CE_ENABLED", "1")\n'
    plan = plan_of(text, {"ttt_enabled": "1"})
    assert plan.environment == {"TTT_ENABLED": "1", "FUSED_CE_ENABLED": "0"}
    assert plan.notes["ttt"] == ("1", "1")


def test_sizes_written_into_the_source() -> None:
    text = """
MODEL_DIM = 512
THRESHOLD = 512

def generate_calibration(model, num_seqs=64, seq_len: int = 2048, *, batch_size=8, width=512):
    return num_seqs * seq_len

def score(logits, num_seqs=64):
    return generate_calibration(None, num_seqs=128, temperature=8)
"""
    told = []
    tree = ast.parse(text)
    assert Shrinker(SCALES[0], {}, lambda *item: told.append(item)).shrink(tree)
    assert ast.unparse(tree) == (
        "MODEL_DIM = 64\nTHRESHOLD = 512\n\n"
        "def generate_calibration(model, num_seqs=4, seq_len: int=128, *, batch_size=4, width=512):\n"
        "    return num_seqs * seq_len\n\n"
        "def score(logits, num_seqs=64):\n    return generate_calibration(None, num_seqs=4, temperature=8)"
    )
    assert ("MODEL_DIM in line 2", 512, 64) in told
    assert len(told) == 5


@pytest.mark.parametrize(("full", "value"), [(524288, 1024), (64, 8), (4, 4)])
def test_batch_size_in_tokens_or_sequences(full: int, value: int) -> None:
    assert planned("BATCH_SIZE", full, {}, SCALES[0])[1] == value


TABLES = """
NBUCKETS = 1 << 22
WIDTH = 1 << 22
SEEDS = 0xFFFFFF

class Cache:
    def __init__(self, order=7, buckets: int = 4_194_304, min_tokens=5000, min_count=2):
        self.mask = (1 << 22) - 1
        self.counts = make_table(order, 4194304)
        self.packed = order & 0xFFFFFF

def eval_sliding(model, stride=64, batch_seqs=32, chunk_tokens=1_048_576):
    ctx_hash = ids * 36313 & 0x3FFFFF
    key = ctx_hash % 1_000_003
    word = ids & 0xFFFFFFFF
    chunk_sz = 65536
    ready = cache.total_tokens >= 10000 and cache.epoch < 10000
    return Cache(buckets=2**22)
"""


def test_tables_of_counts_keep_their_load() -> None:
    """As many tokens share a row as at full scale: 62 million tokens in 4 million rows, 4,096 in 256."""
    tree, told = ast.parse(TABLES), []
    assert Shrinker(SCALES[0], {}, lambda *item: told.append(item)).shrink(tree)
    made = ast.unparse(tree)
    rows = (1 << 22) * SCALES[0].val_tokens // 62_021_846
    assert f"NBUCKETS = {1 << rows.bit_length() - 1}\n" in made or f"NBUCKETS = {1 << rows.bit_length()}\n" in made
    shrunk = int(made.split("NBUCKETS = ")[1].split("\n")[0])
    assert f"self.mask = {shrunk - 1}\n" in made and f"make_table(order, {shrunk})" in made
    assert f"buckets: int={shrunk}, min_tokens=64, min_count=2" in made and f"Cache(buckets={shrunk})" in made
    assert f"ids * 36313 & {shrunk - 1}\n" in made
    modulus = int(made.split("ctx_hash % ")[1].split("\n")[0])
    assert modulus % 2 and abs(modulus / 1_000_003 / (shrunk / (1 << 22)) - 1) < 0.05
    assert "stride=64, batch_seqs=4, chunk_tokens=512" in made and "chunk_sz = 512" in made
    assert "cache.total_tokens >= 64 and cache.epoch < 10000" in made
    for same in ("WIDTH = 1 << 22", "SEEDS = 16777215", "order & 16777215", "ids & 4294967295"):
        assert same in made, "no table, no row"
    assert ("NBUCKETS in line 2", 1 << 22, shrunk) in told


@pytest.mark.parametrize(
    ("name", "full", "value"),
    [
        ("NGRAM_BUCKETS", 1 << 22, 256),
        ("CAUSAL_CACHE_BUCKETS", 1 << 24, 1024),
        ("HASH_BITS", 22, 9),
        ("BIGRAM_VOCAB_SIZE", 2048, 64),
        ("BIGRAM_BUCKETS", 10240, 64),
        ("MIXER_MIN_TOKENS", 10000, 64),
        ("NGRAM_EVAL_CHUNK_TOKENS", 262144, 512),
        ("GLOBAL_TTT_CHUNK_TOKENS", 32768, 512),
        ("MIXER_MIN_TOKENS", 32, None),
        ("NGRAM_MIN_COUNT", 2, None),
    ],
)
def test_settings_of_tables(name: str, full: int, value: int | None) -> None:
    found = planned(name, full, {}, SCALES[0])[1]
    assert found == value or (value and name.endswith(("BUCKETS", "BITS")) and value / 2 <= found <= value * 2)


def test_variables_of_the_command_reach_modules_beside_the_script() -> None:
    plan = plan_of(
        "import other\n", {"CACHE_MODE": "ppm", "CACHE_BUCKETS": "4194304", "OMP_NUM_THREADS": "8", "cache_alpha": "1"}
    )
    assert plan.environment["CACHE_MODE"] == "ppm" and int(plan.environment["CACHE_BUCKETS"]) < 1000
    assert "OMP_NUM_THREADS" not in plan.environment and "cache_alpha" not in plan.environment


def test_sizes_that_a_class_sets_several_of_at_once() -> None:
    text = "class Args:\n    model_dim, num_heads, name = 512, 8, 'run'\n    train_seq_len, cap = 2048, cap_of()\n"
    plan = make_plan(settings_of(text, "train_gpt.py"), {}, SCALES[0], text)
    assert plan.attributes == {"Args.model_dim": 64, "Args.num_heads": 4, "Args.train_seq_len": 128}


@pytest.mark.parametrize(
    ("name", "full", "value"),
    [
        ("TTT_LORA_RANK", "96", 4),
        ("LOCAL_RANK", "96", None),
        ("DEVICE", "cuda", None),
        ("DEVICE_BATCH_SIZE", "32", SCALES[0].batch),
        ("PROGRESSIVE_SEQ_SCHEDULE", "0:512,0.35:1024,0.7:2048", "0:32,0.35:64,0.7:128"),
        ("TRAIN_SEQ_SCHEDULE", "512@0.3,1024@0.6,1536@1.0", "32@0.3,64@0.6,128@1.0"),
        ("TEACHER_NUM_HEADS", "12", 4),
        ("TEACHER_NUM_KV_HEADS", "4", 2),
        ("BATCH_SCHEDULE", "0:65536,0.5:262144", "0:256,0.5:1024"),
        ("SEQ_SCHEDULE", "", None),
    ],
)
def test_ranks_of_adapters_and_courses_of_lengths(name: str, full: str, value: object) -> None:
    assert planned(name, full, {}, SCALES[0])[1] == value


@pytest.mark.parametrize(
    ("name", "full", "value"),
    [
        ("PHYSICS_STEPS", "8000", SCALES[0].steps),
        ("MUON_BACKEND_STEPS", "5", None),
        ("LOCAL_BATCH_TOKENS", "86016", SCALES[0].seq),
        ("TTT_BATCH_TOKENS", "65536", SCALES[0].seq * SCALES[0].batch),
        ("MEGAKERNEL_ENABLED", "1", 0),
    ],
)
def test_rounds_and_batches_by_other_names(name: str, full: str, value: object) -> None:
    assert planned(name, full, {}, SCALES[0])[1] == value


def test_the_model_as_submitted_keeps_its_sizes() -> None:
    whole = replace(SCALES[0], whole=True)
    for name, full in (("MODEL_DIM", "512"), ("NUM_KV_HEADS", "4"), ("BIGRAM_VOCAB_SIZE", "2048")):
        assert planned(name, full, {}, whole)[1] is None
        assert planned(name, full, {name.lower(): "768"}, whole)[1] == 768
    assert planned("TRAIN_SEQ_LEN", "1024", {}, whole)[1] == whole.seq


@pytest.mark.parametrize(("full", "value"), [(62_021_846, 4096), (31_000_000, 2048), (10_485_760, 1024), (600, None)])
def test_a_part_of_the_stream_stays_a_part_of_it(full: int, value: int | None) -> None:
    assert planned("VAL_TOKENS", full, {}, SCALES[0])[1] == value


@pytest.mark.parametrize(("chunk", "value"), [(1024, 128), (32768, 512), (48, 64)])
def test_chunks_within_sequences_stay_within_them(chunk: int, value: int) -> None:
    text = f"""
import os
class Settings:
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", 2048))
    ttt_chunk_size = int(os.environ.get("TTT_CHUNK_SIZE", {chunk}))
"""
    plan = make_plan(declared_settings(text, "train_gpt.py"), {}, SCALES[0], text)
    assert plan.environment["TTT_CHUNK_SIZE"] == str(value)


def test_batches_that_one_rank_makes_for_all() -> None:
    tree = ast.parse("class Settings:\n    grad_accum_steps = 96 // world_size\nother = 96 // world_size\n")
    assert Shrinker(SCALES[0], {}, lambda *_: None).shrink(tree)
    assert "grad_accum_steps = 8 // world_size" in ast.unparse(tree)
    assert "other = 96 // world_size" in ast.unparse(tree)


def test_sizes_set_behind_a_class() -> None:
    tree = ast.parse("""
class Settings:
    model_dim = 512
Settings.model_dim = 768
Settings.note = 768
Settings.model_dim = Settings.note
def later(settings):
    settings.model_dim = 768
""")
    assert Shrinker(SCALES[0], {}, lambda *_: None).shrink(tree)
    assert "Settings.model_dim = 64\nSettings.note = 768\nSettings.model_dim = Settings.note" in ast.unparse(tree)
    assert "settings.model_dim = 768" in ast.unparse(tree)


def test_dictionaries_that_describe_a_model() -> None:
    tree = ast.parse(
        "a = dict(model_dim=512, num_heads=8, lin_head_dim=64, swa_num_kv_heads=4, layers=10, bigram_vocab_size=3072)\n"
        "b = {'d_model': 512, 'n_heads': 8, 'depth': 9}\n"
        "c = {'num_heads': 8, 'steps': 512}\n"
    )
    assert Shrinker(SCALES[0], {}, lambda *_: None).shrink(tree)
    found: dict = {}
    exec(compile(tree, "", "exec"), found)
    assert found["a"] == {
        "model_dim": 64, "num_heads": 4, "lin_head_dim": 16, "swa_num_kv_heads": 2, "layers": 10, "bigram_vocab_size": 64,
    }  # fmt: skip
    assert found["b"] == {"d_model": 64, "n_heads": 4, "depth": 9}
    assert found["c"] == {"num_heads": 8, "steps": 512}
    assert not Shrinker(replace(SCALES[0], whole=True), {}, lambda *_: None).shrink(
        ast.parse("dict(d_model=9, heads=8)")
    )


@pytest.mark.parametrize(("name", "value"), [("warmup_cu_iters", 1), ("compile_warmup_iters", 1), ("loop_iters", 3)])
def test_rounds_of_compilation(name: str, value: int) -> None:
    tree = ast.parse(f"def train():\n    {name} = 3\n    return {name}\n")
    Shrinker(SCALES[0], {}, lambda *_: None).shrink(tree)
    found: dict = {}
    exec(compile(tree, "", "exec"), found)
    assert found["train"]() == value
