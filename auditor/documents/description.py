"""The pull request's own text (title and description) as a further document of claims.

A clone does not hold it; whoever has it (a file saved from the page, or the API's Markdown) may hand it in. Claims made
only there, such as further seeds or a training time, are compared with the logs like those of the README.
"""

from __future__ import annotations

import re
from dataclasses import replace

from auditor.documents.model import Quantity, Readme, Source
from auditor.documents.readme import read_readme

PATH = "pull request description"
# A result table whose columns a page saved as text has lost: a header that begins with "Seed", then one seed a line.
_HEADER = re.compile(r"^\s*seed\b.*bpb", re.I)
_ROW = re.compile(r"^\s*(?:seed\s*)?(?P<seed>\d{1,6})\b(?P<rest>[^|]*?)(?P<bpb>\d\.\d{4,8})\b", re.I)


def with_description(readme: Readme | None, data: bytes) -> Readme:
    """The README's claims and the description's in one document; sources tell which said what."""
    text = read_readme(PATH, data)
    text.seeds = {**_plain_table(text.text), **text.seeds}
    if readme is None:
        return text
    return replace(
        readme,
        values={
            kind: [*readme.values.get(kind, []), *text.values.get(kind, [])]
            for kind in {**readme.values, **text.values}
        },
        seeds={
            seed: {**text.seeds.get(seed, {}), **readme.seeds.get(seed, {})} for seed in {**readme.seeds, **text.seeds}
        },
        commands=[*readme.commands, *text.commands],
        environment={**text.environment, **readme.environment},
        statements={
            kind: [*readme.statements.get(kind, []), *text.statements.get(kind, [])]
            for kind in {**readme.statements, **text.statements}
        },
    )


def _plain_table(text: str) -> dict[str, dict[str, Quantity]]:
    found: dict[str, dict[str, Quantity]] = {}
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        row = _ROW.match(line)
        if _HEADER.match(line):
            inside = True
        elif inside and row:
            source = Source(PATH, number, line.strip())
            found[row["seed"]] = {"val_bpb": Quantity(float(row["bpb"]), source, row["bpb"])}
        elif line.strip():
            inside = False
    return found
