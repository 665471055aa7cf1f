"""Raw memory: an ELF core composed around RAM without a header, for the machine that the server takes for native."""

from __future__ import annotations

from dataclasses import replace

from farcore import consistency, rawmemory, vmcore
from farcore.arch import PolicyVerdict
from farcore.file import FileSource
from farcore.layout import Layout
from farcore_server.dump import Dump, Stored
from farcore_server.seen import Seen


def inspect(seen: Seen, source: FileSource) -> Dump:
    """The Dump; nothing in the file says whose memory it is, so it is said to be the host's."""
    host, address = seen.rules.host, seen.place.address
    machine = min(host.native(host.bits))
    said = "its own headers" if address is None else f"the command line: from {address:#x} on"
    accepted = PolicyVerdict(True, f"raw memory, placed by {said}; nothing in it can be checked")
    verdict = replace(seen.rules.unread(""), policy=accepted)
    runs, problem = rawmemory.lime(source) if address is None else (rawmemory.raw(source.size, address), None)
    image = vmcore.compose(vmcore.header(machine, host.bits, host.data), runs, b"")
    doubts = [
        f"raw memory says nothing of its machine: taken for {host.name} (--host-arch chooses another)",
        *([problem] if problem else []),
        *consistency.of_notes(image.elf, vmcore.read_notes(b"", image.elf.header)),
    ]
    return Dump(
        seen.place,
        seen.identity,
        "raw",
        "incomplete" if problem else "ready",
        verdict,
        (*verdict.warnings, *doubts),
        image.elf.header,
        image.elf,
        stored=Stored(image=image.layout, memory=Layout("physical", int(runs.stop[-1]), runs)),
    )
