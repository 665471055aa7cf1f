"""Debian packages without installing them: an apt of our own per release and architecture, beside the machine's.

The machine's own dpkg stays as it is but for `need`, which installs the programs that the recipe runs.
Which mirrors to ask comes from the machine's own sources: no host is named here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .outdir import OutDir, say

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The Debian release after this machine's: its kernel is 6.12, its crash 8.0.6, its gdb 16.3.
LATER = "trixie"
PROGRAMS = {
    "curl": "curl",
    "gcc": "gcc libc6-dev",
    "gdb": "gdb",
    "gdb-multiarch": "gdb-multiarch",
    "makedumpfile": "makedumpfile",
    "objcopy": "binutils",
    "openssl": "openssl",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-ppc": "qemu-system-ppc",
    "qemu-system-ppc64": "qemu-system-ppc",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-system-s390x": "qemu-system-misc",
    "qemu-system-x86_64": "qemu-system-x86",
    "readelf": "binutils",
    "strace": "strace",
    "zstd": "zstd",
}


def run(out: OutDir, log: str, *argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Output of a program; its errors go to a log, and a failure says which."""
    path = out.log(log)
    with path.open("ab") as errors:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=errors, env=env, stdin=subprocess.DEVNULL)
    if done.returncode:
        tail = path.read_text(errors="replace")[-400:].strip()
        raise SystemExit(f"{argv[0]} failed ({done.returncode}), see {path}: {tail}")
    return done.stdout.decode(errors="replace")


def need(out: OutDir, *programs: str) -> None:
    """Installs the packages of the programs that this machine lacks."""
    packages = {p for name in programs if not shutil.which(name) for p in PROGRAMS[name].split()}
    if packages:
        install(out, *sorted(packages))


def install(out: OutDir, *packages: str) -> None:
    """apt-get install, for root; anybody else is told what to ask for."""
    say(f"apt-get install {' '.join(packages)}")
    if os.geteuid():
        raise SystemExit(f"as root: apt-get install {' '.join(packages)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(out, "apt-host", "apt-get", "update", "-qq", env=quiet)
    run(out, "apt-host", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, env=quiet)


@dataclass(frozen=True, slots=True)
class Apt:
    """Packages of one architecture, of this machine's Debian release or of the named one."""

    out: OutDir
    architecture: str
    release: str = ""

    @property
    def home(self) -> Path:
        return self.out.cache / "apt" / f"{self.release or 'same'}-{self.architecture}"

    def _run(self, *argv: str) -> str:
        env = os.environ | {"APT_CONFIG": str(self._config()), "LC_ALL": "C"}
        return run(self.out, f"apt-{self.home.name}", *argv, env=env)

    def _config(self) -> Path:
        """apt's configuration; its package lists are fetched when it is made."""
        config = self.home / "apt.conf"
        if config.exists():
            return config
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "sources.list").write_text(_sources(self.out, self.release))
        (self.home / "status").touch()
        fresh = self.home / "apt.conf.new"
        fresh.write_text(
            f'Dir::State::lists "{self.home}/lists";\nDir::State::status "{self.home}/status";\n'
            f'Dir::Cache "{self.home}/cache";\nDir::Etc::sourcelist "{self.home}/sources.list";\n'
            'Dir::Etc::sourceparts "-";\nDir::Etc::preferences "-";\nDir::Etc::preferencesparts "-";\n'
            f'APT::Architecture "{self.architecture}";\nAPT::Architectures {{ "{self.architecture}"; }};\n'
            'APT::Sandbox::User "root";\nAPT::Keep-Downloaded-Packages "true";\nAcquire::Languages "none";\n'
        )
        self._update(fresh)
        fresh.rename(config)
        return config

    def _update(self, config: Path) -> None:
        """Fetches the package lists. A mirror may lack some (a pocket in the midst of its sync): one is enough."""
        with self.out.log(f"apt-{self.home.name}").open("ab") as log:
            env = os.environ | {"APT_CONFIG": str(config)}
            done = subprocess.run(["apt-get", "update", "-qq"], env=env, stdout=log, stderr=log)
        if not any((self.home / "lists").glob("*_Packages*")):
            raise SystemExit(f"apt-get update had no list of packages, see {log.name}")
        if done.returncode:
            say(f"some package lists for {self.home.name} could not be had, see {log.name}")

    def depends(self, package: str, prefix: str) -> str:
        """The first package that `package` depends on whose name starts with `prefix`."""
        for line in self._run("apt-cache", "depends", package).splitlines():
            what, _, name = line.strip().partition(": ")
            if what.endswith("Depends") and name.startswith(prefix):
                return name
        raise SystemExit(f"{package} depends on nothing named {prefix}*")

    def download(self, package: str) -> list[Path]:
        """The package and all it depends on, as .deb files."""
        folder = self.home / "closure" / package
        if not folder.exists():
            (folder.with_suffix(".new") / "partial").mkdir(parents=True, exist_ok=True)
            self._run(
                *("apt-get", "install", "-y", "-qq", "--download-only", "--no-install-recommends"),
                *("-o", f"Dir::Cache::archives={folder.with_suffix('.new')}", package),
            )
            folder.with_suffix(".new").rename(folder)
        return sorted(folder.glob("*.deb"))

    def deb(self, package: str) -> Path:
        """The package alone, as a .deb file."""
        folder = self.home / "debs"
        folder.mkdir(parents=True, exist_ok=True)
        if not (found := sorted(folder.glob(f"{package}_*.deb"))):
            self._run("sh", "-c", 'cd "$1" && apt-get download -qq "$2"', "sh", str(folder), package)
            found = sorted(folder.glob(f"{package}_*.deb"))
        return found[0]

    def unpack(self, *debs: Path, into: Path | None = None) -> Path:
        """The folder (one for each Apt, unless named) into which these packages are unpacked, beside what is there."""
        root = into or self.home / "root"
        marks = root.with_name(root.name + ".unpacked")
        for folder in (root, marks):
            folder.mkdir(parents=True, exist_ok=True)
        for deb in debs:
            if not (marks / deb.name).exists():
                run(self.out, f"apt-{self.home.name}", "dpkg-deb", "--extract", deb, root)
                (marks / deb.name).touch()
        return root


def _sources(out: OutDir, release: str) -> str:
    """A sources.list of the machine's own Debian mirrors, for another release if one is named."""
    if not (mirrors := _mirrors(out)) and not os.geteuid():
        run(out, "apt-host", "apt-get", "update", "-qq")  # a fresh container has no lists, and they know whose they are
        mirrors = _mirrors(out)
    if not mirrors:
        raise SystemExit("this machine's apt knows no Debian mirror (apt-get update first?)")
    lines: set[str] = set()
    for codename, site in mirrors:
        own, dash, pocket = codename.partition("-")
        lines.add(f"deb [signed-by={KEYRING}] {site} {release or own}{dash}{pocket} main\n")
    return "".join(sorted(lines))


def _mirrors(out: OutDir) -> set[tuple[str, str]]:
    """Code name (bookworm, bookworm-security ...) and address of this machine's Debian sources."""
    form = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(SITE)"
    found = run(out, "apt-host", "apt-get", "indextargets", "--format", form, "Identifier: Packages")
    rows = [line.split("|") for line in found.splitlines()]
    return {(codename, site) for origin, component, codename, site in rows if (origin, component) == ("Debian", "main")}
