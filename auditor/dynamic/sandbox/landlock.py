"""Landlock: the program's own file system rights, by kernel, without privileges (documented in landlock(7)).

Read and execute below the granted paths, everything below the writable ones, nothing elsewhere; from ABI 4 no TCP, from
ABI 6 no signals and abstract UNIX sockets across the border. UDP is not covered: that is seccomp's part.
"""

from __future__ import annotations

import ctypes
import os
import struct

from auditor.dynamic.sandbox.kernel import syscall

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP_BIND, TCP_CONNECT = 1, 2
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1, 2


def abi() -> int:
    """Landlock ABI of the running kernel, 0 when there is none."""
    try:
        return syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def restrict(readable: list[str], writable: list[str], listable: list[str] | None = None, tcp: bool = False) -> int:
    """Confine this process and its children for good; needs no_new_privs. Returns the ABI used.

    Args:
        readable: paths below which files may be read and executed; those that do not exist are passed over.
        writable: paths below which everything is allowed.
        listable: folders below which names may be listed (imports look at the folder above a package).
        tcp: leave TCP alone (a private network namespace holds it).

    Raises:
        OSError: the kernel has no Landlock or refused.
    """
    version = abi()
    if not version:
        raise OSError(95, "this kernel has no Landlock")
    handled = _RIGHTS_BY_ABI[min(version, 5)]
    network = TCP_BIND | TCP_CONNECT if version >= 4 and not tcp else 0
    scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if version >= 6 else 0
    words = [handled, network, scoped][: 1 if version < 4 else 2 if version < 6 else 3]
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = syscall("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path in readable:
            _allow(ruleset, path, READ & handled)
        for path in listable or ():
            _allow(ruleset, path, READ_DIR)
        for path in writable:
            _allow(ruleset, path, handled)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        syscall("landlock_add_rule", ruleset, 1, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)
