"""A file of named tensors without pickle: nothing in it can run.

Layout: 8 bytes magic `PGTENSOR`, uint32 version 1, uint64 length of the header, the header, the arrays.
The header is UTF-8 JSON with sorted keys:
`{"crc32": n, "meta": {...}, "tensors": [{"dtype": "int8", "name": "...", "shape": [..]}, ...]}`.
Arrays follow in that order without gaps, little-endian, row-major. Equal input gives equal bytes.
The reader refuses everything else: other keys, unknown dtypes, repeated names, negative or absurd shapes, missing or
surplus bytes, a wrong checksum.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference.errors import ArtifactError

MAGIC = b"PGTENSOR"
VERSION = 1
PREFIX = struct.Struct("<8sIQ")
MAX_HEADER = 16 << 20
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def array_bytes(tensor: Tensor) -> bytes:
    """Little-endian row-major bytes of a tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def pack(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Container as bytes."""
    return b"".join(_parts(meta, tensors))


def write(path: Path, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Writes a container; an interrupted write leaves the old file whole. Returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        for part in _parts(meta, tensors):
            file.write(part)
    os.replace(temporary, path)
    return path.stat().st_size


def _parts(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    arrays = {name: array_bytes(tensor) for name, tensor in tensors.items()}
    crc = 0
    for data in arrays.values():
        crc = zlib.crc32(data, crc)
    entries = [{"name": n, "dtype": _NAMES[t.dtype], "shape": list(t.shape)} for n, t in tensors.items()]
    header = json.dumps(
        {"crc32": crc, "meta": meta, "tensors": entries}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
    yield PREFIX.pack(MAGIC, VERSION, len(header))
    yield header
    yield from arrays.values()


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Meta and tensors of a container file.

    Raises:
        ArtifactError: the file is missing or malformed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    return unpack(data, str(path))


def unpack(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Meta and tensors of a container in memory; `source` is the name used in errors.

    Raises:
        ArtifactError: naming what is malformed.
    """
    header, offset = _header(data, source)
    tensors: dict[str, Tensor] = {}
    crc = 0
    for entry in header["tensors"]:
        name, dtype, shape = _entry(entry, tensors, source)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
        if offset + size > len(data):
            raise ArtifactError(f"{source}: tensor {name} needs {size} bytes, {len(data) - offset} are left")
        piece = data[offset : offset + size]
        crc = zlib.crc32(piece, crc)
        raw = torch.frombuffer(bytearray(piece), dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
        tensors[name] = (raw.view(dtype) if dtype != torch.bool else raw.ne(0)).reshape(shape)
        offset += size
    if offset != len(data):
        raise ArtifactError(f"{source}: {len(data) - offset} bytes after the last tensor")
    if crc != header["crc32"]:
        raise ArtifactError(f"{source}: checksum {crc:#x}, the header says {header['crc32']:#x}: the file is damaged")
    return header["meta"], tensors


def _header(data: bytes, source: str) -> tuple[dict[str, Any], int]:
    if len(data) < PREFIX.size:
        raise ArtifactError(f"{source}: {len(data)} bytes are too few for a container")
    magic, version, length = PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ArtifactError(f"{source}: not a container of version {VERSION} (magic {magic!r}, version {version})")
    if length > MAX_HEADER or PREFIX.size + length > len(data):
        raise ArtifactError(f"{source}: header of {length} bytes does not fit in a file of {len(data)}")
    try:
        header = json.loads(data[PREFIX.size : PREFIX.size + length])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ArtifactError(f"{source}: header is not JSON: {error}") from error
    kinds = {"crc32": int, "meta": dict, "tensors": list}
    if not isinstance(header, dict) or set(header) != set(kinds):
        raise ArtifactError(f"{source}: header must have exactly the keys {', '.join(kinds)}")
    for key, kind in kinds.items():
        if type(header[key]) is not kind:
            raise ArtifactError(f"{source}: header key {key} must be of type {kind.__name__}")
    return header, PREFIX.size + length


def _entry(entry: Any, seen: Mapping[str, Tensor], source: str) -> tuple[str, torch.dtype, list[int]]:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape"} or not isinstance(entry["name"], str):
        raise ArtifactError(f"{source}: malformed tensor entry {str(entry)[:80]}")
    name, dtype, shape = entry["name"], DTYPES.get(str(entry["dtype"])), entry["shape"]
    if name in seen:
        raise ArtifactError(f"{source}: tensor {name} appears twice")
    if dtype is None:
        raise ArtifactError(f"{source}: tensor {name} has unknown dtype {entry['dtype']!r}")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
        raise ArtifactError(f"{source}: tensor {name} has malformed shape {str(shape)[:80]}")
    return name, dtype, shape
