"""gdb's `monitor`: what the door can tell beside the protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from farcore.errors import FarcoreError
from farcore_client.doors.gdb.launch import load_line
from farcore_client.printable import printable
from farcore_client.target import Target

# A screen or two; `farcore read` writes more.
MAX_DUMPED: Final = 4096
_LINE: Final = 16
_HELP: Final = f"""\
monitor help                what there is
monitor info                the kernel, its CPUs, and the line that loads its symbols
monitor physical ADDR LEN   memory by physical address, at most {MAX_DUMPED} bytes
"""
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


def run(line: str, target: Target, cpus: Sequence[str]) -> str:
    """What ``line`` prints; a mistake is a sentence of it. ``cpus``: their names."""
    match line.split():
        case ["info"]:
            return "".join(f"{each}\n" for each in _info(target, cpus))
        case ["physical", address, length] if _NUMBER.fullmatch(address) and _NUMBER.fullmatch(length):
            return _physical(target, int(address, 0), int(length, 0))
        case ["help"] | []:
            return _HELP
    return f"{printable(line)!r} is not known here\n{_HELP}"


def _info(target: Target, cpus: Sequence[str]) -> Iterator[str]:
    known = target.vmcoreinfo
    if known is None:
        yield "no VMCOREINFO: neither the kernel's release nor its place in memory is known"
    else:
        yield f"kernel    {known.kernel_release or 'of an unknown release'}"
        if known.build_id:
            yield f"build-id  {known.build_id}"
        if known.crash_time:
            yield f"crashed   {datetime.fromtimestamp(known.crash_time, UTC):%Y-%m-%d %H:%M:%S} UTC"
    for name, cpu in zip(cpus, target.cpus, strict=False):
        yield f"{name}: " + ("its registers are of an unknown layout" if cpu is None else f"pid {cpu.pid}")
    yield f"symbols   {load_line(target)}"


def _physical(target: Target, address: int, length: int) -> str:
    if not 0 < length <= MAX_DUMPED:
        return f"give a LEN of 1 to {MAX_DUMPED}; `farcore read --physical` writes more\n"
    try:
        found = bytes(target.physical.pread(address, length))
    except FarcoreError as error:
        return f"{error}\n"
    lines = []
    for at in range(0, length, _LINE):
        row = found[at : at + _LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{address + at:016x}  {row.hex(' '):{_LINE * 3 - 1}}  {text}\n")
    return "".join(lines)
