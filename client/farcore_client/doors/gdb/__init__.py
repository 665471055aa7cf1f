"""The door for gdb: its remote serial protocol over a dump. CPUs are threads, memory is the kernel's own virtual memory.

packets and connection frame, session answers, description and memory say what a machine's registers and addresses are; none of
them touches a socket. door is the shell around them. Format: gdb's manual, appendix "GDB Remote Serial Protocol".
"""
