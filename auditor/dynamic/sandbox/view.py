"""The file system a sandboxed program sees: an empty tmpfs with the granted paths bound into it, read-only."""

from __future__ import annotations

import os
import stat

from auditor.dynamic.sandbox import kernel

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PASSWD = "nobody:x:65534:65534:nobody:/scratch:/bin/false\nroot:x:0:0:root:/scratch:/bin/false\n"
_BIND_READONLY = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID


def build(binds: list[tuple[str, str]], scratch: str, scratch_bytes: int, new_pids: bool) -> None:
    """Make and enter the view. Must run as root of a user namespace, inside new mount (and pid) namespaces.

    Args:
        binds: (host path, path inside), all read-only.
        scratch: path inside of the writable tmpfs of `scratch_bytes`; `/tmp` is the same folder, or a second one of
            that size where something granted lies below it.
        new_pids: whether a fresh /proc may be mounted.

    Raises:
        OSError: the kernel refused a mount.
    """
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    root = _stage([source for source, _ in binds])
    kernel.mount("sandbox", root, "tmpfs", kernel.MS_NOSUID, "size=4m,mode=0755")
    if any(inside.startswith("/tmp/") for _, inside in binds):  # before what is bound below it
        _tmpfs(root + "/tmp", scratch_bytes)
    for source, inside in sorted(binds, key=lambda pair: pair[1]):
        _bind(source, root + inside)
    for device in filter(os.path.exists, DEVICES):
        _bind(device, root + device, readonly=False)
    _tmpfs(root + "/dev/shm", 64 << 20)
    _tmpfs(root + scratch, scratch_bytes)
    for link, target in (
        ("tmp", scratch),
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
    ):
        if not os.path.lexists(f"{root}/{link}"):
            os.symlink(target, f"{root}/{link}")
    _write(root + "/etc/passwd", _PASSWD)
    _write(root + "/etc/hosts", "127.0.0.1 localhost\n")
    if new_pids:
        os.makedirs(root + "/proc", exist_ok=True)
        kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    os.makedirs(root + "/.old", exist_ok=True)
    kernel.pivot_root(root, root + "/.old")
    os.chdir("/")
    kernel.umount("/.old")
    os.rmdir("/.old")
    kernel.mount("none", "/", flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID)
    os.chdir(scratch)


def _stage(sources: list[str]) -> str:
    """An existing directory to put the new root together on; what lies below it is hidden from the binds.

    Raises:
        FileNotFoundError: every candidate holds something that is to be bound.
    """
    for candidate in ("/mnt", "/media", "/srv", "/boot", "/home", "/tmp", "/run"):
        if os.path.isdir(candidate) and not any(f"{path}/".startswith(f"{candidate}/") for path in sources):
            return candidate
    raise FileNotFoundError("no directory is free to build the sandbox's view on (/mnt, /media, /srv, /boot, /home)")


def _bind(source: str, target: str, readonly: bool = True) -> None:
    """Bind one path; a symlink is recreated so that merged-usr systems keep their shape."""
    if not os.path.lexists(source):
        raise FileNotFoundError(f"{source} was granted but does not exist")
    if os.path.lexists(target) and not os.path.isdir(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        _write(target, "")
    kernel.mount(source, target, flags=kernel.MS_BIND | kernel.MS_REC)
    if readonly:
        # Flags the parent mount is locked to (nodev, noexec ...) must be repeated or the kernel refuses.
        kernel.mount("none", target, flags=_BIND_READONLY | _locked_flags(target))


def _locked_flags(path: str) -> int:
    flags = os.statvfs(path).f_flag
    return flags & (kernel.MS_NODEV | kernel.MS_NOEXEC) | (flags & 0x1C00)  # atime flags are locked too


def _tmpfs(target: str, size: int) -> None:
    os.makedirs(target, exist_ok=True)
    kernel.mount("scratch", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},mode=1777")


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
