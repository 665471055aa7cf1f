"""farcored serve: the server."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from farcore_server.commands import with_settings
from farcore_server.settings import Settings

# numpy's BLAS would start a thread a core when it is imported, and the workers are forked after that.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@click.command(epilog="Example: farcored serve /var/crash --listen 10.0.0.5:8787 --token-file /etc/farcore/tokens")
@with_settings(again=True)
def command(read: Callable[[], Settings]) -> int:
    """Serve the dumps at PATH... over HTTP: files of any form, directories (searched), /proc/vmcore, raw RAM as FILE@ADDRESS.

    Without --token-file it serves this machine alone. SIGTERM ends it gently, SIGHUP has it read its settings again.
    """
    from farcore_server.serve import serve

    return serve(read)
