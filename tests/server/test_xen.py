"""A dump of a whole Xen machine on a live server."""

from __future__ import annotations

from pathlib import Path

from tests import elfwriter, xenwriter
from tests.elfwriter import load
from tests.http1 import Connection
from tests.live import Serve
from tests.served import listed, only


def test_physical_memory_of_a_xen_dump_says_that_it_is_machine_memory(tmp_path: Path, serve: Serve) -> None:
    xenwriter.dump(machine=3, dom0=b"OSRELEASE=6.1.0\n").write(tmp_path / "xen")
    elfwriter.Dump([load(b"page", paddr=0x1000)]).write(tmp_path / "linux")
    with Connection(serve(tmp_path, "--host-arch", "x86_64", "--allow-arch", "i386").url) as server:
        links = {name: dump["links"]["physical"] for name, dump in listed(server).items()}
        for _ in range(3):  # the second and later ones by the short cut
            answer = server.get(links["xen"], Range="bytes=4096-4102")
            assert (answer.status, answer.body, answer.get("Farcore-Memory")) == (206, b"machine", "xen-machine")
        assert server.get(links["linux"], Range="bytes=4096-4099").get("Farcore-Memory") is None


def test_what_the_hypervisor_says_is_in_the_description(tmp_path: Path, serve: Serve) -> None:
    xenwriter.dump(dom0=b"OSRELEASE=6.1.0\n").write(tmp_path / "vmcore")
    with Connection(serve(tmp_path, "--host-arch", "x86_64").url) as server:
        said = only(server)
    assert said["xen"] == {
        "bits": 64,
        "version": "4.17",
        "physical_start": "0x7d000000",
        "p2m": "0x12345",
        "vmcoreinfo": {
            "OSRELEASE": "4.17",
            "PAGESIZE": "4096",
            "SYMBOL(frame_table)": "ffff82e000000000",
            "SIZE(page_info)": "32",
        },
    }
    assert said["vmcoreinfo"] == {"OSRELEASE": "6.1.0"}
    assert [note["type"] for note in said["notes"]][1:3] == ["XEN_ELFNOTE_CRASH_REGS", "XEN_ELFNOTE_CRASH_INFO"]
