"""What the tests of the client share: farcore in this process, and a server with small dumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from farcore_client.main import main
from tests import elfwriter
from tests.elfwriter import load, note
from tests.live import Live, Serve


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit status, and the bytes that it wrote."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.stdout.decode()


Farcore = Callable[..., Done]

VMCOREINFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\nNUMBER(phys_base)=16777216\nKERNELOFFSET=1e000000\n"
# Its memory: 0x1000-0x2000 is there, 0x2000-0x3000 excluded, 0x3000-0x4000 not described, 0x4000-0x5000 there.
LOW, HIGH = bytes(range(256)) * 16, bytes(reversed(range(256))) * 16
SMALL = elfwriter.Dump(
    [
        note(("CORE", 1, bytes(336)), ("CORE", 1, bytes(336)), ("VMCOREINFO", 0, VMCOREINFO)),
        load(LOW, paddr=0x1000, vaddr=0xFFFF888000001000, memsz=0x2000),
        load(HIGH, paddr=0x4000, vaddr=0xFFFF888000004000),
    ]
)


@pytest.fixture
def farcore(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Farcore:
    """Runs farcore with these arguments in this process."""
    monkeypatch.delenv("FARCORE_TOKEN", raising=False)

    def run(*arguments: str | Path) -> Done:
        capfdbinary.readouterr()
        status = main([str(one) for one in arguments])
        said = capfdbinary.readouterr()
        return Done(status, said.out, said.err.decode())

    return run


@dataclass(frozen=True, slots=True)
class Served:
    """A server, and the folder that it serves: small.elf (SMALL), foreign.elf (s390x, refused), cut.elf (incomplete)."""

    live: Live
    folder: Path

    @property
    def url(self) -> str:
        """The server's."""
        return self.live.url


@pytest.fixture(scope="session")
def served(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """farcored as an x86_64 machine, with three dumps."""
    folder = tmp_path_factory.mktemp("dumps")
    SMALL.write(folder / "small.elf")
    elfwriter.Dump([load(b"z" * 4096, paddr=0)], machine=22, data="BE").write(folder / "foreign.elf")
    elfwriter.Dump([load(b"y" * 4096, paddr=0)], size=2048).write(folder / "cut.elf")
    return Served(serve_all_along(folder, "--host-arch", "x86_64"), folder)
