"""A document as SARIF 2.1.0, within what GitHub code scanning accepts.

Limits: 20 runs, 25,000 rules, 25,000 results of which 5,000 are shown, 1,000 locations a result of which 100 are
shown, 10,000 steps of a thread flow of which 1,000 are shown, 20 tags a rule of which 10 are shown. We stay with
what is shown.
A result's fingerprint depends on rule, file and marked text, not on line numbers: an edit above does not make it new.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from auditor.report.places import REPOSITORY
from auditor.report.text import clean, clip, number, plural, safe_url

RESULT_LIMIT = 5_000
RULE_LIMIT = 25_000
LOCATION_LIMIT = 100
FLOW_LIMIT = 1_000
TAG_LIMIT = 10
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

# `unknown` is a result to be reviewed, never a pass; passes and inapplicable rules are told with their SARIF kind.
_KINDS = {"fail": "fail", "warn": "review", "unknown": "open", "pass": "pass", "not applicable": "notApplicable"}
_SECURITY = {"illegal": "9.0", "not record-eligible": "6.0", "packaging": "4.0", "disputed": "4.0", "advice": "1.0"}


def render(review: dict[str, Any]) -> str:
    """SARIF text of one review."""
    return json.dumps(sarif([review]), ensure_ascii=False, indent=1) + "\n"


def sarif(reviews: list[dict[str, Any]]) -> dict[str, Any]:
    """One log with one run over all reviews (a single run: GitHub takes 20 at most)."""
    reviews = [clean(review) for review in reviews]
    pairs = [(review, finding) for review in reviews for finding in review["findings"]]
    pairs.sort(key=lambda pair: _order(pair[1]))
    rules = list({finding["rule"]: finding for _, finding in pairs}.values())[:RULE_LIMIT]
    index = {finding["rule"]: i for i, finding in enumerate(rules)}
    kept = [pair for pair in pairs if pair[1]["rule"] in index][:RESULT_LIMIT]
    tool = reviews[0]["tool"] if reviews else {"name": "parameter-golf-auditor", "version": "0.0.0"}
    run = {
        "tool": {
            "driver": {
                "name": tool["name"],
                "version": tool["version"],
                "semanticVersion": tool["version"],
                "informationUri": REPOSITORY,
                "rules": [_rule(finding) for finding in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(review, finding, index[finding["rule"]]) for review, finding in kept],
        "invocations": [
            {
                "executionSuccessful": not any(review["error"] for review in reviews),
                "toolExecutionNotifications": _notices(reviews, len(pairs) - len(kept)),
            }
        ],
        "properties": {"verdicts": {review["submission"]["label"]: review["verdict"] for review in reviews[:1000]}},
    }
    heads = {review["submission"]["head"] for review in reviews if review["submission"]["head"]}
    if len(heads) == 1:
        run["versionControlProvenance"] = [{"repositoryUri": REPOSITORY, "revisionId": heads.pop()}]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _order(finding: dict[str, Any]) -> tuple[int, str]:
    return (list(_KINDS).index(finding["status"]), finding["rule"])


def _level(finding: dict[str, Any]) -> str:
    """error, warning or note; SARIF asks for `none` wherever the kind is not `fail`."""
    if finding["status"] != "fail":
        return "none"
    return {"illegal": "error", "not record-eligible": "error", "packaging": "warning"}.get(finding["severity"], "note")


def _rule(finding: dict[str, Any]) -> dict[str, Any]:
    sources = [url for url in map(safe_url, finding["sources"]) if url]
    told = [finding["statement"] or finding["title"]]
    told += [f"In force since {finding['since']} ({finding['authority']})."] if finding["since"] else []
    sides = [(finding["precedents"]["illegal"], "Ruled against"), (finding["precedents"]["legal"], "Ruled legal")]
    told += [f"{words}: " + ", ".join(f"PR {n}" for n in numbers) + "." for numbers, words in sides if numbers]
    told += ["Sources: " + " ".join(sources)] if sources else []
    rule = {
        "id": finding["rule"],
        "name": "".join(part.capitalize() for part in finding["rule"].replace("_", "-").split("-")),
        "shortDescription": {"text": clip(finding["title"], 1000)},
        "fullDescription": {"text": clip(finding["statement"] or finding["title"], 1000)},
        "help": {"text": clip("\n\n".join(told), 8000)},
        "properties": {
            "tags": ["parameter-golf", finding["family_name"], finding["severity"]][:TAG_LIMIT],
            "problem.severity": "error" if finding["severity"] == "illegal" else "warning",
            "security-severity": _SECURITY.get(finding["severity"], "1.0"),
        },
    }
    if sources:
        rule["helpUri"] = sources[0]
    return rule


def _result(review: dict[str, Any], finding: dict[str, Any], rule_index: int) -> dict[str, Any]:
    parts = [finding["summary"], finding["explanation"], finding["remedy"] if finding["status"] != "pass" else ""]
    spots = [spot for block in finding["evidence"] for spot in _spots(block)]
    locations = [_location(spot) for spot in spots] or [_folder(review["submission"])]
    result = {
        "ruleId": finding["rule"],
        "ruleIndex": rule_index,
        "kind": _KINDS[finding["status"]],
        "level": _level(finding),
        "message": {"text": clip("\n".join(part for part in parts if part) or finding["title"], 8000)},
        "locations": locations[:1],
        "partialFingerprints": {"auditor/v1": _fingerprint(review, finding, spots)},
        "properties": {"status": finding["status"], "severity": finding["severity"], "witness": finding["witness"]},
    }
    if locations[1:]:
        result["relatedLocations"] = [
            {"id": i, **location} for i, location in enumerate(locations[1:LOCATION_LIMIT], 1)
        ]
    if len(spots) > 1 and finding["status"] in ("fail", "warn"):
        steps = [{"location": _location(spot), "nestingLevel": 0} for spot in spots[:FLOW_LIMIT]]
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    return result


def _spots(block: dict[str, Any]) -> list[dict[str, Any]]:
    """One place per marked line; the file itself when no line is known."""
    marked = [line for line in block["lines"] if line["mark"] and line["number"] is not None]
    if not marked:
        return [{"path": block["path"], "line": block["start"], "text": "", "note": block["note"]}]
    return [
        {"path": block["path"], "line": line["number"], "text": line["text"], "note": line["note"] or block["note"]}
        for line in marked
    ]


def _location(spot: dict[str, Any]) -> dict[str, Any]:
    shipped, _, layer = spot["path"].partition("!")
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(shipped) or "."}}
    notes = [spot["note"]]
    if layer:
        notes.append(f"line {number(spot['line'])} of the decoded layer {layer}" if spot["line"] else f"layer {layer}")
    elif spot["line"] is not None:
        physical["region"] = {"startLine": max(int(spot["line"]), 1)}
        if spot["text"]:
            physical["region"]["snippet"] = {"text": clip(spot["text"], 500)}
    message = "; ".join(note for note in notes if note)
    return {"physicalLocation": physical} | ({"message": {"text": clip(message, 1000)}} if message else {})


def _folder(submission: dict[str, Any]) -> dict[str, Any]:
    path = submission["main_script"] or submission["folder"] or "."
    return {"physicalLocation": {"artifactLocation": {"uri": quote(path)}}}


def _fingerprint(review: dict[str, Any], finding: dict[str, Any], spots: list[dict[str, Any]]) -> str:
    folder = review["submission"]["folder"] or review["submission"]["label"]
    parts = [finding["rule"], folder, *(f"{spot['path']}\0{' '.join(spot['text'].split())}" for spot in spots)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32] + ":1"


def _notices(reviews: list[dict[str, Any]], left_out: int) -> list[dict[str, Any]]:
    notices = [
        {"level": "error", "message": {"text": clip(review["error"]["message"], 4000)}}
        for review in reviews
        if review["error"]
    ]
    notices += [
        {"level": "note", "message": {"text": "not checked: " + clip(review["not_checked"], 4000)}}
        for review in reviews
        if review["not_checked"]
    ]
    if left_out:
        words = f"{plural(left_out, 'result')} left out (limit {RESULT_LIMIT:,}), passed rules first"
        notices.append({"level": "warning", "message": {"text": words}})
    return notices[:1000]
