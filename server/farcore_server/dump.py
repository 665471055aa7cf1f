"""Dump: one file as it was at one moment: what its header check said, and where its bytes are."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from farcore import image, layout
from farcore.arch import Verdict
from farcore.elf import Ehdr, Elf
from farcore.formats import StoredFormat
from farcore.layout import Layout
from farcore.notes import Note
from farcore.source import Extent
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_server.identity import Identity
from farcore_server.search import Place

State = Literal["ready", "refused", "incomplete", "indexing"]
Resource = Literal["stored", "vmcore", "normalised", "physical"]


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
    _layouts: dict[Resource, Layout] = field(default_factory=dict, repr=False)

    @cached_property
    def id(self) -> str:
        """A slug of the name, a dash, and 8 hex digits of the SHA-256 of the absolute path."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:80]
        return f"{slug or 'dump'}-{hashlib.sha256(os.fsencode(self.place.path)).hexdigest()[:8]}"

    @property
    def name(self) -> str:
        """The path below the PATH it was found under; what is no UTF-8, or would steer a terminal, is replaced."""
        text = os.fsencode(self.place.name).decode("utf-8", "replace")
        return "".join(each if each.isprintable() else "\ufffd" for each in text)

    @cached_property
    def etag(self) -> str:
        """The strong ETag of this version, with its quotes."""
        return self.identity.etag(self.stored_format)

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

    def _compose(self, resource: Resource) -> Layout:
        size = self.identity.size
        if self.elf is None or resource == "stored":
            return layout.stored(size)
        if resource == "vmcore":
            return layout.stored(size, space="vmcore")
        if resource == "physical":
            return layout.physical(self.elf, size)
        return image.normalised(self.elf, size, self.note_extents)
