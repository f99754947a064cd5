"""The submitted file: a container of quantised tensors, compressed; and the count of bytes against the cap.

Layout: 4 bytes magic `PGZ1`, 1 byte compressor number, uint64 size of the container, the compressed container (see
`container.py`). Loading never decompresses more than the announced size, and refuses anything malformed.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import brotli
import zstandard
from torch import Tensor

from reference import container
from reference.errors import ArtifactError
from reference.quantize import QuantizedModel

MAGIC = b"PGZ1"
PREFIX = struct.Struct("<4sBQ")
MAX_CONTAINER = 1 << 30
"""Largest container that is accepted, bytes."""
BROTLI_WINDOW = 24


def _zstd22(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=22).compress(data)


def _zstd21_ldm(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(21, enable_ldm=True, window_log=25)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _brotli11(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=11, lgwin=BROTLI_WINDOW))


def _lzma9(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _zlib9(data: bytes) -> bytes:
    return zlib.compress(data, 9)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zstd22": _zstd22,
    "zstd21_ldm": _zstd21_ldm,
    "brotli11": _brotli11,
    "lzma9": _lzma9,
    "zlib9": _zlib9,
}
_NUMBERS = {name: number for number, name in enumerate(COMPRESSORS)}


def _decompress(name: str, data: bytes, size: int) -> bytes:
    """At most `size` + 1 bytes; raises `ValueError` when the stream is cut short or followed by something."""
    if name == "none":
        return data
    if name == "brotli11":
        return _brotli_bounded(data, size)
    if name.startswith("zstd"):
        if zstandard.frame_content_size(data) != size:
            raise ValueError("the frame announces another size")
        zstd = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        out, complete, rest = zstd.decompress(data), zstd.eof, zstd.unused_data
    elif name == "lzma9":
        xz = lzma.LZMADecompressor(memlimit=1 << 30)
        out, complete, rest = xz.decompress(data, size + 1), xz.eof, xz.unused_data
    else:
        inflate = zlib.decompressobj()
        out, complete, rest = inflate.decompress(data, size + 1), inflate.eof, inflate.unused_data
    if len(out) <= size and (not complete or rest):
        raise ValueError("stream is cut short or followed by other bytes")
    return out


def _brotli_bounded(data: bytes, size: int) -> bytes:
    decoder, out, fed = brotli.Decompressor(), [], 0
    total = 0
    while fed < len(data) and total <= size:
        piece = decoder.process(data[fed : fed + 65_536])
        fed += 65_536
        out.append(piece)
        total += len(piece)
    if not decoder.is_finished() and total <= size:
        raise ValueError("stream ends early")
    return b"".join(out)


def encode(model: QuantizedModel, compressor: str) -> bytes:
    """Artifact as bytes; equal models give equal bytes."""
    raw = container.pack(*model.stored())
    return PREFIX.pack(MAGIC, _NUMBERS[compressor], len(raw)) + COMPRESSORS[compressor](raw)


def decode(data: bytes, source: str) -> QuantizedModel:
    """Quantised model of an artifact.

    Raises:
        ArtifactError: naming what is malformed.
    """
    if len(data) < PREFIX.size:
        raise ArtifactError(f"{source}: {len(data)} bytes are too few for an artifact")
    magic, number, size = PREFIX.unpack_from(data)
    names = {n: name for name, n in _NUMBERS.items()}
    if magic != MAGIC or number not in names:
        raise ArtifactError(f"{source}: not an artifact (magic {magic!r}, compressor {number})")
    if size > MAX_CONTAINER:
        raise ArtifactError(f"{source}: announces {size} bytes, more than {MAX_CONTAINER}")
    try:
        raw = _decompress(names[number], data[PREFIX.size :], size)
    except (zstandard.ZstdError, brotli.error, lzma.LZMAError, zlib.error, EOFError, ValueError) as error:
        raise ArtifactError(f"{source}: cannot be decompressed ({names[number]}): {error}") from error
    if len(raw) != size:
        more = "more than " if len(raw) > size else ""
        raise ArtifactError(f"{source}: announces {size} bytes, but decompresses to {more}{min(len(raw), size)}")
    return QuantizedModel.from_stored(*container.unpack(raw, source), source)


def save(path: Path, model: QuantizedModel, compressor: str) -> int:
    """Writes an artifact; returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(model, compressor))
    return path.stat().st_size


def load(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an artifact, checked against the parameters of the model they are meant for.

    Raises:
        ArtifactError: the file is missing or malformed, or a parameter is missing, surplus, or of another shape.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    weights = decode(data, str(path)).dequantize()
    check_weights(weights, expected, str(path))
    return weights


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raises `ArtifactError` unless names and shapes are those of the model."""
    surplus, missing = sorted(set(weights) - set(expected)), sorted(set(expected) - set(weights))
    if surplus or missing:
        what = f"has no {missing[0]}" if missing else f"has a surplus {surplus[0]}"
        raise ArtifactError(f"{source}: {what}: it belongs to another model; check --config")
    for name, tensor in weights.items():
        wanted = expected[name].shape
        if tensor.shape != wanted:
            raise ArtifactError(f"{source}: {name} has shape {list(tensor.shape)}, the model {list(wanted)}")


@dataclass(frozen=True)
class SizeReport:
    """Every addend of the submission size, decimal bytes."""

    code: list[tuple[str, int]]
    model: int
    cap: int

    @property
    def total(self) -> int:
        """Code plus model."""
        return self.model + sum(size for _, size in self.code)

    def lines(self) -> list[str]:
        """One line for each addend, then the total and what is left (MiB in brackets only)."""
        shown = [f"  code {name}: {size} bytes" for name, size in self.code] + [f"  model: {self.model} bytes"]
        left = self.cap - self.total
        verdict = f"{left} bytes left" if left >= 0 else f"over the cap by {-left} bytes"
        return [*shown, f"  total: {self.total} of {self.cap} bytes ({self.total / 2**20:.2f} MiB), {verdict}"]


def size_report(model_bytes: int, code: Sequence[Path], cap: int) -> SizeReport:
    """Sizes of code files as stored and of the compressed model.

    Raises:
        ArtifactError: a code file is missing.
    """
    try:
        sizes = [
            (path.name if path.parent.name == "" else f"{path.parent.name}/{path.name}", path.stat().st_size)
            for path in code
        ]
    except OSError as error:
        raise ArtifactError(f"artifact.code_files: {error.filename}: {error.strerror}") from error
    return SizeReport(sizes, model_bytes, cap)
