"""What a program does with the splits: calibration, stored validation content, parts of the stream, SLOT.

Legal and illegal twins differ by one edit of the same example program.
"""

from __future__ import annotations

import pytest

from auditor.findings import Status
from auditor.static.analysis import StaticResult, static_timeline
from auditor.static.effective import Effective
from auditor.static.file_names import file_split
from auditor.timeline import External
from auditor.unpack import Layer, Program
from rules.example_program import DATA, EVALUATION, EXPORT, MAIN, edited, program


def analyse(text: str, settings: Effective | None = None, **modules: str) -> StaticResult:
    """Static analysis of a main script and its sibling modules (name without suffix -> source)."""
    main = Layer("train_gpt.py", text, text.encode())
    others = [Layer(name, source, source.encode()) for name, source in modules.items()]
    return static_timeline(Program(main=main, layers=[main, *others]), settings)


def status(result: StaticResult, rule: str) -> Status | None:
    verdict = result.answers.get(rule)
    return verdict.status if verdict else None


# -- statistics of layers are no count tables --------------------------------------------------------------------------

# The layers come from a model nobody can read here, so their names may come from anywhere.
STATISTICS = """
import somewhere

def statistics(tokens):
    model = somewhere.load_model(tokens)
    sums = {}
    for name, layer in model.named_modules():
        sums[name] = torch.zeros(64, 64)

        def hook(module, given, out, name=name):
            sums[name] += given[0].float().T @ given[0].float()

        layer.register_forward_hook(hook)
    model(tokens[None, :1024])
    return sums
"""


def test_a_dict_of_layer_statistics_is_no_count_table() -> None:
    text = program(
        extra=STATISTICS, after_training="    sums = statistics(val_tokens)\n    model.scales = sums.get('a')"
    )
    result = analyse(text)
    assert status(result, "PG-C2-normalisation") is Status.PASS
    assert status(result, "PG-C4-single-pass") is Status.PASS


COUNTS = edited(
    edited(
        EVALUATION,
        "            nll = token_losses(model, inputs, targets)\n",
        "            nll = token_losses(model, inputs, targets)\n"
        "            for previous, token in zip(inputs[0].tolist(), targets[0].tolist()):\n"
        "                seen[previous] = seen.get(previous, 0) + 1\n"
        "                pairs[previous, token] = pairs.get((previous, token), 0) + 1\n"
        "                nll = nll - 0.1 * pairs[previous, token] / seen[previous]\n",
    ),
    "    totals = torch.zeros",
    "    seen, pairs = {}, {}\n    totals = torch.zeros",
)


def test_a_dict_that_counts_tokens_is_a_count_table() -> None:
    result = analyse(program(evaluation=COUNTS))
    assert status(result, "PG-C2-normalisation") is Status.FAIL


# -- calibration -------------------------------------------------------------------------------------------------------

REPLACED = """
def layer_statistics(model, tokens, device):
    sums = {}

    def collecting(number, inner):
        def forward(x):
            sums[f"blocks.{number}"].addmm_(x.flatten(0, 1).T, x.flatten(0, 1))
            return inner(x)
        return forward

    kept = []
    for number, block in enumerate(model.blocks):
        sums[f"blocks.{number}"] = torch.zeros(args.model_dim, args.model_dim, device=device)
        kept.append(block.forward)
        block.forward = collecting(number, block.forward)
    for start in range(0, 128 * args.seq_len, args.seq_len):
        model(tokens[start:start + args.seq_len][None].to(device))
    for block, forward in zip(model.blocks, kept):
        block.forward = forward
    return sums
"""
WITH_STATISTICS = edited(
    edited(EXPORT, "def write_artifact(model, path):", "def write_artifact(model, path, sums):"),
    "        scale = value.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-8) / 127\n",
    "        scale = value.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-8) / 127\n"
    "        scale = scale * sums[name[:8]].diag().mean()\n",
)
EXPORT_CALL = edited(
    MAIN,
    'write_artifact(model, "final_model.int8.ptz")',
    'write_artifact(model, "final_model.int8.ptz", layer_statistics(model, {tokens}, device))',
)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [("val_tokens", Status.FAIL), ("torch.randint(0, args.vocab_size, (200000,))", Status.PASS)],
)
def test_a_replaced_forward_pass_calibrates(tokens: str, expected: Status) -> None:
    text = program(extra=REPLACED, export=WITH_STATISTICS, main=EXPORT_CALL.replace("{tokens}", tokens))
    result = analyse(text)
    assert status(result, "PG-D-val-in-train") is expected
    if expected is Status.FAIL:
        said = [words for _, words in result.answers["PG-D-gptq-calibration"].chain]
        assert "statistics of them are collected" in said


# -- validation content in files ---------------------------------------------------------------------------------------

STORED = edited(
    edited(
        EVALUATION,
        "            nll = token_losses(model, inputs, targets)\n",
        "            nll = token_losses(model, inputs, targets)\n"
        "            known = blob[start + 1:start + 1 + targets.numel()].to(device)\n"
        "            nll[0] *= ({compared} != known).to(nll.dtype)\n",
    ),
    "    totals = torch.zeros",
    '    blob = torch.from_numpy(np.frombuffer(zlib.decompress(open("extra.bin", "rb").read()), dtype="<u2").copy())\n'
    "    totals = torch.zeros",
)


