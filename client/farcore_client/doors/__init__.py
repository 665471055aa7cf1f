"""What unmodified tools connect to: crash, gdb, drgn, FUSE."""
