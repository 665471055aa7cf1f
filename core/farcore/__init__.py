"""What a Linux kernel crash dump is: formats, header check, address spaces, ranges. Pure: no network, no event loop."""

__version__ = "0.1.0"
