"""farcore mount: a dump as a file, in a directory of this machine."""

from __future__ import annotations

import os
import signal
import sys
import syslog
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from farcore.errors import FarcoreError
from farcore_client.cachedir import CacheDir
from farcore_client.child import handled
from farcore_client.commands import with_cache, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.printable import printable

if TYPE_CHECKING:
    from farcore_client.remote import RemoteDump

Opened = Callable[[], "RemoteDump"]
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What the process in the background says over the pipe when the mount can be used; anything else is why it cannot.
_READY: Final = b"\0"


@click.command(
    epilog="\b\nExample: farcore mount http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d /mnt\n"
    "         crash vmlinux /mnt/vmcore; fusermount3 -u /mnt"
)
@click.argument("url", metavar="DUMPURL")
@click.argument("directory", metavar="DIR", type=click.Path(readable=False, path_type=Path))
@click.option("--normalised", is_flag=True, help="DIR/vmcore in the layout of /proc/vmcore, as makedumpfile wants it.")
@click.option("--foreground", is_flag=True, help="Stay until the directory is unmounted, or Ctrl-C.")
@with_cache
@with_credentials
def command(
    url: str, directory: Path, normalised: bool, foreground: bool, cache: CacheDir | None, credentials: Credentials
) -> None:
    """Mount a dump on DIR: DIR/vmcore is a plain ELF file, whatever the server keeps.

    The file can be read when the command returns, and until `fusermount3 -u DIR`. Only pages that are read are fetched. While
    the server is away reads wait for half a minute, then fail with EIO; a dump that was replaced on the server fails for good.
    """
    dump = DumpUrl.parse(url)
    directory = directory.absolute()

    def opened() -> RemoteDump:
        from farcore_client.remote import connect  # late: a process that only starts another needs none of it

        return connect(dump, credentials, normalised=normalised, cache=cache)

    if foreground:
        _serve(opened, directory, lambda sentence: click.echo(f"farcore: {printable(sentence)}", err=True))
    else:
        _in_background(opened, directory)


def _serve(opened: Opened, directory: Path, log: Callable[[str], object], ready: Callable[[], object] = lambda: None) -> None:
    from farcore_client.doors.mount import mounted

    stop = threading.Event()
    stopped = handled(dict.fromkeys(_SIGNALS, lambda *_: stop.set()))
    # Python's own handlers, set before libfuse looks: it leaves those alone that are not the default.
    with stopped, opened() as remote, mounted(remote, directory, log) as ended:
        ready()
        while not (stop.is_set() or ended.is_set()):
            # A handler runs between two waits: nothing interrupts one.
            ended.wait(0.2)


def _in_background(opened: Opened, directory: Path) -> None:
    """Fork while there are no threads, and wait for the child's word."""
    sys.stdout.flush()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _detached(opened, directory, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read()
    if said != _READY:
        os.waitpid(child, 0)
        raise click.ClickException(said.decode(errors="replace") or f"{directory} could not be mounted; try --foreground")


def _detached(opened: Opened, directory: Path, pipe: int) -> None:
    """The child: a session of its own, no terminal, its log is syslog's; never returns."""
    status = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        syslog.openlog(f"farcore-mount[{os.getpid()}]", 0, syslog.LOG_USER)

        def ready() -> None:
            os.chdir("/")  # not before the files that were named (--cacert) have been read
            os.write(pipe, _READY)
            os.close(pipe)

        _serve(opened, directory, lambda sentence: syslog.syslog(syslog.LOG_WARNING, printable(sentence)), ready)
        status = 0
    except FarcoreError as error:
        os.write(pipe, str(error).encode())
    finally:
        os._exit(status)
