"""A drgn session: tasks, the stacks of every task, the kernel log, modules, mounts and a few globals."""

from __future__ import annotations

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.fs import for_each_mount, mount_dst
from drgn.helpers.linux.mm import cmdline
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg


def tour(prog: Program) -> None:
    """Prints it all."""
    print(prog["linux_banner"].string_().decode().strip(), prog["init_uts_ns"].name.release.string_().decode())
    for task in sorted(for_each_task(prog), key=lambda t: int(t.pid)):
        print(f"task {int(task.pid)} {task.comm.string_().decode()} cpu {int(task.thread_info.cpu)}")
        try:
            print(prog.stack_trace(task))
        except (FaultError, ValueError) as error:
            print(error)
        if task.mm:
            print(cmdline(task))
    for cpu in for_each_online_cpu(prog):
        print(f"on cpu {cpu}: {per_cpu(prog['runqueues'], cpu).curr.comm.string_().decode()}")
    for module in for_each_module(prog):
        print("module", module.name.string_().decode())
    for mount in for_each_mount(prog):
        print("mount", mount_dst(mount).decode())
    print(get_dmesg(prog).decode(errors="replace"))


tour(globals()["prog"])
