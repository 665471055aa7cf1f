"""Which line of a log says why; the logs are what kernels of several kinds write, shortened."""

from __future__ import annotations

import pytest

from farcore.crashreason import MAX_LENGTH, reason

SYSRQ = """[    4.468] sysrq: Trigger a crash
[    4.469195] Kernel panic - not syncing: sysrq triggered crash
[    4.469400] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-56-cloud-amd64 #1
[    4.470000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---"""
OOPS = """[   10.000001] BUG: kernel NULL pointer dereference, address: 0000000000000010
[   10.000002] #PF: supervisor read access in kernel mode
[   10.000003] Oops: 0000 [#1] PREEMPT SMP PTI
[   10.000004] RIP: 0010:oops_init+0x5/0x1000 [oops]
[   10.000005] Kernel panic - not syncing: Fatal exception
[   10.000006] Kernel Offset: 0x1e000000 from 0xffffffff81000000"""
BUG_ON = """[  222.541202] kernel BUG at fs/ext4/inode.c:2721!
[  222.541300] invalid opcode: 0000 [#1] SMP NOPTI"""
ARM64 = """[    9.1] Unable to handle kernel paging request at virtual address dead000000000100
[    9.2] Internal error: Oops: 96000044 [#1] SMP
[    9.3] Kernel panic - not syncing: Oops: Fatal exception in interrupt"""
LOCKUP = """[  100.0] watchdog: BUG: soft lockup - CPU#3 stuck for 23s! [kworker/3:1:77]
[  101.0] Kernel panic - not syncing: softlockup: hung tasks"""
OLD = """<6>[    1.0] sysrq: SysRq : Trigger a crash
<1>[    1.1] BUG: unable to handle kernel NULL pointer dereference at           (null)
<4>[    1.2] Oops: 0002 [#1] SMP"""
CALLER = "[    1.000000] [    T1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (SYSRQ, "Kernel panic - not syncing: sysrq triggered crash"),
        (OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000010"),
        (BUG_ON, "kernel BUG at fs/ext4/inode.c:2721!"),
        (ARM64, "Kernel panic - not syncing: Oops: Fatal exception in interrupt"),
        (LOCKUP, "Kernel panic - not syncing: softlockup: hung tasks"),
        (OLD, "BUG: unable to handle kernel NULL pointer dereference at           (null)"),
        (CALLER, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
        ("[    2.0] Internal error: Oops - BUG: 0 [#1] SMP", "Internal error: Oops - BUG: 0 [#1] SMP"),
        ("[    2.0] sysrq: Trigger a crash", "sysrq: Trigger a crash"),
        ("[    2.0] usb 1-1: Oops, no: Kernel panic - not syncing: a name", None),
        ("", None),
    ],
)
def test_the_line_that_says_why(log: str, found: str | None) -> None:
    assert reason(log.splitlines()) == found


def test_a_long_reason_is_cut() -> None:
    said = reason([f"Kernel panic - not syncing: {'x' * 5000}"])
    assert said is not None
    assert (len(said), said[-4:]) == (MAX_LENGTH, "x...")
