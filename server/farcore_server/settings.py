"""What can be set, once: a field of Settings makes its flag, its environment variable, its TOML key and its line in the docs.

A flag wins over the environment, that over the file given with --config, and that over the default; nothing is merged.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from farcore.errors import SettingsError
from farcore_server.kinds import (
    ALLOW_ARCH,
    DUMP_PATH,
    FILE,
    HOST_ARCH,
    LISTEN,
    SIZE,
    SWITCH,
    Kind,
    Listen,
    choice,
    seconds,
    whole,
)

if TYPE_CHECKING:
    from farcore.arch import Policy
    from farcore.hosts import Host

# Each has a catalogue, a search of the directories and a row of counters of its own: more than cores only cost.
MAX_WORKERS: Final = 64

# Which Host a server that asks for no token answers to: loopback names; these and any address, which unlike a name cannot
# be rebound; or whatever comes, where TLS asks for a client's certificate.
Hosts = Literal["loopback", "address", "any"]


def _set_by(kind: Kind, text: str, separator: str = "") -> dict[str, object]:
    return {"kind": kind, "help": text, "separator": separator}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, checked; SettingsError where two values do not go together."""

    paths: tuple[str, ...] = field(
        default=(),
        metadata=_set_by(DUMP_PATH, "Dump files, directories to search, or /proc/vmcore.", ":"),
    )
    listen: Listen = field(
        default=Listen("127.0.0.1", 8787),
        metadata=_set_by(LISTEN, "Where to listen; port 0 takes a free one."),
    )
    workers: int = field(
        default=0,
        metadata=_set_by(whole(0, MAX_WORKERS), "Processes that serve; 0 starts one per core, at most 4."),
    )
    policy: Literal["kernel", "cross"] = field(
        default="cross",
        metadata=_set_by(
            choice("kernel", "cross"), "kernel: serve only what the crash kernel would take; cross: any sound header."
        ),
    )
    host_arch: str | None = field(
        default=None,
        metadata=_set_by(HOST_ARCH, "Check headers as this machine would (a name of uname -m); by default the one it runs on."),
    )
    allow_arch: tuple[str, ...] = field(
        default=(),
        metadata=_set_by(ALLOW_ARCH, "Serve dumps of this machine as well (any: of every one); may be repeated.", ","),
    )
    token_file: Path | None = field(
        default=None,
        metadata=_set_by(FILE, "The tokens, one of which every request needs; `farcored token` keeps them."),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_set_by(FILE, "Serve HTTPS with this certificate chain (PEM)."),
    )
    tls_key: Path | None = field(
        default=None,
        metadata=_set_by(FILE, "The key of the certificate (PEM, not encrypted)."),
    )
    tls_client_ca: Path | None = field(
        default=None,
        metadata=_set_by(FILE, "Admit only clients whose certificate one of these CAs (PEM) signed."),
    )
    insecure: bool = field(
        default=False,
        metadata=_set_by(SWITCH, "Serve other machines, by address, although nothing is asked of them."),
    )
    rescan: float = field(
        default=5.0,
        metadata=_set_by(seconds(0.1, 3600), "How often directories are searched for changes."),
    )
    map_limit: int = field(
        default=0,
        metadata=_set_by(SIZE, "Address space for maps of dumps, such as 512M; 0 lets the machine decide."),
    )
    drain: float = field(
        default=30.0,
        metadata=_set_by(seconds(0, 3600), "How long running streams may go on after SIGTERM."),
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info",
        metadata=_set_by(choice("debug", "info", "warning", "error"), "The least that is logged, on stderr."),
    )

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert and --tls-key go together: give both or neither")
        if self.tls_client_ca and not self.tls_cert:
            raise SettingsError("--tls-client-ca asks for certificates in TLS: give --tls-cert and --tls-key as well")
        if self.allow_arch:
            self.arch_rules()

    @property
    def own_hosts(self) -> Hosts:
        """The Host values that are this server's own where no token is asked for."""
        return "any" if self.tls_client_ca else "address" if self.insecure else "loopback"

    @property
    def worker_count(self) -> int:
        """The workers to start: as many as were asked for, else one per core that this process may use, at most 4."""
        return self.workers or min(4, len(os.sched_getaffinity(0)))

    def arch_rules(self) -> tuple[Host, Policy]:
        """What farcore.arch.check() asks for; SettingsError for names or a combination that it does not take."""
        from farcore.arch import Policy
        from farcore.hosts import host, this_host

        return host(self.host_arch) if self.host_arch else this_host(), Policy(self.policy, frozenset(self.allow_arch))


