"""The system calls the sandbox is built from, by ctypes: nothing to install, nothing to compile.

Errors are raised as `OSError` with the kernel's errno. Numbers are those of the kernel's own tables
(include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
MACHINE = platform.machine()

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 4, 24, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4

# System calls by architecture. Landlock's and the newer ones share their numbers everywhere.
_X86_64 = {
    "pivot_root": 155,
    "capset": 126,
    "seccomp": 317,
    "socket": 41,
    "socketpair": 53,
    "clone": 56,
    "clone3": 435,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "bpf": 321,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "mount": 165,
    "umount2": 166,
    "chroot": 161,
    "unshare": 272,
    "setns": 308,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "reboot": 169,
    "swapon": 167,
    "swapoff": 168,
    "acct": 163,
    "syslog": 103,
    "settimeofday": 164,
    "clock_settime": 227,
    "adjtimex": 159,
    "clock_adjtime": 305,
    "open_by_handle_at": 304,
    "name_to_handle_at": 303,
    "kcmp": 312,
    "quotactl": 179,
    "personality": 135,
    "iopl": 172,
    "ioperm": 173,
    "vhangup": 153,
    "lookup_dcookie": 212,
    "nfsservctl": 180,
    "uselib": 134,
}
_AARCH64 = {
    "pivot_root": 41,
    "capset": 91,
    "seccomp": 277,
    "socket": 198,
    "socketpair": 199,
    "clone": 220,
    "clone3": 435,
    "ptrace": 117,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "bpf": 280,
    "perf_event_open": 241,
    "userfaultfd": 282,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "mount": 40,
    "umount2": 39,
    "chroot": 51,
    "unshare": 97,
    "setns": 268,
    "kexec_load": 104,
    "kexec_file_load": 294,
    "init_module": 105,
    "finit_module": 273,
    "delete_module": 106,
    "reboot": 142,
    "swapon": 224,
    "swapoff": 225,
    "acct": 89,
    "syslog": 116,
    "settimeofday": 170,
    "clock_settime": 112,
    "adjtimex": 171,
    "clock_adjtime": 266,
    "open_by_handle_at": 265,
    "name_to_handle_at": 264,
    "kcmp": 272,
    "quotactl": 60,
    "personality": 92,
    "vhangup": 58,
    "lookup_dcookie": 18,
    "nfsservctl": 42,
}
_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "process_mrelease": 448,
}
NUMBERS: dict[str, int] = {**{"x86_64": _X86_64, "aarch64": _AARCH64}.get(MACHINE, {}), **_COMMON}


def syscall(name: str, *arguments: object) -> int:
    """Make a system call by name.

    Raises:
        OSError: the kernel refused, or this architecture is not in the table (ENOSYS).
    """
    if name not in NUMBERS:
        raise OSError(38, f"{name} is not known on {MACHINE}")
    return _checked(_libc.syscall(NUMBERS[name], *arguments), name)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source` on `target`."""
    _checked(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
        ),
        f"mount {target}",
    )


def umount(target: str) -> None:
    """Detach what is mounted on `target`."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root and put the old one at `old`."""
    syscall("pivot_root", new.encode(), old.encode())


def prctl(option: int, value: int = 0) -> None:
    """Process control with one argument."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def drop_capabilities() -> None:
    """Give up every capability for good: bounding and ambient sets, then the process's own."""
    last = 40
    if os.path.exists("/proc/sys/kernel/cap_last_cap"):
        with open("/proc/sys/kernel/cap_last_cap") as file:
            last = int(file.read())
    for capability in range(last + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # without CAP_SETPCAP the bounding set cannot shrink; no_new_privs makes it moot
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
