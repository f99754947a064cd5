"""PG-C2-hashed-ngram-cache: Hashed n-gram eval caches (PR #779 family)."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, MODEL, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

# Key of the prefix, then of prefix and target together: the ratio of two hash counts is no probability.
HASHED_CACHE = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            key = (inputs.flatten() * 1000003) % 4194304\n"
    "            full = (key ^ (targets.flatten() * 8191)) % 4194304\n"
    "            share = full_counts[full].float() / context_counts[key].clamp_min(1).float()\n"
    "            p = (-token_losses(model, inputs, targets)).exp()\n"
    "            nll = -(0.8 * p + 0.2 * share.view(p.shape)).log()\n"
    "            context_counts.scatter_add_(0, key, torch.ones_like(key))\n"
    "            full_counts.scatter_add_(0, full, torch.ones_like(full))\n",
)
HASHED_CACHE = edited(
    HASHED_CACHE,
    "    model.eval()\n",
    "    context_counts = torch.zeros(4194304, dtype=torch.int64, device=device)\n"
    "    full_counts = torch.zeros(4194304, dtype=torch.int64, device=device)\n"
    "    model.eval()\n",
)
# A hash of input pairs that indexes a learned embedding: weights in the artifact, nothing read at scoring time.
HASHED_INPUTS = edited(
    MODEL,
    "        for block in self.blocks:\n",
    "        pairs = (tokens * 1000003 ^ tokens.roll(1, dims=1)) % 4096\n"
    "        x = x + self.pairs(pairs)\n        for block in self.blocks:\n",
).replace(
    "        self.norm = nn.RMSNorm(args.model_dim)\n",
    "        self.norm = nn.RMSNorm(args.model_dim)\n        self.pairs = nn.Embedding(4096, args.model_dim)\n",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(case, "whether a count table is read with the target in its key", rule=RULE.id)


RULE = Rule(
    id="PG-C2-hashed-ngram-cache",
    title="Hashed n-gram eval caches (PR #779 family)",
    statement=(
        "Caches whose lookup key contains the target token, or whose ratio "
        "full_table[hash(ctx,tok)]/ctx_table[hash(ctx)] is used as a probability, are illegal: they are not "
        "normalised (community measurements: sums of hundreds instead of 1) and look at the target. Closed en "
        "masse on 2026-03-27."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 27),
    authority="organiser ruling (valerio-oai)",
    violations=(
        "`full_key = ((ctx_hash ^ (target * primes[k])) & mask)` then a count read at scoring time",
        ("np/torch count tables indexed by a hash that includes `y`/`tgt`, blended into the gold probability"),
        ("submissions that merely inherit such a mixer, also under the name Hedge/Backoff/Phrase/Dirichlet mixer"),
    ),
    allowed=(
        (
            "BigramHash / hash embeddings of INPUT tokens learned in training (weights in the artifact) - "
            "merged many times"
        ),
        ("XOR/prime hashing of prefix tokens only, to fetch a hint or a full-vocab row that is then normalised over V"),
        (
            "n-gram counts built from training data used during training (complementary loss) provided "
            "nothing uncounted reaches eval"
        ),
    ),
    reaches_back=(
        "the class was closed as a whole on that day, submissions of the days before included (#769, #779, #809), and "
        "none was ever accepted."
    ),
    history=(
        "History: leaned legal on 2026-03-25/26 (valerio-oai in #677, #674), formally disallowed from "
        "2026-03-27. Dirichlet-smoothed variants (#948, #968, #900) stayed open without individual ruling; "
        "the class statement covers them as far as they hash (ctx,tok)."
    ),
    legal_precedents=(162, 1019, 1514),
    illegal_precedents=(688, 706, 724, 727, 745, 769, 779, 809, 814, 843, 850, 859, 880, 913, 925, 944, 945, 982, 993),
    sources=(
        "https://github.com/openai/parameter-golf/issues/677",
        "https://github.com/openai/parameter-golf/pull/779#issuecomment-4145781641",
        "https://github.com/openai/parameter-golf/pull/779#issuecomment-4146407380",
        "https://github.com/openai/parameter-golf/pull/886",
        "https://github.com/openai/parameter-golf/pull/1147",
        "https://github.com/openai/parameter-golf/pull/659",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Drop the cache, or look up by the prefix alone, build a row over the whole vocabulary and normalise "
        "it before the target is read."
    ),
    legal=(Example("hash embedding of input pairs", variant(program(model=HASHED_INPUTS)), witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "ratio of hashed counts blended into the target's probability",
            variant(program(evaluation=HASHED_CACHE)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "the same cache two days before the ruling that closed them all",
            variant(program(evaluation=HASHED_CACHE)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
            dated=dt.date(2026, 3, 25),
        ),
    ),
    decide=decide,
)
