"""Serve: from Settings to a listening socket and the processes that answer on it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aiohttp import http_exceptions, web

from farcore.errors import SettingsError
from farcore_server import systemd
from farcore_server.kinds import Listen
from farcore_server.metrics import REFUSED, SERVED, Metrics, Rows
from farcore_server.search import addressed
from farcore_server.settings import Settings, check_exposure
from farcore_server.supervisor import Supervisor
from farcore_server.tls import ssl_context
from farcore_server.tokens import TokenFile
from farcore_server.worker import Worker

LOG: Final = logging.getLogger(__name__)

# More would wait in the kernel anyway: connections not yet accepted.
BACKLOG: Final = 1024


def serve(read: Callable[[], Settings]) -> int:
    """Serve by the settings that ``read`` returns, now and after each SIGHUP, until SIGTERM or SIGINT: the exit status.

    SettingsError where they cannot be used now; later on, such settings leave what is served as it is.
    """
    given = systemd.inherited(os.environ)
    if given is not None:
        read = _with_listen(read, Listen(*given.getsockname()[:2]))
    settings = read()
    demand_usable(settings)
    listener = given or listen(settings)
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp.server").addFilter(_briefly)
    _allow_files()
    return Serve(read, settings, listener).run()


class Serve:
    """The supervisor's view of a server: its settings, its socket, and what it tells whoever started it."""

    def __init__(self, read: Callable[[], Settings], settings: Settings, listener: socket.socket) -> None:
        self._read, self._settings, self._listener = read, settings, listener
        self._rows = Rows(settings.worker_count)

    def run(self) -> int:
        """Until SIGTERM or SIGINT."""
        # What is there now is there for good: without a search of it for garbage its memory stays shared with the workers.
        gc.collect()
        gc.freeze()
        return Supervisor(self._rows, self._work, self).run()

    def ready(self, worker: int) -> None:
        """Say so, and where."""
        row = self._rows.row(worker)
        address, port = self._listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        scheme = "https" if self._settings.tls_cert else "http"
        served = f"serving {_counted(row[SERVED], row[REFUSED])} on {scheme}://{shown}:{port}"
        _say(served)
        systemd.notify("READY=1", f"STATUS={served}")

    def reload(self) -> bool:
        """Whether the settings can be read and used as they are now."""
        systemd.notify_reloading()
        try:
            settings = self._read()
            lasting = self._lasting(settings)
            demand_usable(lasting)
        except SettingsError as error:
            LOG.error("the settings stay as they were: %s", error)
            return False
        finally:
            systemd.notify("READY=1")
        if lasting != settings:
            LOG.warning("listen and workers change only when farcored is started again")
        logging.getLogger().setLevel(lasting.log_level.upper())
        self._settings = lasting
        LOG.info("the settings were read again")
        return True

    def stop(self) -> float:
        """The socket closes with the last worker's."""
        self._listener.close()
        systemd.notify("STOPPING=1")
        _say(f"stopping; running streams have {self._settings.drain:g} s to end")
        return self._settings.drain

    def _lasting(self, settings: Settings) -> Settings:
        return replace(settings, listen=self._settings.listen, workers=self._settings.workers)

    def _work(self, number: int, life: int) -> None:
        counts = Metrics(self._rows, number)
        Worker(self._settings, lambda: self._lasting(self._read()), self._listener, counts).run(life)


def _with_listen(read: Callable[[], Settings], listen: Listen) -> Callable[[], Settings]:
    return lambda: replace(read(), listen=listen)


def demand_usable(settings: Settings) -> None:
    """SettingsError unless workers can serve by these, as far as that can be told without a look at the dumps."""
    if not settings.paths:
        raise SettingsError("there is nothing to serve: name dump files or directories, such as `farcored serve /var/crash`")
    for path in settings.paths:
        if not os.path.lexists(addressed(path)[0]):
            raise SettingsError(f"{path}: there is no such file or directory")
    check_exposure(settings)
    settings.arch_rules()
    ssl_context(settings)
    if settings.token_file:
        TokenFile(settings.token_file)


def listen(settings: Settings) -> socket.socket:
    """A listening socket; SettingsError with the reason where there can be none."""
    host, port = settings.listen.host, settings.listen.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {settings.listen}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def _briefly(record: logging.LogRecord) -> bool:
    """Bytes that are no HTTP request, and a client that leaves, are a stranger's doing: a line for who asked for details."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError | ConnectionError):
        record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
        record.msg, record.args = f"{record.getMessage()}: {' '.join(str(error).split())!a:.200}", ()
        return LOG.isEnabledFor(logging.DEBUG)
    return True


def _allow_files() -> None:
    """As many descriptors as may be had: a dump takes two, a client one, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _counted(served: int, refused: int) -> str:
    text = f"{served} dump{'' if served == 1 else 's'}"
    return f"{text} ({refused} refused)" if refused else text


def _say(sentence: str) -> None:
    # Whoever read it may have gone (a closed terminal): no reason to stop serving.
    with contextlib.suppress(OSError):
        print(f"farcored: {sentence}", file=sys.stderr, flush=True)
