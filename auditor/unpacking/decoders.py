"""Decoders with a bound on what they may produce: text encodings of bytes, and compression formats.

Every decompressor works incrementally and stops when the shared `Budget` is spent; a bomb costs its bound, no more.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auditor.errors import UnpackLimit

MAX_EXPANSION = 32 * 2**20
# Real programs compress 3 to 6 times; below this size (bytes) any ratio is harmless.
MAX_RATIO = 400
RATIO_FREE = 2**20
_LZMA_MEMORY = 128 * 2**20
# Output is bounded by MAX_EXPANSION, so no distance can be longer and no bigger dictionary is ever needed.
_LZMA_DICTIONARY = MAX_EXPANSION


class DecodeError(Exception):
    """The data is not in this format. Internal to the unpacker."""


@dataclass
class Budget:
    """Bytes that decoding one file may still produce."""

    left: int = MAX_EXPANSION

    def spend(self, produced: int) -> None:
        """Take `produced` bytes off.

        Raises:
            UnpackLimit: more than the bound was produced.
        """
        self.left -= produced
        if self.left < 0:
            raise UnpackLimit(f"decoding produced more than {MAX_EXPANSION} bytes, stopped")

    def allowed(self, compressed: int) -> int:
        """Bytes that this much compressed data may expand to."""
        return min(self.left, max(RATIO_FREE, MAX_RATIO * compressed))


def _bounded(step: Callable[[bytes, int], bytes], data: bytes, budget: Budget, done: Callable[[], bool]) -> bytes:
    """Run an incremental decompressor with `max_length`."""
    limit = budget.allowed(len(data))
    out = step(data, limit + 1)
    if len(out) > limit:
        raise UnpackLimit(f"{len(data)} compressed bytes expand to more than {limit} bytes, stopped")
    if not done():
        raise DecodeError("the compressed data is cut short")
    budget.spend(len(out))
    return out


def inflate(data: bytes, budget: Budget, wbits: int = zlib.MAX_WBITS) -> bytes:
    """zlib, gzip (`wbits` 31) or raw deflate (`wbits` -15)."""
    try:
        machine = zlib.decompressobj(wbits)
        return _bounded(machine.decompress, data, budget, lambda: machine.eof)
    except (zlib.error, ValueError, OverflowError) as error:
        raise DecodeError(str(error)) from error


def unlzma(
    data: bytes, budget: Budget, form: int = lzma.FORMAT_AUTO, filters: list[dict[str, Any]] | None = None
) -> bytes:
    """xz, lzma alone, or raw with a filter chain as the lzma module takes it."""
    try:
        if form == lzma.FORMAT_RAW:
            machine = lzma.LZMADecompressor(form, filters=[_tamed(f) for f in filters or []])
            # A raw LZMA1 stream need not have an end mark: running out of input is its end.
            return _bounded(machine.decompress, data, budget, lambda: machine.eof or machine.needs_input)
        machine = lzma.LZMADecompressor(form, memlimit=_LZMA_MEMORY)
        return _bounded(machine.decompress, data, budget, lambda: machine.eof)
    except (lzma.LZMAError, ValueError, TypeError, MemoryError, OverflowError, EOFError) as error:
        raise DecodeError(str(error)) from error


def _tamed(chain: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(chain, dict):
        raise TypeError("a filter is a dict")
    size = chain.get("dict_size")
    return chain | {"dict_size": _LZMA_DICTIONARY} if isinstance(size, int) and size > _LZMA_DICTIONARY else chain


def unbz2(data: bytes, budget: Budget) -> bytes:
    """bzip2."""
    try:
        machine = bz2.BZ2Decompressor()
        return _bounded(machine.decompress, data, budget, lambda: machine.eof)
    except (OSError, ValueError, EOFError) as error:
        raise DecodeError(str(error)) from error


def unbrotli(data: bytes, budget: Budget) -> bytes:
    """Brotli, fed in small pieces because a single call has no bound on its output."""
    import brotli

    limit = budget.allowed(len(data))
    machine = brotli.Decompressor()
    out = bytearray()
    try:
        for start in range(0, len(data), 32):
            out += machine.process(data[start : start + 32])
            if len(out) > limit:
                raise UnpackLimit(f"{len(data)} compressed bytes expand to more than {limit} bytes, stopped")
        if not machine.is_finished():
            raise DecodeError("the brotli stream is cut short")
    except brotli.error as error:
        raise DecodeError(str(error)) from error
    budget.spend(len(out))
    return bytes(out)


def unzstd(data: bytes, budget: Budget) -> bytes:
    """Zstandard."""
    import zstandard

    limit = budget.allowed(len(data))
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
            out = reader.read(limit + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DecodeError(str(error)) from error
    if len(out) > limit:
        raise UnpackLimit(f"{len(data)} compressed bytes expand to more than {limit} bytes, stopped")
    budget.spend(len(out))
    return out


def b64(data: bytes, altchars: bytes | None = None) -> bytes:
    """Base64 as the standard library reads it: foreign characters are skipped."""
    return _text_decoder(base64.b64decode, data, altchars)


def b85(data: bytes) -> bytes:
    """Base85, the alphabet of git and `base64.b85decode`."""
    return _text_decoder(base64.b85decode, data)


def a85(data: bytes, adobe: bool = False) -> bytes:
    """Ascii85, with or without the `<~ ~>` frame."""
    return _text_decoder(base64.a85decode, data, adobe=adobe)


def unhex(data: bytes) -> bytes:
    """Hexadecimal, blanks between bytes allowed."""
    return _text_decoder(lambda d: bytes.fromhex(d.decode("ascii")), data)


def b32(data: bytes) -> bytes:
    """Base32."""
    return _text_decoder(base64.b32decode, data)


def _text_decoder(decoder: Callable[..., bytes], data: bytes, *arguments: Any, **named: Any) -> bytes:
    try:
        return decoder(data, *arguments, **named)
    except (binascii.Error, ValueError, TypeError, AssertionError, OverflowError) as error:
        raise DecodeError(str(error)) from error


_URLSAFE = b"-_"
# What the search through literals tries on a text, by the characters it is made of.
TEXT_DECODERS: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes], bytes]], ...] = (
    ("hex", re.compile(rb"(?:[0-9a-fA-F]{2}\s*)+\Z"), unhex),
    ("b64", re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*\Z"), b64),
    ("urlsafe_b64", re.compile(rb"[A-Za-z0-9_\-\s]+={0,2}\s*\Z"), lambda d: b64(d, _URLSAFE)),
    ("b85", re.compile(rb"[0-9A-Za-z!#$%&()*+\-;<=>?@^_`{|}~]+\Z"), b85),
    ("a85", re.compile(rb"[!-uyz\s]+\Z"), a85),
    ("a85", re.compile(rb"<~[!-uyz\s]+~>\Z"), lambda d: a85(d, True)),
)


def decompressors(data: bytes) -> list[tuple[str, Callable[[bytes, Budget], bytes]]]:
    """Compression formats worth trying on some bytes, by their magic numbers; raw formats when there is none."""
    if data.startswith(b"\xfd7zXZ\0"):
        return [("lzma", unlzma)]
    if data.startswith(b"\x1f\x8b"):
        return [("gzip", lambda d, b: inflate(d, b, 31))]
    if data.startswith(b"BZh"):
        return [("bz2", unbz2)]
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return [("zstd", unzstd)]
    found: list[tuple[str, Callable[[bytes, Budget], bytes]]] = []
    if data[:1] == b"\x78" and len(data) > 2 and int.from_bytes(data[:2], "big") % 31 == 0:
        found.append(("zlib", inflate))
    if data[:1] == b"\x5d":
        found.append(("lzma", unlzma))
    raw = [{"id": lzma.FILTER_LZMA2, "dict_size": _LZMA_DICTIONARY}]
    found.append(("lzma", lambda d, b: unlzma(d, b, lzma.FORMAT_RAW, raw)))
    found.append(("deflate", lambda d, b: inflate(d, b, -15)))
    found.append(("brotli", unbrotli))
    return found
