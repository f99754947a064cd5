"""Which script made the claimed number, and whose order of events answers for it."""

from __future__ import annotations

from auditor.findings import Status
from auditor.static.claim import claimed_timeline, scoring_script
from auditor.static.effective import Effective
from auditor.unpack import Layer, Program
from rules.example_program import EVALUATION, edited, program

MAIN = program()
SECOND = """
import math, torch, torch.nn.functional as F
from train_gpt import GPT, args, byte_tables, load_validation_tokens, read_artifact, token_losses

def adapted(model, stream, tables):
    size, space, control = tables
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total, weight = 0.0, 0.0
    for start in range(0, stream.numel() - 1, args.seq_len):
        window = stream[start:start + args.seq_len + 1]
        inputs, targets = window[None, :-1], window[None, 1:]
        {first}
        {then}
        weight += (size[targets] + (space[targets] & ~control[inputs])).sum().item()
    return total / math.log(2) / weight

def main():
    model = GPT()
    read_artifact(model, "final_model.ptz")
    bpb = adapted(model, load_validation_tokens(), byte_tables("cpu"))
    print(f"adapted checkpoint bpb {{bpb:.6f}}")

if __name__ == "__main__":
    main()
"""
SCORE = "total += token_losses(model, inputs, targets).sum().item()"
STEP = "token_losses(model, inputs, targets).mean().backward(); optimizer.step(); optimizer.zero_grad()"
LINE = "adapted checkpoint bpb 1.034512"


def folder(main: str, second: str) -> Program:
    layers = [
        Layer(name, text, text.encode()) for name, text in (("a/train_gpt.py", main), ("a/eval_again.py", second))
    ]
    return Program(main=layers[0], layers=layers)


def test_the_script_that_prints_the_claim_answers_for_the_score() -> None:
    first = folder(MAIN, SECOND.format(first=SCORE, then=STEP))
    other = scoring_script(first, LINE)
    assert other is not None and other.name == "a/eval_again.py"
    assert claimed_timeline(first, Effective(headline_text=LINE)).answers["PG-C3-score-first"].status is Status.PASS
    after = claimed_timeline(folder(MAIN, SECOND.format(first=STEP, then=SCORE)), Effective(headline_text=LINE))
    assert after.answers["PG-C3-score-first"].status is Status.FAIL


def test_what_the_main_script_does_to_its_own_score_is_no_answer_then() -> None:
    blended = edited(
        EVALUATION,
        "            nll = token_losses(model, inputs, targets)\n",
        "            train_step = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "            with torch.enable_grad():\n"
        "                token_losses(model, inputs, targets).mean().backward()\n"
        "            train_step.step()\n"
        "            nll = token_losses(model, inputs, targets)\n",
    )
    both = folder(program(evaluation=blended), SECOND.format(first=SCORE, then=STEP))
    assert claimed_timeline(both, Effective()).answers["PG-C3-score-first"].status is Status.FAIL
    assert claimed_timeline(both, Effective(headline_text=LINE)).answers["PG-C3-score-first"].status is Status.PASS


def test_lines_of_the_main_script_and_of_nobody_leave_it_at_the_main_script() -> None:
    both = folder(MAIN, SECOND.format(first=SCORE, then=STEP))
    own = "final_int8_zlib_roundtrip_exact val_loss:1.75870000 val_bpb:1.04160000"
    assert scoring_script(both, own) is None
    assert scoring_script(both, "mean over three seeds: 1.0345") is None
    assert scoring_script(both, "") is None


def test_a_module_that_the_main_script_imports_is_part_of_it() -> None:
    both = folder("import eval_again\n" + MAIN, SECOND.format(first=SCORE, then=STEP))
    assert scoring_script(both, LINE) is None


LOADED = """
def load_local(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""
BY_PATH = """
    helper = load_local(Path(__file__).resolve().parent / "eval_again.py", "helper")
    val_bpb = helper.adapted(scored, val_tokens, tables)
    val_loss = val_bpb
"""


def test_a_script_that_is_loaded_by_its_path_is_followed() -> None:
    main = "import importlib.util\nfrom pathlib import Path\n" + program(extra=LOADED, score=BY_PATH)
    right = folder(main, SECOND.format(first=SCORE, then=STEP))
    assert claimed_timeline(right, Effective()).answers["PG-C3-score-first"].status is Status.PASS
    wrong = folder(main, SECOND.format(first=STEP, then=SCORE))
    assert claimed_timeline(wrong, Effective()).answers["PG-C3-score-first"].status is Status.FAIL


def test_a_claim_from_values_that_could_not_be_followed_is_nobodys_pass() -> None:
    lost = program(score="    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)\n"
                         "    other = plugin_of_the_house(scored, val_tokens)\n"
                         '    log(f"blended with the house model {other:.6f}")')  # fmt: skip
    whole = Program(main=Layer("a/t.py", lost, lost.encode()), layers=[Layer("a/t.py", lost, lost.encode())])
    own = "final_int8_zlib_roundtrip_exact val_loss:1.75870000 val_bpb:1.04160000"
    assert claimed_timeline(whole, Effective(headline_text=own)).answers["PG-C2-normalisation"].status is Status.PASS
    result = claimed_timeline(whole, Effective(headline_text="blended with the house model 0.912345"))
    assert not any(v.status is Status.PASS for rule, v in result.answers.items() if rule.startswith("PG-C"))
    assert any("could not be followed" in reason for _, _, reason in result.unknowns)
