"""The door for drgn: a drgn.Program over a dump on a server, without a file of it.

skeleton is the core file that drgn opens, without its memory; memory adds that, by a plugin of drgn's where `farcore drgn` runs
drgn's own command line (cli).
"""
