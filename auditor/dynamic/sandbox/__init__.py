"""A sandbox for untrusted Python programs, made of the layers the kernel offers.

What is covered: reading and writing files outside the granted paths; TCP, UDP and every other socket family but
UNIX; signals, ptrace and shared memory across the border; memory, processes, CPU time, wall time, disk and output;
processes that try to outlive the run; the caller's environment, home and standard input.

What is not covered: defects of the kernel itself; timing and cache side channels; code that searches the memory of
its own interpreter for the private result channel (a result is a claim of the run, compared with the static timeline);
GPUs (a GPU re-run needs a throw-away machine).

Layers, each named in the outcome: fresh isolated interpreter with a scrubbed environment, rlimits, watchdog, user,
mount, network, pid and ipc namespaces (through bubblewrap where it works, else directly), Landlock, seccomp. Without a
layer against the network and one against the file system nothing runs, unless the caller insists.
"""

from auditor.dynamic.sandbox.policy import Layer, Outcome, Policy, SandboxUnavailable
from auditor.dynamic.sandbox.runner import available_layers, run

__all__ = ["Layer", "Outcome", "Policy", "SandboxUnavailable", "available_layers", "run"]
