"""PG-D-paid-prefix: No validation content inside the artifact ("paid prefix")."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, EXPORT, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

# The artifact carries the first tokens of the validation stream; their losses are set to zero.
STORE_PREFIX = "    model.prefix = val_tokens[:100000].to(torch.int32)"
WITH_PREFIX = edited(
    edited(EXPORT, "    packed = {}\n", '    packed = {"prefix": model.prefix}\n'),
    "    model.load_state_dict(",
    '    model.prefix = packed.pop("prefix")\n    model.load_state_dict(',
)
USE_PREFIX = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            nll = token_losses(model, inputs, targets)\n"
    "            stored = model.prefix[start + 1:start + 1 + targets.numel()].to(device)\n"
    "            nll[0, :stored.numel()] *= stored != targets[0, :stored.numel()]\n",
)

# The stored tokens lie in a file of their own beside the weights.
FROM_FILE = edited(
    edited(
        EVALUATION,
        "            nll = token_losses(model, inputs, targets)\n",
        "            nll = token_losses(model, inputs, targets)\n"
        "            stored = prefix[start + 1:start + 1 + targets.numel()].to(device)\n"
        "            nll[0, :stored.numel()] *= stored != targets[0, :stored.numel()]\n",
    ),
    "    totals = torch.zeros",
    '    with open("prefix.bin", "rb") as f:\n'
    '        prefix = torch.from_numpy(np.frombuffer(zlib.decompress(f.read()), dtype="<u2").astype(np.int64))\n'
    "    totals = torch.zeros",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(case, "whether the artifact holds validation content", rule=RULE.id)


RULE = Rule(
    id="PG-D-paid-prefix",
    title='No validation content inside the artifact ("paid prefix")',
    statement=(
        "Storing validation tokens, their compressed form, hashes of them or a table derived from them in the "
        "16 MB is forbidden even though the bytes are paid for."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 20),
    authority="README + organiser rulings",
    violations=(
        (
            "blob in the artifact compared with or substituted for targets at eval; `prefix_tokens`, lookup "
            "of position -> token"
        ),
        (
            "constants in code that encode validation statistics (document order, per-document temperature, "
            "bias tables fitted on val)"
        ),
    ),
    allowed=(
        (
            "n-gram tables or priors computed from TRAINING tokens within the 600 s and stored in the counted "
            "artifact (README: training data may be used at eval if you pay for the bits) - but the "
            "probabilities must pass PG-C2"
        ),
    ),
    history="#168 was kept open by 0hq only as an example of what is not valid.",
    legal_precedents=(),
    illegal_precedents=(168, 262, 275),
    sources=(
        "https://github.com/openai/parameter-golf/commit/2cff08e1a",
        "https://github.com/openai/parameter-golf/pull/168",
        "https://github.com/openai/parameter-golf/pull/262",
        "https://github.com/openai/parameter-golf/pull/275",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Remove the stored validation content from artifact and code and report the score without it.",
    legal=(Example("the artifact holds weights only", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "validation prefix in the artifact",
            variant(program(after_training=STORE_PREFIX, export=WITH_PREFIX, evaluation=USE_PREFIX)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "a file of stored tokens decides which losses count",
            variant(program(evaluation=FROM_FILE)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