@dataclass(frozen=True, slots=True)
class Option:
    """A field of Settings as a flag, a variable and a key; ``separator`` stands between many values in a variable."""

    name: str
    default: object
    kind: Kind
    help: str
    separator: str

    @property
    def flag(self) -> str:
        """--allow-arch; the paths are the command's arguments."""
        return "PATH" if self.name == "paths" else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """FARCORE_ALLOW_ARCH."""
        return "FARCORE_" + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default for a person, "" where there is none."""
        if isinstance(self.default, bool | None) or self.default == ():
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def many(self) -> bool:
        """Whether the value is a tuple."""
        return bool(self.separator)

    def value(self, texts: Sequence[str], where: str) -> object:
        """What one text, or many where many may come, stand for; SettingsError says ``where`` it was written."""
        try:
            values = tuple(self.kind.parse(text) for text in texts)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
        return values if self.many else values[0]


OPTIONS: Final = tuple(Option(each.name, each.default, **each.metadata) for each in fields(Settings))


def load(
    flags: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    config: Path | None = None,
    options: Sequence[Option] = OPTIONS,
) -> Settings:
    """The Settings of these texts: ``flags`` by field name, variables by theirs, a TOML file; SettingsError names the place.

    Only ``options`` are looked for in the environment; an empty variable counts as unset.
    """
    values = _of_file(config) if config else {}
    for option in options:
        if text := environment.get(option.variable):
            parts = [part.strip() for part in text.split(option.separator)] if option.many else [text]
            values[option.name] = option.value(parts, option.variable)
        if texts := flags.get(option.name):
            values[option.name] = option.value(texts, option.flag)
    return Settings(**values)


def _of_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: this is not TOML: {error}") from None
    known = {option.name: option for option in OPTIONS}
    if unknown := sorted(table.keys() - known):
        raise SettingsError(f"{path}: there is no setting {unknown[0]!r}; known are {', '.join(known)}")
    return {key: known[key].value(_texts(known[key], found, path), f"{path}: {key}") for key, found in table.items()}


def _texts(option: Option, found: object, path: Path) -> list[str]:
    # A TOML value as the text that a flag would have: the readers are the same, so what they take is the same.
    if option.many and not isinstance(found, list):
        raise SettingsError(f"{path}: {option.name} must be a list, found {found!r:.60}")
    items: list[Any] = found if option.many and isinstance(found, list) else [found]
    for item in items:
        if type(item) not in option.kind.toml:
            raise SettingsError(f"{path}: {option.name} must be {option.kind.noun}, found {item!r:.60}")
    return [str(path.parent / item) if option.kind.path and item else str(item) for item in items]


def check_exposure(settings: Settings) -> None:
    """SettingsError unless whoever can reach the address is asked for something, or --insecure says that nobody need be."""
    asked = settings.token_file or settings.tls_client_ca
    if not (settings.listen.loopback or asked or settings.insecure):
        raise SettingsError(
            f"{settings.listen} can be reached from other machines, and a dump is the memory of one: give --token-file FILE"
            " or --tls-client-ca FILE, or --insecure if everyone who gets there may read everything"
        )


_PAGE: Final = """\
# Settings of farcored

Each can be given in four places. A flag wins over the environment, the environment over the file named by `--config FILE`
(TOML), and that over the default. Nothing is merged: a list replaces the list below it. An empty variable counts as unset.

| Flag | Variable | Key in the file | Default | What it does |
|---|---|---|---|---|
{rows}

Several values stand in a list in the file (`allow_arch = ["s390x", "ppc64"]`), in one variable with a comma between them,
paths with a colon. A relative path in the file starts from the file's own directory. A size is a number of bytes, or a
number with K, M, G or T (powers of 1024); in the file that is a string, `map_limit = "512M"`.

An address that other machines reach is refused unless something is asked of them: `--token-file`, or `--tls-client-ca`;
or unless `--insecure` says that everyone may read everything. With both, both are asked. Without either, a request's Host
must be localhost, 127.0.0.0/8 or [::1], at any port, so that no web page can reach the server by a name of its own (DNS
rebinding); under `--insecure` any address will do, but no other name.

## The token file

`farcored token add NAME` makes a token and prints it, once; `list` shows names and dates, `revoke NAME` drops one. A server
notices at its next request. It is a text file with one line a token, and may be written by hand:

    NAME CREATED SHA256

CREATED is a date, SHA256 the digest of the token in lower-case hex (`printf %s "$TOKEN" | sha256sum`); the token itself is
not kept. Empty lines and lines that start with `#` stay as they are. While the file cannot be read, or a line is wrong, no
token is accepted, and the log says why.
"""


def reference() -> str:
    """The text of docs/settings.md."""
    rows = []
    for option in OPTIONS:
        usage = f"{option.flag} {option.kind.metavar}".strip() if option.flag.startswith("-") else f"{option.flag}..."
        default = f"`{option.shown_default}`" if option.shown_default else ""
        cells = (f"`{usage}`", f"`{option.variable}`", f"`{option.name}`", default, option.help)
        rows.append(" ".join(f"| {cell}" for cell in (each.replace("|", r"\|") for each in cells)) + " |")
    return _PAGE.format(rows="\n".join(rows))
