"""Standard output as it is found: a reader that has gone, a full disk, an encoding of few characters, none at all."""

from __future__ import annotations

import io
import os
import select
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

READER_GONE = 141
"""The exit code where nobody reads any more (`opd status | head`): what a shell says of a program that SIGPIPE ends."""

INTERRUPTED = 130
"""The exit code after an interrupt: what a shell says of a program that SIGINT ends."""


def settle() -> None:
    """Show `?` for characters that standard output cannot, and let closed standard streams lead nowhere.

    A closed one would otherwise be given to the next file that is opened, and what is printed would go there.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Let ValueErrors and OSErrors be one message on standard error and exit code 1.

    A reader that has gone is no error: nothing is said, and the exit code is READER_GONE.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            discard()
            raise typer.Exit(READER_GONE) from None
        with suppress(OSError):
            typer.echo(f"error: {error}", err=True)
        discard()
        raise typer.Exit(1) from None


@contextmanager
def resumable() -> Iterator[None]:
    """Let an interrupt say which command goes on: the one that was given; the exit code is INTERRUPTED."""
    try:
        yield
    except KeyboardInterrupt:
        words = shlex.join(["opd", *sys.argv[1:]])
        typer.echo(f"stopped: finished runs are kept, the others resume from their last checkpoints: {words}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def reader_is_gone() -> bool:
    """True if standard output is a pipe, or a connection, that nobody reads any more."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    with suppress(OSError):  # one that is no file
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def discard() -> None:
    """Let standard output lead nowhere if it holds what it cannot get rid of: its end would complain once more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
