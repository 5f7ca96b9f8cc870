"""A process that has imported what runs and notebooks need, and forks one for each job that asks: it starts at once.

    python -m opd_lib.command.ready ADDRESS                   imports, waits for jobs at this Unix socket, forks
    python -S -m opd_lib.command.ready ADDRESS COMMAND ...    asks for it and waits; without answer becomes the command

The fork has the output and the exit code of the asking process and ends with it. multiprocessing's fork server works
for the process that has started it alone; here the jobs of another program ask, so that they must start quickly: what
costs time is imported by the waiting process only. Linux only: elsewhere torch does not survive a fork.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

BACKLOG = 1024
"""Jobs that may wait at the socket while the imports take their time."""
MESSAGE = 1 << 16  # bytes, at most: the asking process's id and its command, separated by null characters
UNSAID = b"\1"
"""The exit code of what ends without having said one; sent first, it says that the job has begun."""


def request(address: str, command: list[str]) -> int | None:
    """Have a command carried out: its exit code, or None if nobody has begun with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the fork ends when this process is gone
    code, message = None, "\0".join((str(os.getpid()), *command)).encode()
    if len(message) > MESSAGE:
        return None
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        socket.send_fds(connection, [message], [1, 2])
        while received := connection.recv(1):  # to the very end of the fork, which is when the connection is closed
            code = received[0]
    return code


def wait_and_fork(address: str) -> socket.socket:
    """Import everything, then wait for jobs for ever; returns in the forks only: the connection to what asks.

    Raises RuntimeError if the imports have started threads, which a fork would not have.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(BACKLOG)
        import papermill  # noqa: F401

        import opd_lib.batch.execute
        import opd_lib.command.cli
        import opd_lib.engine.train
        import opd_lib.run.single  # noqa: F401

        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads > 1:
            raise RuntimeError(f"{threads} threads after the imports: cannot fork, every job imports by itself")
        gc.freeze()  # the forks share these objects as long as nobody touches them
        signal.signal(signal.SIGCHLD, _reap)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return connection
            connection.close()


def _reap(number: int, frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def carry_out(connection: socket.socket) -> None:
    """Be the command that was asked for, with the output of the process that asks, as long as that lives."""
    from opd_lib.command import cli
    from opd_lib.run import guard, processes

    message, outputs, _, _ = socket.recv_fds(connection, MESSAGE, 2)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    # the objects at hand remember the position of the file that was there before
    sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    asker, *command = message.decode().split("\0")
    guard.follow(int(asker))
    connection.send(UNSAID)
    words = command[len(processes.OPD) :]
    sys.argv = [cli.__file__, *words]
    try:
        cli.app(words)
    except SystemExit as end:
        connection.send(bytes([int(end.code or 0)]))
        raise


def main(address: str, *command: str) -> None:
    """What the module's docstring says."""
    if command:
        code = request(address, list(command))
        if code is None:
            os.execv(command[0], command)
        sys.exit(code)
    try:
        connection = wait_and_fork(address)
    except KeyboardInterrupt:
        sys.exit(130)
    carry_out(connection)


if __name__ == "__main__":
    main(*sys.argv[1:])
