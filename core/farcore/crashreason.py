"""The line of a kernel log that says why the kernel crashed: what a person wants to read first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# Characters; a message of the kernel's is at most a few thousand.
MAX_LENGTH: Final = 200

# What printk puts in front: the time, and with CONFIG_PRINTK_CALLER who said it. A level is only in old plain logs.
_PREFIX: Final = re.compile(r"(?:<\d{1,3}>)?(?:\[ *\d+\.\d+\] ?)?(?:\[ *[TC]\d+\] )?")
_PANIC: Final = re.compile(r"Kernel panic - not syncing\b")
# panic_on_oops: the reason stands above.
_AFTER_OOPS: Final = re.compile(r"Kernel panic - not syncing: Fatal exception\b|Kernel panic - not syncing:? *$")
# x86, arm64, s390, powerpc and riscv: arch/*/kernel/traps.c, arch/*/mm/fault.c, lib/bug.c, kernel/watchdog.c (Linux 6.1).
_OOPS: Final = re.compile(
    r"BUG: (?!workqueue)|[Kk]ernel BUG at |Unable to handle kernel |general protection fault|double fault|divide error"
    r"|stack segment|Unhandled fault|kernel stack overflow|kernel tried to execute|Kernel access of bad area"
    r"|(?:NMI )?watchdog: (?:BUG|Watchdog detected hard LOCKUP)|mce: \[Hardware Error\]: (?:CPU \d+: )?Machine Check"
)
# These follow one of the above, and say less.
_DETAIL: Final = re.compile(r"Oops\b|Internal error: |invalid opcode: |Unexpected kernel |Kernel access of ")
_ASKED_FOR: Final = re.compile(r"sysrq: Trigger a crash|(?:sysrq: )?SysRq ?: Trigger a (?:crash|NULL)")


def reason(lines: Iterable[str]) -> str | None:
    """The panic, or the oops that led to it; without its time; None where the log has neither."""
    oops = asked = None
    for line in lines:
        message = line[_PREFIX.match(line).end() :]  # type: ignore[union-attr]
        if _PANIC.match(message):
            return _short(oops if oops and _AFTER_OOPS.match(message) else message)
        if _OOPS.match(message) or (oops is None and _DETAIL.match(message)):
            oops = message
        elif _ASKED_FOR.match(message):
            asked = message
    found = oops or asked
    return None if found is None else _short(found)


def _short(message: str) -> str:
    return message.rstrip() if len(message) <= MAX_LENGTH else message[: MAX_LENGTH - 3] + "..."