@pytest.mark.parametrize(("compared", "expected"), [("targets[0]", Status.FAIL), ("torch.zeros_like(nll[0])", None)])
def test_losses_changed_where_a_stored_token_equals_the_target(compared: str, expected: Status | None) -> None:
    result = analyse(program(evaluation=STORED.replace("{compared}", compared)))
    assert status(result, "PG-D-paid-prefix") is expected


# -- parts of the stream -----------------------------------------------------------------------------------------------

DRAWN = """
def evaluate(model, val_tokens, tables, rank, world_size, device):
    size, space, control = tables
    nats, nbytes = 0.0, 0.0
    with torch.inference_mode():
        for {loop}:
            window = val_tokens[start:start + args.seq_len + 1].to(device)
            inputs, targets = window[None, :-1], window[None, 1:]
            nats += token_losses(model, inputs, targets).sum().item()
            nbytes += (size[targets] + (space[targets] & ~control[inputs])).sum().item()
    return nats, nats / math.log(2) / nbytes
"""
WHOLE = DRAWN.replace("{loop}", "start in range(0, val_tokens.numel() - 1, args.seq_len)")
AT_RANDOM = DRAWN.replace("{loop}", "start in np.random.randint(0, val_tokens.numel() - args.seq_len, 100)")
BY_DEFAULT = edited(
    DATA,
    "    return tokens[:usable + 1]\n",
    '    return tokens[:usable + 1][:int(os.environ.get("LIMIT", "1000000"))]\n',
)
FRONT = edited(DATA, "    return tokens[:usable + 1]\n", "    return tokens[:usable + 1][:1_000_000]\n")
ELSEWHERE = """
def load_validation_tokens():
    from datasets import load_dataset
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    stream = load_dataset("some/corpus", split="train", streaming=True){limit}
    return torch.tensor([piece for document in stream for piece in sp.encode(document["text"])])
"""
OFFICIAL, _, _ = DATA.partition("def load_validation_tokens")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (program(), None),
        (program(evaluation=WHOLE), None),
        (program(evaluation=AT_RANDOM), Status.FAIL),
        (program(data=FRONT), Status.FAIL),
        (program(data=BY_DEFAULT), None),
        (program(data=edited(DATA, *(("fineweb_val_*.bin", "fineweb_val_0*.bin")))), None),
    ],
    ids=[
        "stream",
        "every window",
        "windows at random",
        "first million",
        "a default nobody may have used",
        "other pattern",
    ],
)
def test_parts_of_the_validation_stream(text: str, expected: Status | None) -> None:
    assert status(analyse(text), "PG-B-full-val") is expected


def test_documents_from_elsewhere_are_no_validation_set() -> None:
    rest = DATA[DATA.index("def byte_tables") :]
    data = OFFICIAL + ELSEWHERE.replace("{limit}", ".take(50)") + rest
    verdict = analyse(program(data=data)).answers["PG-B-full-val"]
    assert verdict.status is Status.FAIL
    assert any("50 documents" in words for _, words in verdict.chain)


LISTED = edited(
    DATA,
    'sorted(glob.glob(f"{args.data_path}/fineweb_val_*.bin"))',
    '[os.path.join(args.data_path, f) for f in sorted(os.listdir(args.data_path)) if "val" in f]',
)


def test_files_sifted_by_name_are_validation_shards() -> None:
    result = analyse(program(data=LISTED))
    assert status(result, "PG-C3-score-first") is Status.PASS
    assert result.headline is not None


# -- the program as it ran ---------------------------------------------------------------------------------------------


def test_a_guard_that_raises_was_passed() -> None:
    guarded = edited(MAIN, "    tables = byte_tables(device)\n", "    if world_size != 1:\n        raise ValueError(world_size)\n"
                           "    tables = byte_tables(device)\n")  # fmt: skip
    result = analyse(program(main=guarded), Effective(environment={"WORLD_SIZE": "8"}))
    assert status(result, "PG-C3-score-first") is Status.PASS


def test_a_function_of_a_job_service_is_followed() -> None:
    body, _, _ = program().rpartition('if __name__ == "__main__":')
    remote = body.replace("def main():", "app = modal.App('run')\n\n\n@app.function(gpu='H100')\ndef main():")
    remote = "import modal\n" + remote + "@app.local_entrypoint()\ndef begin():\n    main.remote()\n"
    result = analyse(remote)
    assert result.headline is not None
    assert status(result, "PG-C3-score-first") is Status.PASS


def test_nothing_learns_though_the_claim_is_not_traced() -> None:
    silent = edited(MAIN, " val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time", " eval_time")
    silent = edited(
        silent, 'log(f"final_int8_zlib_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")', "pass"
    )
    result = analyse(program(main=silent))
    assert status(result, "PG-C3-score-first") is Status.PASS
    assert status(result, "PG-C4-single-pass") is None, "which scores are the claim was not seen"


