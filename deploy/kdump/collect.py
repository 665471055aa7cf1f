#!/usr/bin/env python3
"""Collects farcored, the Python that runs this and every library both need into one folder for an initramfs.

    python3 collect.py DEST

The folder stands alone: a launcher (``farcored``), the dynamic loader, shared libraries, modules as byte code without sources
and docstrings. What belongs to it is not computed but seen: all of the server is imported here, and whatever package and
library is loaded then is copied. Before this returns, the folder's own farcored has served a dump: one that could not must
fail on the machine that makes the initramfs, and not after a crash.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

# What is imported in the midst of serving, outside of the packages that are there anyway.
LATER = ("concurrent.futures.thread", "jinja2", "stringprep", "unicodedata")
# Parts of packages that no program imports; of numpy they are most of it.
NEVER = frozenset({"__pycache__", "distutils", "f2py", "include", "test", "testing", "tests"})
SOURCES = frozenset({".a", ".c", ".h", ".pyc", ".pyi", ".pxd", ".pyx"})
# uvloop's speed is of no use to a link and costs memory; the lane that needs it turns itself off.
WITHOUT = ("uvloop",)
# dlopened by glibc when a thread ends.
NOT_MAPPED = "libgcc_s.so.1"
MAPPED = re.compile(r"^\S+ r-xp \S+ \S+ \S+\s+(/.+)$", re.MULTILINE)
EXTENSION = re.compile(r"\.(cpython-|abi3).*\.so$")
LOADER = re.compile(r"ld-linux|ld64\.so|ld\.so")
LAUNCHER = """#!/bin/sh
# farcored with the Python, the loader and the libraries of this folder, and with no others
home=${0%/*}
PYTHONHOME=$home OPENBLAS_NUM_THREADS=1 exec "$home/lib/loader" --library-path "$home/lib" "$home/lib/python" -OO -sSP \\
	-c 'import sys; from farcore_server.main import main; sys.exit(main(sys.argv[1:]))' "$@"
"""
READY = re.compile(r"serving .* on (http://\S+)")
STARTS_WITHIN = 60.0


def main(destination: Path) -> None:
    """Fills ``destination``, which must not exist, and tries what it made."""
    for name in WITHOUT:
        sys.modules[name] = None  # type: ignore[assignment]
    import_all()
    place = destination / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (place / "lib-dynload").mkdir(parents=True)
    for module in [sys.modules[name] for name in sorted(sys.modules) if "." not in name and sys.modules[name]]:
        copy_module(module, place)
    copy_libraries(destination / "lib")
    launcher = destination / "farcored"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    attempt(launcher)


def import_all() -> None:
    """Every module of the server and of core, and what they import later on."""
    import farcore
    import farcore_server

    for package in (farcore, farcore_server):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(found.name)
    for name in LATER:
        importlib.import_module(name)


def copy_module(module: ModuleType, place: Path) -> None:
    """A module of the top level with all that its package has: what it imports late is nobody's to guess."""
    source = getattr(module, "__file__", None)
    if source is None or module.__name__ == "__main__":
        return  # built in, or this
    if not hasattr(module, "__path__"):
        copy_file(Path(source), place / Path(source).name)
        return
    root = Path(source).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and not NEVER.intersection(path.relative_to(root).parts):
            copy_file(path, place / root.name / path.relative_to(root))


def copy_file(path: Path, target: Path) -> None:
    """One file of a package, Python as byte code."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".py":
        with contextlib.suppress(py_compile.PyCompileError):  # a template, or of another version of Python
            py_compile.compile(str(path), str(target.with_suffix(".pyc")), dfile=target.name, doraise=True, optimize=2)
    elif path.suffix not in SOURCES:
        shutil.copyfile(path, target)


def copy_libraries(folder: Path) -> None:
    """What this process has mapped to run: the loader, Python itself, shared libraries under the names they are asked for."""
    mapped = {Path(path) for path in MAPPED.findall(Path("/proc/self/maps").read_text())}
    mapped = {path for path in mapped if not EXTENSION.search(path.name)}
    for path in sorted(mapped):
        if LOADER.search(path.name):
            name = "loader"
        elif path.name.startswith("python"):
            name = "python"
        else:
            name = soname(path)
        shutil.copy(path, folder / name)
    libc = next(path for path in mapped if path.name.startswith("libc.so"))
    if (late := libc.with_name(NOT_MAPPED)).exists():
        shutil.copy(late, folder / NOT_MAPPED)


def soname(path: Path) -> str:
    """The name that others ask for this library by: libz.so.1 of libz.so.1.2.13."""
    names = {link.name for link in path.parent.glob(path.name.partition(".so")[0] + ".so.*") if link.resolve() == path}
    return min(names or {path.name}, key=len)


def sample() -> bytes:
    """An ELF64 core of one page at physical address 0."""
    order = "<" if sys.byteorder == "little" else ">"
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    header = struct.pack(order + "HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack(order + "IIQQQQQQ", 1, 7, 120, 0, 0, 4096, 4096, 0)
    return ident + header + load + bytes(range(256)) * 16


def attempt(launcher: Path) -> None:
    """SystemExit unless the folder's farcored serves a dump's bytes and its page."""
    with tempfile.TemporaryDirectory() as folder:
        dump, log = Path(folder, "vmcore"), Path(folder, "log")
        dump.write_bytes(sample())
        argv = [str(launcher), "serve", str(dump), "--listen", "127.0.0.1:0", "--workers", "1", "--allow-arch", "any"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(argv, env={}, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, cwd="/")
        try:
            ask(wait(process, log), dump.read_bytes())
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise SystemExit(f"{launcher} does not serve ({error}); it said:\n{log.read_text()}") from error
        finally:
            process.terminate()
            process.wait(30)


def wait(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that it serves on; TimeoutError where it says none."""
    give_up = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < give_up and process.poll() is None:
        if found := READY.search(log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise TimeoutError("it did not start")


def ask(url: str, dump: bytes) -> None:
    """ValueError unless ranges, a batch's refusal, the page and the metrics come as they should."""
    ((found),) = json_of(fetch(f"{url}/v1/dumps"))["dumps"]
    base = f"{url}/v1/dumps/{found['id']}"
    for path, expected in (("vmcore", dump[130:200]), ("stored", dump[130:200]), ("memory/physical", dump[250:320])):
        if fetch(f"{base}/{path}", Range="bytes=130-199") != expected:
            raise ValueError(f"/{path} answers with other bytes")
    for path in (base, f"{url}/", f"{url}/metrics", f"{url}/healthz"):
        fetch(path, Accept="text/html")


def fetch(url: str, **headers: str) -> bytes:
    """The body of the answer to a GET."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
        content: bytes = response.read()
    return content


def json_of(content: bytes) -> dict[str, list[dict[str, str]]]:
    """A JSON object."""
    import json

    value: dict[str, list[dict[str, str]]] = json.loads(content)
    return value


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]).resolve())
