"""READMEs and shell scripts: numbers with lines, tables per seed, commands, environment, statements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.documents.model import Readme
from auditor.documents.readme import read_readme
from auditor.documents.shell import read_shell

TEXT = """# Record: nine layers and a sliding window (val_bpb: 1.0812)

**3-seed mean val_bpb: 1.0812** (std 0.0005, p < 0.01) | **15.91 MB** | 8xH100 80GB SXM, 599.8 s

| Seed | Steps | ms/step | Pre-TTT bpb | **Post-TTT bpb** | TTT time | Artifact (bytes) |
|------|------:|--------:|-------------|------------------|----------|------------------|
| 1337 | 7,030 | 85.3ms | 1.0901 | **1.0807** | 405s | 15,700,318 |
| 42 | 7,025 | 85.4 | 1.0909 | **1.0817** | ~6m 45s | 15.85 MB |
| **Mean** | 7,028 | 85.3 | 1.0905 | **1.0812** | 405s | |

## Reproduce

```bash
sudo apt-get install lrzip
pip install -r requirements.txt
export DATA_PATH=./data VOCAB_SIZE=8192
for SEED in 1337 42 2025; do
  SEED=$SEED TTT_ENABLED=1 \\
  TTT_LR=0.002 torchrun --standalone --nproc_per_node=8 train_gpt.py
done
```

This is a non-record submission with unlimited compute; only one seed was run on an RTX 4090.
The model was trained for 20 minutes.
"""


@pytest.fixture(scope="module")
def readme() -> Readme:
    return read_readme("records/x/README.md", TEXT.encode())


def line_of(words: str) -> int:
    return next(n for n, line in enumerate(TEXT.split("\n"), 1) if words in line)


def values(readme: Readme, kind: str) -> list[tuple[float, int | None]]:
    return [(q.value, q.source.line) for q in readme.values.get(kind, [])]


def test_prose(readme: Readme) -> None:
    assert readme.title == "Record: nine layers and a sliding window (val_bpb: 1.0812)"
    assert (1.0812, 1) in values(readme, "val_bpb") and (1.0812, 3) in values(readme, "val_bpb")
    assert values(readme, "std") == [(0.0005, 3)] and values(readme, "p_value") == [(0.01, 3)]
    assert (15_910_000.0, 3) in values(readme, "mb") and (599.8, 3) in values(readme, "seconds")
    assert (1200.0, line_of("20 minutes")) in values(readme, "minutes")


def test_table_rows_by_seed(readme: Readme) -> None:
    first, second = readme.seeds["1337"], readme.seeds["42"]
    assert {m: q.value for m, q in first.items()} == {
        "steps": 7030,
        "step_ms": 85.3,
        "val_bpb": 1.0807,
        "eval_seconds": 405,
        "artifact_bytes": 15_700_318,
    }
    assert second["artifact_bytes"].value == 15_850_000 and second["eval_seconds"].value == 405
    assert first["val_bpb"].source.line == line_of("| 1337 |")
    assert first["val_bpb"].text == "1.0807"
    assert set(readme.seeds) == {"1337", "42", "2025"} and readme.seeds["2025"] == {}


def test_commands_and_environment(readme: Readme) -> None:
    found = {source.excerpt.split()[0]: source.line for source in readme.commands}
    assert found["sudo"] == line_of("apt-get") and found["pip"] == line_of("pip install")
    launch = next(source for source in readme.commands if "torchrun" in source.excerpt)
    assert launch.line == line_of("SEED=$SEED") and "train_gpt.py" in launch.excerpt
    texts = {name: getattr(value, "text", value) for name, value in readme.environment.items()}
    assert texts == {
        "DATA_PATH": "./data",
        "VOCAB_SIZE": "8192",
        "TTT_ENABLED": "1",
        "TTT_LR": "0.002",
        "nproc_per_node": "8",
    }
    lr = readme.environment["TTT_LR"]
    assert not isinstance(lr, str) and lr.value == 0.002 and lr.source.line == line_of("SEED=$SEED")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("apt", "apt-get"),
        ("unlimited", "unlimited compute"),
        ("track", "non-record"),
        ("single_seed", "only one seed"),
        ("hardware", "8xH100"),
        ("hardware", "4090"),
        ("pip", "pip install"),
    ],
)
def test_statements(readme: Readme, kind: str, words: str) -> None:
    assert line_of(words) in [source.line for source in readme.statements[kind]]


def test_a_plain_column_named_val_bpb_is_the_score() -> None:
    text = "| Seed | val_bpb | pass1_bpb | final_bpb_rounded |\n|---|---|---|---|\n| 1 | 0.11819909 | 0.28 | 0.1182 |\n"
    assert read_readme("r.md", text.encode()).seeds["1"]["val_bpb"].value == 0.11819909


def test_a_decay_in_a_table_of_settings_is_no_score() -> None:
    text = "| Setting | Value |\n|---|---|\n| EMA | Decay 0.997 |\n| EMA bpb | 1.1427 |\n"
    found = read_readme("README.md", text.encode())
    assert [quantity.value for quantity in found.values["val_bpb"]] == [1.1427]


def test_table_with_a_column_per_seed() -> None:
    text = (
        "| Metric | Seed 42 | Seed 7 | Mean |\n|---|---|---|---|\n"
        "| val_bpb | 1.1 | 1.2 | 1.15 |\n| Delta bpb | -0.1 | -0.2 | -0.15 |\n"
    )
    found = read_readme("r.md", text.encode()).seeds
    assert {s: {m: q.value for m, q in v.items()} for s, v in found.items()} == {
        "42": {"val_bpb": 1.1},
        "7": {"val_bpb": 1.2},
    }


def test_differences_are_no_scores() -> None:
    found = read_readme(
        "r.md", b"Improves by -0.0120 BPB (delta +0.0033 BPB).\n| Seed | delta bpb |\n|--|--|\n| 1 | 0.01 |\n"
    )
    assert "val_bpb" not in found.values and "val_bpb" not in found.seeds.get("1", {})


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Artifact: 14.80 MiB", "mib", 14.8 * 2**20),
        ("total 15,991,234 bytes", "bytes", 15_991_234),
        ("took 9.5 min", "minutes", 570),
        ("stopped at 599608 ms", "ms", 599.608),
        ("5,440 steps", "steps", 5_440),
        ("33.5M parameters", "params", 33.5e6),
        ("p = 1.2e-5", "p_value", 1.2e-5),
        ("± 0.00031", "std", 0.00031),
        ("val_loss 1.9137", "val_loss", 1.9137),
        ("1.0611 BPB", "val_bpb", 1.0611),
        ("mean BPB of **1.0611**", "val_bpb", 1.0611),
    ],
)
def test_units_in_prose(text: str, kind: str, value: float) -> None:
    found = read_readme("r.md", f"words\n{text}\n".encode()).values
    assert [(q.value, q.source.line) for q in found[kind]] == [(pytest.approx(value), 2)]


def test_shell_script() -> None:
    script = b"""#!/bin/bash
