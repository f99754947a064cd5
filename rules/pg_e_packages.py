"""PG-E-packages: Third-party packages."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import IMPORTS, program
from rules.examples import variant
from rules.package_facts import base_name, folder_files, imported_modules
from rules.support import listed, passed, plural, unknown, warned

# Packages of the official requirements.txt and what the image brings along.
BASE_IMAGE = frozenset(
    {
        "torch",
        "numpy",
        "sentencepiece",
        "huggingface_hub",
        "datasets",
        "tqdm",
        "kernels",
        "tiktoken",
        "triton",
        "typing_extensions",
        "setuptools",
        "packaging",
        "requests",
        "yaml",
        "filelock",
        "fsspec",
        "jinja2",
        "sympy",
        "networkx",
        "pip",
    }
)
# Named by the README or by merged practice as fine without being listed.
ACCEPTED = frozenset(
    {"flash_attn", "flash_attn_interface", "flash_attn_3", "brotli", "zstandard", "zstd", "einops", "psutil"}
)
NEEDS_EINOPS = IMPORTS.rstrip("\n") + "\nimport mamba_ssm\n"


def decide(case: Case) -> Finding:
    """Imports against requirements.txt and the base image."""
    modules = imported_modules(case)
    if modules is None:
        return unknown("the imports of the program could not be read", (Witness.STATIC,))
    listed_names = _requirements(case)
    foreign = sorted(name for name in modules if name not in BASE_IMAGE and name not in ACCEPTED)
    missing = [name for name in foreign if base_name(name) not in listed_names and not _documented(case, name)]
    if missing:
        return warned(
            f"imported but in no requirements.txt or README: {listed(missing)}",
            [modules[name] for name in missing if modules[name]],
        )
    return passed(
        f"{plural(len(modules), 'third-party package')}, all in the base image, accepted or listed: "
        f"{listed(sorted(modules), 8)}"
    )


def _requirements(case: Case) -> set[str]:
    """Base names of the packages in every requirements file of the folder."""
    names = set()
    for text in folder_files(case, r"(?i)requirements[^/]*\.txt$|pyproject\.toml$|environment\.ya?ml$").values():
        names |= {base_name(name) for name in re.findall(r"(?m)^\s*[\"'-]*\s*([A-Za-z][\w.-]+)", text)}
    return names


def _documented(case: Case, name: str) -> bool:
    text = case.readme.text if case.readme else ""
    return bool(re.search(rf"(?i)\binstall\b[^\n]*\b{re.escape(name).replace('_', '[-_]')}", text))


RULE = Rule(
    id="PG-E-packages",
    title="Third-party packages",
    statement=(
        "Any package may be imported if it does not smuggle compute, capability or code size; list it in "
        "requirements.txt in the records folder and describe set-up in README.md. FlashAttention etc. are "
        "explicitly fine."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 20),
    authority="README",
    violations=(
        "import of an unlisted package that is not in the base image",
        "a package written for the submission that contains the method (code-size evasion)",
    ),
    allowed=("flash_attn_interface, triton, brotli, zstandard, sentencepiece, numpy, lrzip binding",),
    history="",
    legal_precedents=(1530,),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/9a60d1676",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=(
        "List every package that is not in the base image in the folder's requirements.txt and say in the "
        "README how to install it."
    ),
    legal=(Example("all imports in the base image"),),
    illegal=(Example("an import that nothing lists", variant(program(imports=NEEDS_EINOPS)), Status.WARN),),
    decide=decide,
)
