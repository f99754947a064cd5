"""inotify(7) by ctypes: who opens, reads and writes the files of some folders, whatever library does it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

ACCESS, MODIFY, CLOSE_WRITE, OPEN, MOVED_TO, CREATE = 0x1, 0x2, 0x8, 0x20, 0x80, 0x100
_OVERFLOW, _IS_DIR, _NONBLOCK = 0x4000, 0x40000000, 0x800
_NAMES = {ACCESS: "read", CLOSE_WRITE: "written", OPEN: "open", MOVED_TO: "written", CREATE: "create"}
_EVENT = struct.Struct("iIII")


class Inotify:
    """Watches folders; `fd` becomes readable when something happened.

    Raises:
        OSError: the kernel offers no inotify here.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.folders: dict[int, str] = {}

    def add(self, folder: str) -> bool:
        """Watch the files directly in a folder; False when that is refused. A folder watched already is left alone."""
        mask = ACCESS | CLOSE_WRITE | OPEN | MOVED_TO | CREATE
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), mask)
        if number >= 0:
            self.folders.setdefault(number, folder)
        return number >= 0

    def events(self) -> Iterator[tuple[str, str, bool]]:
        """What happened since the last call as (path, "open" | "read" | "written" | "create" | "lost", is a folder)."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at + _EVENT.size <= len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            if mask & _OVERFLOW:
                yield "", "lost", False
            path = os.path.join(self.folders.get(number, "?"), os.fsdecode(name))
            for bit, what in _NAMES.items():
                if mask & bit and name:
                    yield path, what, bool(mask & _IS_DIR)
