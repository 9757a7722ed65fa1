"""The ends of processes that nobody waits for: an instance is pid 1 of its namespace, so all that its function leaves behind become
its children. Reaped between calls only: during one, an end may belong to a `subprocess` of the handler.
"""
from _signal import SIG_DFL, SIGCHLD, getsignal, set_wakeup_fd, signal
from os import WNOHANG, close, pipe, read, set_blocking, waitpid
from select import POLLIN, poll as make_poll


def reap() -> bool:
    """Takes all ends there are. Tells whether children are left that live."""
    try:
        while waitpid(-1, WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def reap_until_readable(descriptor: int) -> None:
    """Returns when something can be read, or no child is left. Sleeps in between: each end wakes it through SIGCHLD, which is ours only
    for so long. A function that has a handler of its own for it looks after its children itself."""
    if getsignal(SIGCHLD) != SIG_DFL:
        return
    try:
        wakeup, waker = pipe()
    except OSError:
        return  # The function has all descriptors; what ends now waits for the next call.
    set_blocking(wakeup, False)
    set_blocking(waker, False)
    previous = set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal(SIGCHLD, _nothing)
    try:
        poll = make_poll()
        poll.register(descriptor, POLLIN)
        poll.register(wakeup, POLLIN)
        # An end that came before the handler was there is found by the first round.
        while reap():
            ready = [number for number, _ in poll.poll()]
            if descriptor in ready:
                return
            read(wakeup, 4096)
    finally:
        signal(SIGCHLD, SIG_DFL)
        set_wakeup_fd(previous)
        close(wakeup)
        close(waker)


def _nothing(_number: int, _frame: object) -> None:
    """Without a handler there is no wake-up."""
