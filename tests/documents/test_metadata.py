"""submission.json read tolerantly: places of the headline, units, seeds, broken files, hostile bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.documents.jsontext import parse
from auditor.documents.metadata import read_metadata
from auditor.documents.model import Metadata


def read(text: str | dict | list) -> Metadata:
    return read_metadata("records/x/submission.json", (text if isinstance(text, str) else json.dumps(text)).encode())


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"val_bpb": 1.0812}, "val_bpb"),
        ({"mean_val_bpb": 1.0812}, "mean_val_bpb"),
        ({"val_bpb_mean": 1.0812, "val_bpb": None}, "val_bpb_mean"),
        ({"mean_bpb": "1.0812"}, "mean_bpb"),
        ({"val_bpb_sliding": 1.0812, "pre_quant_val_bpb": 1.05}, "val_bpb_sliding"),
        ({"results": {"mean_val_bpb": 1.0812, "std": 0.001}}, "results.mean_val_bpb"),
        ({"val_bpb": {"mean": 1.0812, "std": 0.001}}, "val_bpb.mean"),
        ({"val_bpb": "pending", "legal_ttt_bpb": 1.0812}, "legal_ttt_bpb"),
        ({"val_bpb": "1.0812 (3-seed mean)"}, "val_bpb"),
        ([{"val_bpb": 1.0812}], "val_bpb"),
    ],
)
def test_headline_is_found_where_it_lives(content: dict | list, key: str) -> None:
    found = read(content)
    assert found.val_bpb is not None and found.val_bpb.value == 1.0812
    assert found.val_bpb.source.key == key


@pytest.mark.parametrize(
    "content",
    [
        {"val_bpb": None},
        {"val_bpb": "pending"},
        {"val_bpb": 0.0},
        {"val_bpb": "TBD", "comparison_baseline_bpb": 1.2},
        {"val_bpb": None, "delta_vs_leaderboard_bpb": -0.01},
        {"val_bpb": None, "predicted_val_bpb": 1.05},
        {},
    ],
)
def test_placeholders_and_other_scores_are_no_headline(content: dict) -> None:
    found = read(content)
    assert found.val_bpb is None
    assert not content.get("val_bpb", 1) or found.problems or "val_bpb" not in content


def test_placeholder_is_named_with_its_line() -> None:
    found = read('{\n  "name": "x",\n  "val_bpb": null\n}')
    assert found.problems == ["records/x/submission.json: line 3: val_bpb is null, no score"]


def test_val_loss_that_holds_the_bpb() -> None:
    found = read({"val_loss": 1.1428})
    assert found.val_bpb is not None and found.val_bpb.value == 1.1428 and found.val_loss is None
    assert "read as BPB" in found.problems[0]


def test_a_token_loss_stays_a_loss() -> None:
    found = read({"val_loss": 1.9137})
    assert found.val_bpb is None and found.val_loss is not None


def test_quantities_carry_key_line_and_text() -> None:
    found = read(
        '{\n "seed_results": {\n  "42": {\n   "val_bpb": 1.13340,\n   "eval_time_ms": 429969}},'
        '\n "bytes_total": 15510640}'
    )
    value = found.seeds["42"]["val_bpb"]
    assert (value.value, value.text, value.source.line, value.source.key) == (
        1.1334,
        "1.13340",
        4,
        "seed_results.42.val_bpb",
    )
    assert found.seeds["42"]["eval_seconds"].value == pytest.approx(429.969)
    assert found.artifact_bytes is not None and found.artifact_bytes.source.line == 6


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("bytes_total", 15510640, 15510640),
        ("bytes_total", "15,510,640", 15510640),
        ("artifact_size", "15.51 MB", 15.51e6),
        ("artifact_size", "14.8 MiB", 14.8 * 2**20),
        ("artifact_mb", 15.51, 15.51e6),
        ("artifact_bytes", "15510640 bytes", 15510640),
        ("total_size_bytes", 15.51, 15.51e6),
        ("artifact_bytes_max", 15510640.0, 15510640),
        ("bytes_total", "15_510_640", 15510640),
    ],
)
def test_sizes_in_any_unit(key: str, value: object, wanted: float) -> None:
    found = read({key: value})
    assert found.artifact_bytes is not None and found.artifact_bytes.value == pytest.approx(wanted)


def test_the_largest_total_is_claimed() -> None:
    found = read({"bytes_total": 15_000_000, "artifact_bytes_max": 15_900_000, "artifact_bytes_mean": 15_999_999})
    assert found.artifact_bytes is not None and found.artifact_bytes.value == 15_900_000


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("training_time_seconds", 599.6, 599.6),
        ("train_time_ms", 599608, 599.608),
        ("wallclock_seconds", "10m 3s", 603),
        ("train_time", "599.6s", 599.6),
        ("training_time", 599608, 599.608),
        ("training_time_minutes", 10, 600),
        ("train_time_seconds", {"42": 590, "314": 600.1}, 600.1),
        ("training_time", "600s (10 min)", 600),
    ],
)
def test_training_times_in_any_unit(key: str, value: object, wanted: float) -> None:
    found = read({key: value})
    assert found.train_seconds is not None and found.train_seconds.value == pytest.approx(wanted)


def test_longest_of_several_evaluation_times() -> None:
    found = read({"eval_time_seconds": [401.5, 420.25, 399]})
    assert found.eval_seconds is not None and found.eval_seconds.value == 420.25


SEED_SHAPES = [
    {"seed_results": {"42": {"val_bpb": 1.1, "steps": 5000}, "314": {"val_bpb": 1.2, "steps": 5001}}},
    {"seed_results": {"seed_42": {"val_bpb": 1.1, "steps": 5000}, "seed_314": {"val_bpb": 1.2, "steps": 5001}}},
    {"seed_results": [{"seed": 42, "val_bpb": 1.1, "steps": 5000}, {"seed": 314, "val_bpb": 1.2, "steps": 5001}]},
    {"seed_42": {"val_bpb": 1.1, "steps": 5000}, "seed_314": {"val_bpb": 1.2, "steps": 5001}},
    {"seeds": {"42": {"val_bpb": 1.1, "steps": 5000}, "314": {"val_bpb": 1.2, "steps": 5001}}},
    {"seeds": [{"seed": 42, "val_bpb": 1.1, "steps": 5000}, {"seed": 314, "val_bpb": 1.2, "steps": 5001}]},
    {"seeds": [42, 314], "val_bpb_seeds": [1.1, 1.2], "steps": [5000, 5001]},
    {"results": {"seeds": [42, 314], "val_bpb": [1.1, 1.2], "steps": [5000, 5001]}},
    {"seed_42_val_bpb": 1.1, "seed_42_steps": 5000, "val_bpb_seed_314": 1.2, "steps_seed314": 5001},
]


@pytest.mark.parametrize("content", SEED_SHAPES)
def test_per_seed_results_of_every_shape(content: dict) -> None:
    found = read(content).seeds
    assert {s: {m: q.value for m, q in v.items()} for s, v in found.items()} == {
        "42": {"val_bpb": 1.1, "steps": 5000},
        "314": {"val_bpb": 1.2, "steps": 5001},
    }


def test_bare_numbers_per_seed_and_listed_seeds() -> None:
    assert {s: v["val_bpb"].value for s, v in read({"val_bpb_seeds": {"42": 1.1, "7": 1.2}}).seeds.items()} == {
        "42": 1.1,
        "7": 1.2,
    }
    assert read({"seeds": [1, 2, 3]}).seeds == {"1": {}, "2": {}, "3": {}}
    assert read({"seed": 1337, "val_bpb": 1.1}).seeds == {"1337": {}}


def test_the_final_score_of_a_seed_wins_over_the_one_before_quantisation() -> None:
    found = read({"seed_results": {"42": {"pre_quant_val_bpb": 1.05, "sliding_bpb": 1.08, "val_bpb": 1.07}}})
    assert found.seeds["42"]["val_bpb"].value == 1.07


def test_settings_and_compliance_are_kept() -> None:
    found = read(
        {"num_layers": 11, "config": {"vocab_size": 8192, "compressor": "brotli"}, "compliance": {"no_slot": True}}
    )
    assert found.settings["num_layers"].value == 11 and found.settings["config.vocab_size"].value == 8192
    assert found.settings["config.compressor"] == "brotli" and found.settings["compliance.no_slot"] == "True"


BROKEN = [
    '{"val_bpb": 1.1, "seeds": [1, 2,], }',
    '// note\n{"val_bpb": 1.1, /* two */ "seeds": [1, 2] # three\n}',
    "{'val_bpb': 1.1, 'seeds': [1, 2]}",
    '{"val_bpb": 1.1, "std": NaN, "seeds": [1, 2]}',
    '{"val_bpb": 1.1, "done": True, "seeds": [1, 2]}',
    '{"val_bpb": 1.1 "seeds": [1, 2]}',
    '{"val_bpb": 1.1, "seeds": [1, 2]',
    '{val_bpb: 1.1, "seeds": [1, 2]} trailing words',
]


@pytest.mark.parametrize("text", BROKEN)
def test_broken_json_is_repaired_and_reported(text: str) -> None:
    found = read(text)
    assert found.val_bpb is not None and found.val_bpb.value == 1.1
    assert list(found.seeds) == ["1", "2"]
    assert (found.problems or text.startswith("{val")) and all("line 1" in p or "line 2" in p for p in found.problems)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings(encoding: str) -> None:
    found = read_metadata("s.json", '{"author": "André", "val_bpb": 1.1}'.encode(encoding))
    assert found.author == "André" and found.val_bpb is not None and found.problems == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_valid_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    for indent in (None, 1):
        text = json.dumps(value, indent=indent)
        node, problems = parse(text)
        assert node is not None and problems == []
        assert node.plain() == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600) | st.text("{}[],:\"'0123456789.eE-+ntfu#/*\\ \n", max_size=300).map(str.encode))
def test_any_bytes_are_read(data: bytes) -> None:
    found = read_metadata("s.json", data)
    assert found.path == "s.json"


KEYS = st.sampled_from(
    ["val_bpb", "seeds", "seed", "seed_42", "42", "bytes_total", "val_loss", "results", "config", "train_time", "std"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            st.none() | st.floats() | st.integers() | st.text(max_size=8) | st.booleans(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
            max_leaves=12,
        ),
    )
)
def test_known_keys_with_any_values(value: dict) -> None:
    found = read_metadata("s.json", json.dumps(value).encode())
    for quantity in (found.val_bpb, found.artifact_bytes, found.train_seconds):
        assert quantity is None or (quantity.value > 0 and quantity.source.line == 1)


def test_deep_nesting_ends() -> None:
    found = read("[" * 100_000)
    assert found.raw is None and found.problems
