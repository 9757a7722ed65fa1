"""Becomes Node with little of what its starter has: no rights of root, no environment, bounded time and memory.

    python3 -I -S -B confined_node.py UID EXECUTABLE ARGUMENT...

UID -1 keeps the user. The executable is opened before the user changes, since its directories may be closed to everybody else.
"""
import os
import resource
import sys

_CPU_S = 10
#: Node reserves 560 MiB of writable addresses for itself.
_DATA_BYTES = 1600 << 20


def main() -> None:
    uid, executable, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    descriptor = os.open(executable, os.O_RDONLY | os.O_CLOEXEC)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execve(descriptor, [executable, *arguments], {})


if __name__ == "__main__":
    main()
