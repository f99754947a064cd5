"""The way in: runs in a fresh interpreter between the caller and the untrusted program and closes doors behind itself.

Order matters: namespaces first (they need privileges), then the view, then no privileges, Landlock and seccomp, then
exec. Each layer that is up is told to the caller on the status channel before the program starts; a layer that cannot
be had is passed over here, and the caller's requirement on layers decides whether the program starts at all.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
from fcntl import ioctl

from auditor.dynamic.sandbox import kernel, landlock, seccomp, view
from auditor.dynamic.sandbox.policy import Layer, missing

NOBODY = 65534


def main(status_fd: int, result_fd: int) -> None:
    """Entry point: reads the request from standard input and never returns to untrusted code's caller."""
    request = json.load(sys.stdin)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    layers = {Layer(name) for name in request["layers"]}
    try:
        _enter(request, layers, status_fd, result_fd)
    except BaseException as error:
        _tell(status_fd, {"refused": f"{type(error).__name__}: {error}"})
        os._exit(125)


def _enter(request: dict, layers: set[Layer], status_fd: int, result_fd: int) -> None:
    policy = request["policy"]
    allowed = {Layer(name) for name in request["allowed"]}
    if Layer.BUBBLEWRAP not in layers and Layer.USER_NS in allowed:
        _namespaces(layers, allowed)
    if Layer.PID_NS in layers and Layer.BUBBLEWRAP not in layers:
        _become_init(status_fd, result_fd)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    if policy["loopback"]:
        _raise_loopback(layers)
    if Layer.MOUNT_NS in layers and Layer.BUBBLEWRAP not in layers:
        binds = [(path, path) for path in policy["readonly"]] + [tuple(pair) for pair in policy["binds"]]
        view.build(binds, policy["scratch"], policy["scratch_bytes"], Layer.PID_NS in layers)
    os.chdir(request["scratch"])
    _limits(policy)
    _give_up_privileges(layers)
    _confine(request, policy, layers, allowed)
    lacking = missing(layers)
    if lacking and not request["insist"]:
        raise PermissionError(f"nothing protects {', '.join(lacking)} on this machine")
    _tell(status_fd, {"layers": sorted(layers)})
    os.close(status_fd)
    os.set_inheritable(result_fd, True)
    environment = {**policy["environment"], "AUDITOR_RESULT_FD": str(result_fd)}
    os.execve(policy["argv"][0], policy["argv"], environment)


def _namespaces(layers: set[Layer], allowed: set[Layer]) -> None:
    uid, gid = os.getuid(), os.getgid()
    wanted = {
        Layer.USER_NS: kernel.CLONE_NEWUSER,
        Layer.MOUNT_NS: kernel.CLONE_NEWNS,
        Layer.NET_NS: kernel.CLONE_NEWNET,
        Layer.PID_NS: kernel.CLONE_NEWPID,
        Layer.IPC_NS: kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS,
    }
    flags = 0
    for layer, flag in wanted.items():
        flags |= flag if layer in allowed else 0
    try:
        kernel.unshare(flags)
    except OSError:
        return
    layers |= {layer for layer in wanted if layer in allowed}
    # Root outside keeps a second identity to change into; anybody else can only be themselves.
    many = uid == 0
    try:
        if not many:
            _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n" if many else f"{uid} {uid} 1\n")
        _put("/proc/self/gid_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n" if many else f"{gid} {gid} 1\n")
    except OSError:
        _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"{uid} {uid} 1\n")
        _put("/proc/self/gid_map", f"{gid} {gid} 1\n")


def _become_init(status_fd: int, result_fd: int) -> None:
    """Continue as the program's ancestor in the new pid namespace; when its init ends, the kernel ends the rest."""
    init = os.fork()
    if init:
        for fd in (status_fd, result_fd):
            os.close(fd)
        _exit_like(init)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    program = os.fork()
    if program:
        for fd in (status_fd, result_fd):
            os.close(fd)
        _exit_like(program)


def _exit_like(child: int) -> None:
    """Wait for `child`, burying whatever else is left to us, and end as it did."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _raise_loopback(layers: set[Layer]) -> None:
    if Layer.NET_NS not in layers:
        raise PermissionError("loopback is granted only inside a private network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        ioctl(channel, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _limits(policy: dict) -> None:
    # RLIMIT_AS is left alone: importing torch reserves far more address space than it ever touches.
    for name, value in (
        (resource.RLIMIT_CPU, policy["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, policy["file_bytes"]),
        (resource.RLIMIT_NOFILE, policy["open_files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, policy["processes"] + 4),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def _give_up_privileges(layers: set[Layer]) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # Outside a view of its own, nobody may be unable to read the interpreter (root's home is private).
    if os.getuid() == 0 and Layer.MOUNT_NS in layers:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            pass  # bubblewrap and some containers map no second identity; capabilities go all the same
    kernel.drop_capabilities()
    layers.add(Layer.UNPRIVILEGED)


def _confine(request: dict, policy: dict, layers: set[Layer], allowed: set[Layer]) -> None:
    if Layer.LANDLOCK in allowed and landlock.abi():
        inside = [pair[1] if Layer.MOUNT_NS in layers else pair[0] for pair in policy["binds"]]
        devices = list(view.DEVICES)
        readable = [*policy["readonly"], *inside, "/dev", "/etc", "/proc"]
        if Layer.MOUNT_NS not in layers:
            readable = [*policy["readonly"], *inside, *devices, "/proc/self", "/proc/meminfo", "/proc/cpuinfo"]
        # Without a view of its own these are everybody's.
        shared = ["/dev/shm", "/tmp"] if Layer.MOUNT_NS in layers else []
        listable = ["/"] if Layer.MOUNT_NS in layers else [request["package_root"]]
        landlock.restrict(readable, [request["scratch"], *shared, *devices], listable, tcp=policy["loopback"])
        layers.add(Layer.LANDLOCK)
    if Layer.SECCOMP in allowed:
        try:
            seccomp.install(policy["loopback"])
        except OSError:
            return
        layers.add(Layer.SECCOMP)


def _tell(fd: int, message: dict) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
