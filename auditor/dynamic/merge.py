"""Records of several ranks as one: events in the order of their time, losses, parameters and call stacks told apart.

Ranks that add their gradients up train on each other's tokens. An update therefore holds the positions of all ranks where
as much as the parameters it changed went through a reduction since the update before it, and its own otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_OF_RANK = 1 << 52  # above any address: keeps parameters of different processes apart


def split(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Events of each rank: those after a `rank` mark are the other rank's."""
    ranks: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event["kind"] == "rank":
            ranks.append([])
        else:
            ranks[-1].append(event)
    return ranks


def merge(ranks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One record of what several ranks did; a single rank's is returned as it is."""
    if len(ranks) == 1:
        return ranks[0]
    _share(ranks)
    sites: dict[tuple, int] = {}
    merged: list[tuple[float, int, int, dict[str, Any]]] = []
    losses = 0
    for rank, events in enumerate(ranks):
        own = {e["site"]: sites.setdefault(_stack(e["frames"]), len(sites)) for e in events if e["kind"] == "site"}
        for index, event in enumerate(events):
            if event["kind"] != "site" and (rank == 0 or event["kind"] != "print"):
                merged.append((event["t"], rank, index, _moved(event, rank, losses, own)))
        losses += max((e["base"] + len(e["places"]) for e in events if e["kind"] == "score"), default=0)
    merged.sort(key=lambda item: item[:3])
    known = [{"kind": "site", "site": number, "frames": [list(f) for f in stack]} for stack, number in sites.items()]
    return known + _numbered(merged)


def _stack(frames: list) -> tuple:
    return tuple(tuple(frame) for frame in frames)


def _moved(event: dict[str, Any], rank: int, losses: int, sites: dict[int, int]) -> dict[str, Any]:
    event = {**event, "site": sites.get(event["site"], event["site"])}
    if "base" in event:
        event["base"] += losses
    if "ids" in event:
        event["ids"] = event["ids"] + losses
    for key in ("uses", "changes"):
        if key in event:
            event[key] = [[number + rank * _OF_RANK, *rest] for number, *rest in event[key]]
    return event


def _numbered(merged: list[tuple[float, int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """New numbers in the order of time; updates name the scores they come from by them."""
    numbers = {(rank, event["n"]): index for index, (_, rank, _, event) in enumerate(merged, 1)}
    out = []
    for index, (_, rank, _, event) in enumerate(merged, 1):
        event["n"] = index
        if "of" in event:
            event["of"] = [numbers[rank, number] for number in event["of"] if (rank, number) in numbers]
        out.append(event)
    return out


def _share(ranks: list[list[dict[str, Any]]]) -> None:
    """Give updates that follow a reduction of their gradients the positions of the same update on every rank."""
    updates = [_updates(events) for events in ranks]
    for same in zip(*updates, strict=False):
        if any(reduced >= event["size"] / 2 for event, reduced in same):
            places = np.unique(np.concatenate([event["places"] for event, _ in same]))
            for event, _ in same:
                event["places"] = places


def _updates(events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Updates of one rank, each with the elements reduced since the one before."""
    found, reduced = [], 0
    for event in events:
        if event["kind"] == "collective":
            reduced += event["size"]
        elif event["kind"] == "update":
            found.append((event, reduced))
            reduced = 0
    return found