# TTT_ENABLED=0
export ITERATIONS=${ITERATIONS:-20000}
RUN_ID="my run" SEED=42 \\
  torchrun --nproc_per_node 8 \\
  train_gpt.py 2>&1 | tee train.log
python3 eval.py --chunks 900
"""
    found = read_shell("run.sh", script)
    assert [(s.line, s.excerpt.split()[0]) for s in found.launches] == [(4, 'RUN_ID="my'), (7, "python3")]
    assert {k: getattr(v, "text", v) for k, v in found.environment.items()} == {
        "ITERATIONS": "20000",
        "RUN_ID": "my run",
        "SEED": "42",
        "nproc_per_node": "8",
    }


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=2000) | st.text("|-:# \n`*1234.,seedbpMBms=$\\'\"~", max_size=400).map(str.encode))
def test_any_bytes_are_read(data: bytes) -> None:
    found = read_readme("r.md", data)
    count = found.text.count("\n") + 1
    assert all(1 <= (q.source.line or 0) <= count for items in found.values.values() for q in items)
    read_shell("run.sh", data)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.integers(1, 99_999), st.tuples(st.floats(0.5, 3), st.integers(10**6, 17 * 10**6)), min_size=1, max_size=5
    )
)
def test_generated_tables_read_back(rows: dict[int, tuple[float, int]]) -> None:
    lines = ["| Seed | val_bpb | Artifact bytes |", "|:--|--:|--:|"]
    lines += [f"| {seed} | {bpb:.6f} | {size:,} |" for seed, (bpb, size) in rows.items()]
    found = read_readme("r.md", "\n".join(lines).encode()).seeds
    assert {int(s): (v["val_bpb"].value, v["artifact_bytes"].value) for s, v in found.items()} == {
        seed: (float(f"{bpb:.6f}"), size) for seed, (bpb, size) in rows.items()
    }
