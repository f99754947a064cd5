"""seccomp: system calls no training script needs are refused, whatever privileges it finds (seccomp(2)).

Refused: every socket but UNIX ones, tracing and other processes' memory, io_uring, bpf, keys, mounts, new namespaces,
modules, clocks. `clone3` answers ENOSYS so that the C library falls back to `clone`, whose flags can be examined.
"""

from __future__ import annotations

import ctypes
import struct

from auditor.dynamic.sandbox.kernel import MACHINE, NUMBERS, syscall

REFUSED = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "process_mrelease",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "add_key",
    "request_key",
    "keyctl",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "quotactl",
    "quotactl_fd",
    "unshare",
    "setns",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "syslog",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "open_by_handle_at",
    "name_to_handle_at",
    "iopl",
    "ioperm",
    "vhangup",
    "lookup_dcookie",
    "nfsservctl",
    "uselib",
)
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGUMENT_0 = 0, 4, 16
_NEW_NAMESPACES = 0x7E020000 | 0x80  # every CLONE_NEW* flag
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10


def program(loopback: bool = False) -> bytes:
    """The filter as BPF instructions for this machine.

    Raises:
        OSError: the machine's system call table is not known here.
    """
    if MACHINE not in _ARCHITECTURE:
        raise OSError(38, f"no seccomp filter for {MACHINE}")
    code = [
        _op(_LOAD, _ARCH),
        _op(_EQUAL, _ARCHITECTURE[MACHINE], 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NR),
    ]
    if MACHINE == "x86_64":  # the x32 table would go round the numbers below
        code += [_op(_GREATER_EQUAL, 0x40000000, 0, 1), _op(_RETURN, _KILL)]
    for name in REFUSED:
        if name in NUMBERS:
            code += [_op(_EQUAL, NUMBERS[name], 0, 1), _op(_RETURN, _ERRNO | _EPERM)]
    code += [_op(_EQUAL, NUMBERS["clone3"], 0, 1), _op(_RETURN, _ERRNO | _ENOSYS)]
    code += [
        _op(_EQUAL, NUMBERS["clone"], 0, 4),
        _op(_LOAD, _ARGUMENT_0),
        _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _op(_RETURN, _ERRNO | _EPERM),
        _op(_RETURN, _ALLOW),
    ]
    families = (AF_UNIX, AF_INET, AF_INET6) if loopback else (AF_UNIX,)
    for name in ("socket", "socketpair"):
        allowed = [_op(_EQUAL, family, len(families) - index, 0) for index, family in enumerate(families)]
        block = [_op(_LOAD, _ARGUMENT_0), *allowed, _op(_RETURN, _ERRNO | _EAFNOSUPPORT), _op(_RETURN, _ALLOW)]
        code += [_op(_EQUAL, NUMBERS[name], 0, len(block)), *block]
    code.append(_op(_RETURN, _ALLOW))
    return b"".join(code)


def install(loopback: bool = False) -> None:
    """Put the filter on this process and its children for good; needs no_new_privs.

    Raises:
        OSError: the kernel refused or the machine is unknown.
    """
    code = program(loopback)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    syscall("seccomp", 1, 0, header)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
