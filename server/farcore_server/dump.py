"""Dump: one file as it was at one moment: what its header check said, and where its bytes are."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from farcore import image, layout, xen
from farcore.arch import Verdict
from farcore.elf import Ehdr, Elf
from farcore.flattened import Flattened
from farcore.formats import StoredFormat
from farcore.layout import Layout
from farcore.notes import Note
from farcore.runs import compose
from farcore.source import Extent
from farcore.vmcoreinfo import Vmcoreinfo
from farcore.xen import Xen
from farcore_server.identity import Identity
from farcore_server.search import Place

State = Literal["ready", "refused", "incomplete", "indexing"]
Resource = Literal["stored", "vmcore", "normalised", "physical"]


class Part(NamedTuple):
    """Another file of a set."""

    place: Place
    identity: Identity


def printed(name: str) -> str:
    """A file's name for a person: what is no UTF-8, or would steer a terminal, is replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """How what is served lies in the file, where it is not simply the file: what the formats' indexes found.

    ``restored``: the file in a flattened stream. ``decoded``: its pages are compressed, and no bytes of the file. ``image``:
    the vmcore composed around them, or around raw memory (``memory``). ``parts``: the other files of a set; ``in_parts``:
    whether it is one.
    """

    restored: Flattened | None = None
    decoded: bool = False
    image: Layout | None = None
    memory: Layout | None = None
    parts: tuple[Part, ...] = ()
    in_parts: bool = False


@dataclass(frozen=True, eq=False)
class Dump:
    """What is known of a version of a file. ``elf`` is None unless its bytes may be served.

    ``panic``: why its kernel crashed, in a line; None until its log was read, or where that does not say it.
    """

    place: Place
    identity: Identity
    stored_format: StoredFormat | None
    state: State
    verdict: Verdict
    warnings: tuple[str, ...] = ()
    header: Ehdr | None = None
    elf: Elf | None = None
    notes: tuple[Note, ...] = ()
    note_extents: tuple[Extent, ...] = ()
    vmcoreinfo: Vmcoreinfo | None = None
    panic: str | None = None
    stored: Stored = Stored()
    _layouts: dict[Resource, Layout] = field(default_factory=dict, repr=False)

    @cached_property
    def id(self) -> str:
        """A slug of the name, a dash, and 8 hex digits of the SHA-256 of the absolute path."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:80]
        return f"{slug or 'dump'}-{hashlib.sha256(os.fsencode(self.place.path)).hexdigest()[:8]}"

    @property
    def name(self) -> str:
        """The path below the PATH it was found under; what is no UTF-8, or would steer a terminal, is replaced."""
        return printed(self.place.name)

    @cached_property
    def etag(self) -> str:
        """The strong ETag of this version, with its quotes."""
        others = [(each.identity.inode, each.identity.size, each.identity.mtime_ns) for each in self.stored.parts]
        if self.place.address is not None:
            others.append((self.place.address, 0, 0))
        return self.identity.etag(self.stored_format, *others)

    @property
    def size(self) -> int:
        """Bytes of the vmcore."""
        if self.stored.image is not None:
            return self.stored.image.size
        return self.stored.restored.size if self.stored.restored is not None else self.identity.size

    @property
    def files(self) -> tuple[tuple[Place, Identity], ...]:
        """Where its bytes lie on disk: its file, and the other parts of a set."""
        return (self.place, self.identity), *self.stored.parts

    @cached_property
    def xen(self) -> Xen | None:
        """What its notes say of a hypervisor, whose machine memory its physical memory then is."""
        return None if self.header is None else xen.of(self.notes, self.header.data)

    @property
    def cpus(self) -> int:
        """How many CPUs left their registers."""
        return sum(note.is_prstatus for note in self.notes)

    @property
    def reason(self) -> str:
        """Why it is served, or why not, in a sentence."""
        return self.verdict.policy.reason

    def layout(self, resource: Resource) -> Layout:
        """The layout of a byte resource, made at its first use: O(PT_LOADs), 30 ms for 70,000 of them."""
        if resource not in self._layouts:
            self._layouts[resource] = self._compose(resource)
        return self._layouts[resource]

    def decodes(self, resource: Resource) -> bool:
        """Whether the resource's layout is over what is decompressed, and not over the file."""
        return self.stored.decoded and resource != "stored"

    def _compose(self, resource: Resource) -> Layout:
        stored, size = self.stored, self.identity.size
        if self.elf is None or resource == "stored":
            return layout.stored(size)
        if stored.image is not None and stored.memory is not None:
            return stored.memory if resource == "physical" else stored.image
        restored = stored.restored
        inner = self._inside(resource, self.elf, size if restored is None else restored.size)
        return inner if restored is None else replace(inner, runs=compose(inner.runs, restored.runs))

    def _inside(self, resource: Resource, elf: Elf, size: int) -> Layout:
        """An ELF core's own."""
        if resource == "vmcore":
            return layout.stored(size, space="vmcore")
        if resource == "physical":
            return layout.physical(elf, size)
        return image.normalised(elf, size, self.note_extents)
