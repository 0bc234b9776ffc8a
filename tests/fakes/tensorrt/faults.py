"""What goes wrong on purpose, told by VIGIA_FAKE_FAULTS so that it reaches child processes too.

Comma-separated; `name:value` where a fault takes one:
    no-driver           Builder and Runtime do not start
    dla:N               the machine has N DLA cores
    sm:NN               compute capability of the GPU (87 by default)
    build-none:ROUTE    the builder returns None for "strong", "weak", "calibrated" or "all"
    strong-qdq          bug 2: strongly typed Q/DQ does not build
    calibrated          bug 1: int8 by a calibrator dies in checkSanity
    refuse-op:OP        the parser refuses an operator
    out-of-memory:WHAT  memory is short in "build", "load" or "context"
    context-none        no execution context can be made
    precision:NAME      the inspector says that every layer computes in NAME
    kill                the process dies by SIGKILL while it builds, as by the OOM killer
    bad-alloc           an allocation fails in native code, which ends the process by SIGABRT
    crash               the process dies by SIGSEGV while it builds
    hang                the builder never comes back
    timing-refused      a timing cache is refused
    enqueue             an enqueue fails
"""

from __future__ import annotations

import os


def fault(name):
    """The value of a fault ("" if it takes none), or None if it is not asked for."""
    for item in os.environ.get("VIGIA_FAKE_FAULTS", "").split(","):
        key, _, value = item.partition(":")
        if key == name:
            return value
    return None