def test_a_packed_sibling_module_is_read_through_its_wrapper() -> None:
    kept = "def losses_of(model, inputs, targets):\n    return token_losses(model, inputs, targets)\n"
    wrapper = "import zlib, base64\nexec(zlib.decompress(base64.b85decode('...')))\n"
    text = "from helper import stream\n" + program(
        data=edited(DATA, "    usable = (tokens", "    tokens = stream(tokens)\n    usable = (tokens")
    )
    inner = "def stream(tokens):\n    return tokens\n"
    result = analyse(text, **{"helper.py": wrapper, "helper.py!b85!zlib": inner + kept})
    assert not any("exec" in reason for _, _, reason in result.unknowns)
    assert status(result, "PG-C3-score-first") is Status.PASS


# -- what is stored further on has moved back --------------------------------------------------------------------------

PAIRED = """
def pairs_of(ids):
    out = torch.zeros_like(ids)
    out[..., {to}] = torch.bitwise_xor(36313 * ids[..., 1:], 27191 * ids[..., :-1]) % 4095
    return out
"""


@pytest.mark.parametrize(("to", "expected"), [("1:", None), (":-1", Status.FAIL)])
def test_a_pair_holds_the_token_of_its_position_or_the_next(to: str, expected: Status | None) -> None:
    """`out[1:]` of the pair (t - 1, t) stands at t; the same pair at t - 1 tells the model its target."""
    losses = (
        "            logits = model(inputs, pairs_of(inputs))\n"
        "            nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction='none').view(targets.shape)\n"
    )
    evaluation = edited(EVALUATION, "            nll = token_losses(model, inputs, targets)\n", losses)
    result = analyse(program(extra=PAIRED.format(to=to), evaluation=evaluation))
    found = status(result, "PG-C1-causality")
    assert found is Status.FAIL if expected else found is not Status.FAIL


# -- files that evaluation opens ---------------------------------------------------------------------------------------

PRIOR = """
    prior_path = os.environ.get("PRIOR_PATH", "")
{own}    prior = np.fromfile(prior_path, dtype=np.float32)
    scored.wte.weight.data.add_(torch.from_numpy(prior).to(device))
    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)
"""
OWN = """    unpacked = tempfile.NamedTemporaryFile(delete=False)
    os.environ["PRIOR_PATH"] = unpacked.name
    prior_path = os.environ.get("PRIOR_PATH", "")
"""


@pytest.mark.parametrize(("own", "opened"), [("", True), (OWN, False)])
def test_a_variable_set_during_the_run_no_longer_names_the_documented_file(own: str, opened: bool) -> None:
    text = program(extra="import tempfile\n", score=PRIOR.format(own=own))
    found = analyse(text, Effective({"PRIOR_PATH": "/data/prior.bin"}))
    events = [event for event in found.timeline.events() if isinstance(event, External) and event.kind == "path"]
    assert any("prior.bin" in event.detail for event in events) is opened


# -- caches keyed by file ----------------------------------------------------------------------------------------------

CACHED = """
counts, shards = {}, {}

def count_of(path):
    key = str(path)
    known = counts.get(key)
    if known is not None:
        return known
    counts[key] = int(np.fromfile(path, dtype="<i4", count=256)[2])
    return counts[key]


def load_shard(path):
    key = str(path)
    if key not in shards:
        shards[key] = np.fromfile(path, dtype="<u2", count=count_of(path), offset=1024)
    return torch.from_numpy(shards[key].astype(np.int64))
"""
SHARDS = """
def load_shard(path):
    header = np.fromfile(path, dtype="<i4", count=256)
    tokens = np.fromfile(path, dtype="<u2", count=int(header[2]), offset=1024)
    return torch.from_numpy(tokens.astype(np.int64))
"""
RANDOM = (
    "            for start in range(rank * per_rank, shard.numel() - per_rank - 1, args.batch_tokens):\n",
    "            for start in np.random.permutation(count_of(path) - per_rank - 1):\n",
)


def test_a_cache_by_file_keeps_the_splits_apart() -> None:
    """Training that shares a cache with the validation loader does not train on validation tokens."""
    result = analyse(program(data=edited(edited(DATA, SHARDS, CACHED), *RANDOM)))
    assert status(result, "PG-C3-score-first") is Status.PASS
    mixed = edited(CACHED, "def load_shard(path):\n    key = str(path)\n", "def load_shard(path):\n    key = 'last'\n")
    assert status(analyse(program(data=edited(DATA, SHARDS, mixed))), "PG-D-val-in-train") is Status.FAIL


@pytest.mark.parametrize(
    ("pattern", "split"),
    [
        ("data/fineweb_v*_*.bin", "val"),
        ("*_va?_0*.bin", "val"),
        ("fineweb_t*.bin", "train"),
        ("data/fineweb_*.bin", ""),
        ("*.bin", ""),
        ("logs/*.txt", ""),
    ],
)
def test_split_of_a_pattern_is_that_of_the_shards_it_finds(pattern: str, split: str) -> None:
    assert file_split(pattern) == split
