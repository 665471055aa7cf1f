"""What a dump answers to gdb's packets. Bytes in, bytes out; what is not known here is answered by nothing, as gdb wants it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from farcore.errors import FaultError
from farcore.registers import Prstatus
from farcore_client.doors import memory
from farcore_client.doors.gdb import description, monitor
from farcore_client.doors.gdb.packets import MAX_PACKET, escaped
from farcore_client.doors.gdb.panicked import SYMBOLS, cpu_at
from farcore_client.errors import ProtocolError
from farcore_client.target import Target

DEAD: Final = "E.The target is a crash dump: nothing in it can run or change"
# What an E is followed by otherwise: errno's EINVAL, EFAULT and EIO, in hexadecimal.
_INVALID, _FAULT, _IO = b"E16", b"E0e", b"E05"
_FEATURES: Final = (
    f"PacketSize={MAX_PACKET:x};QStartNoAckMode+;qXfer:features:read+;qXfer:memory-map:read+;binary-upload+".encode()
)
_NUMBERS: Final = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
_ADDRESS: Final = re.compile(rb"[0-9a-fA-F]{1,16}")
_XFER: Final = re.compile(rb"(features|memory-map):read:([^:]*):([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")


class Session:
    """One gdb's conversation with ``target``. A thread's id is its CPU's number plus 1; ``over``: gdb has taken its leave.

    ``complain`` gets what gdb has no words for.
    """

    complain: Callable[[str], object] = staticmethod(lambda _: None)

    def __init__(self, target: Target, mem: memory.Memory, panicked: int | None = None) -> None:
        described = description.of(target)
        if described is None:
            raise ProtocolError("gdb has no description of this dump's machine: `farcore mount` gives other tools the file")
        self.target, self.memory, self.description = target, mem, described
        self.panicked = panicked
        self.current, self.over, self.acknowledges = (panicked or 0) + 1, False, True

    @property
    def threads(self) -> int:
        """How many CPUs there are; gdb needs one."""
        return max(len(self.target.cpus), 1)

    def answer(self, content: bytes) -> bytes | None:
        """The content of the answer to a packet's; None where there is none to be given."""
        for head, respond in _RESPONSES:
            if content.startswith(head):
                return respond(self, content[len(head) :])
        return b""

    def supported(self, _: bytes) -> bytes:
        """qSupported."""
        return _FEATURES

    def without_acknowledgement(self, _: bytes) -> bytes:
        """QStartNoAckMode."""
        self.acknowledges = False
        return b"OK"

    def stopped(self, _: bytes) -> bytes:
        """?: SIGTRAP, on the CPU that gdb looks at first."""
        return b"T05thread:%x;" % self.current

    def select(self, words: bytes) -> bytes:
        """Hg and Hc: -1 is all threads and 0 any."""
        if words in (b"-1", b"0"):
            return b"OK"
        if self._thread(words) is None:
            return _INVALID
        self.current = int(words, 16)
        return b"OK"

    def alive(self, words: bytes) -> bytes:
        """T."""
        return _INVALID if self._thread(words) is None else b"OK"

    def current_thread(self, _: bytes) -> bytes:
        """qC."""
        return b"QC%x" % self.current

    def first_threads(self, _: bytes) -> bytes:
        """qfThreadInfo: all of them; 8,192 CPUs are 40 KB."""
        return b"m" + b",".join(b"%x" % (cpu + 1) for cpu in range(self.threads))[: MAX_PACKET - 1]

    def last_threads(self, _: bytes) -> bytes:
        """qsThreadInfo."""
        return b"l"

    def thread_name(self, words: bytes) -> bytes:
        """qThreadExtraInfo: what `info threads` shows."""
        cpu = self._thread(words)
        return _INVALID if cpu is None else self.name(cpu).encode().hex().encode()

    def name(self, cpu: int) -> str:
        """CPU 1, or CPU 1 (panicked)."""
        return f"CPU {cpu}" + (" (panicked)" if cpu == self.panicked else "")

    def all_registers(self, _: bytes) -> bytes:
        """g."""
        cpu, data = self._cpu(), self.target.elf.header.data
        return b"".join(description.hexadecimal(register, cpu, data) for register in self.description.registers)

    def one_register(self, words: bytes) -> bytes:
        """p: by the place in the description."""
        every = self.description.registers
        if not re.fullmatch(rb"[0-9a-fA-F]{1,4}", words) or int(words, 16) >= len(every):
            return _INVALID
        return description.hexadecimal(every[int(words, 16)], self._cpu(), self.target.elf.header.data)

    def read_hexadecimal(self, words: bytes) -> bytes:
        """m."""
        return self._read(words, lambda found: found.hex().encode())

    def read_binary(self, words: bytes) -> bytes:
        """x."""
        return self._read(words, lambda found: b"b" + escaped(found))

    def transfer(self, words: bytes) -> bytes:
        """qXfer: a piece of target.xml or of the memory map."""
        asked = _XFER.fullmatch(words)
        if asked is None or asked[2] != (b"target.xml" if asked[1] == b"features" else b""):
            return b"E00"
        document = self.description.xml if asked[1] == b"features" else self._map()
        start, length = int(asked[3], 16), min(int(asked[4], 16), MAX_PACKET // 2)
        return (b"m" if start + length < len(document) else b"l") + escaped(document[start : start + length])

    def symbols(self, words: bytes) -> bytes:
        """qSymbol: gdb has symbols, and so knows where the kernel wrote down which CPU panicked."""
        value, _, name = words.partition(b":")
        names = [each.encode().hex().encode() for each in SYMBOLS]
        if _ADDRESS.fullmatch(value) and name in names:
            self.panicked = cpu_at(int(value, 16), self.target, self.memory)
        following = names.index(name) + 1 if name in names else 0
        return b"qSymbol:" + names[following] if following < len(names) and (self.panicked is None or not name) else b"OK"

    def command(self, words: bytes) -> bytes:
        """qRcmd: `monitor` and what follows it."""
        try:
            line = bytes.fromhex(words.decode("ascii")).decode()
        except ValueError:
            return _INVALID
        said = monitor.run(line, self.target, [self.name(cpu) for cpu in range(self.threads)])
        return said.encode().hex().encode()

    def attached(self, _: bytes) -> bytes:
        """qAttached: what gdb leaves is there already."""
        return b"1"

    def refuse(self, _: bytes) -> bytes:
        """What would run or write."""
        return DEAD.encode()

    def detach(self, _: bytes) -> bytes:
        """D and vKill."""
        self.over = True
        return b"OK"

    def kill(self, _: bytes) -> None:
        """k: gdb waits for nothing."""
        self.over = True

    def _thread(self, words: bytes) -> int | None:
        """The CPU of a thread's id."""
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", words) or not 1 <= int(words, 16) <= self.threads:
            return None
        return int(words, 16) - 1

    def _cpu(self) -> Prstatus | None:
        cpus = self.target.cpus
        return cpus[self.current - 1] if cpus else None

    def _read(self, words: bytes, write: Callable[[bytes], bytes]) -> bytes:
        asked = _NUMBERS.fullmatch(words)
        if asked is None:
            return _INVALID
        # Twice as many digits, or escapes, and room for the rest of the packet.
        vaddr, length = int(asked[1], 16), min(int(asked[2], 16), MAX_PACKET // 2 - 8)
        try:
            return write(self.memory.read(vaddr, length) if length else b"")
        except FaultError:
            return _FAULT
        except ConnectionError as error:
            # The server is away: this read has failed, and a later one may not.
            self.complain(str(error))
            return _IO

    def _map(self) -> bytes:
        """The memory map: what gdb could ever ask for, and that it is not to be written to. None where it would be long."""
        regions = self.memory.regions if len(self.memory.regions) <= memory.MAX_REGIONS else []
        lines = [f'<memory type="rom" start="{start:#x}" length="{stop - start:#x}"/>\n' for start, stop in regions]
        return f'<?xml version="1.0"?>\n<memory-map>\n{"".join(lines)}</memory-map>\n'.encode()


Respond = Callable[[Session, bytes], bytes | None]

# By the head of a packet; of two that fit the first.
_RESPONSES: Final[tuple[tuple[bytes, Respond], ...]] = (
    (b"qSupported", Session.supported),
    (b"QStartNoAckMode", Session.without_acknowledgement),
    (b"qXfer:", Session.transfer),
    (b"qfThreadInfo", Session.first_threads),
    (b"qsThreadInfo", Session.last_threads),
    (b"qThreadExtraInfo,", Session.thread_name),
    (b"qSymbol:", Session.symbols),
    (b"qRcmd,", Session.command),
    (b"qAttached", Session.attached),
    (b"qC", Session.current_thread),
    (b"vKill", Session.detach),
    (b"vCont;", Session.refuse),
    (b"?", Session.stopped),
    (b"Hg", Session.select),
    (b"Hc", Session.select),
    (b"T", Session.alive),
    (b"g", Session.all_registers),
    (b"p", Session.one_register),
    (b"m", Session.read_hexadecimal),
    (b"x", Session.read_binary),
    (b"D", Session.detach),
    (b"k", Session.kill),
    *((head, Session.refuse) for head in (b"c", b"C", b"s", b"S", b"G", b"P", b"M", b"X", b"Z", b"z")),
)
