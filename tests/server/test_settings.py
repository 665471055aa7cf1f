"""Settings from flags, environment and file: what each takes, who wins, and that the page about them is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from farcore.errors import SettingsError
from farcore_server.kinds import Listen
from farcore_server.settings import OPTIONS, Settings, check_exposure, load, reference

# Every field: a text, the same in TOML, and what both are. A new field needs a line here.
SAMPLES: dict[str, tuple[list[str], str, object]] = {
    "paths": (["/a", "/b"], '["/a", "/b"]', ("/a", "/b")),
    "listen": (["[::1]:99"], '"[::1]:99"', Listen("::1", 99)),
    "workers": (["3"], "3", 3),
    "policy": (["kernel"], '"kernel"', "kernel"),
    "host_arch": (["i686"], '"i686"', "i386"),
    "allow_arch": (["s390x", "any"], '["s390x", "any"]', ("s390x", "any")),
    "token_file": (["/t"], '"/t"', Path("/t")),
    "tls_cert": (["/c"], '"/c"', Path("/c")),
    "tls_key": (["/k"], '"/k"', Path("/k")),
    "tls_client_ca": (["/ca"], '"/ca"', Path("/ca")),
    "insecure": (["true"], "true", True),
    "rescan": (["0.5"], "0.5", 0.5),
    "map_limit": (["512M"], '"512M"', 512 * 1024 * 1024),
    "drain": (["7"], "7", 7.0),
    "log_level": (["debug"], '"debug"', "debug"),
}
# What these need beside them.
TLS: dict[str, Any] = {"tls_cert": Path("/c"), "tls_key": Path("/k")}
BESIDE: dict[str, dict[str, Any]] = dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca"), TLS)
SEPARATORS = {"paths": ":", "allow_arch": ","}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "farcored.toml"
        path.write_text(text)
        return path

    return write


def beside(name: str) -> dict[str, list[str]]:
    return {other: [str(value)] for other, value in BESIDE.get(name, {}).items() if other != name}


def test_every_field_has_a_sample_here_and_a_help_text() -> None:
    assert SAMPLES.keys() == {each.name for each in fields(Settings)}
    assert all(re.fullmatch(r"[\w-].+\.", option.help) for option in OPTIONS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_field_can_be_set_by_flag_by_variable_and_by_file(name: str, config: Callable[[str], Path]) -> None:
    texts, toml, value = SAMPLES[name]
    expected = replace(Settings(), **{**BESIDE.get(name, {}), name: value})
    assert expected != Settings()
    assert load({**beside(name), name: texts}, {}) == expected
    assert load(beside(name), {f"FARCORE_{name.upper()}": SEPARATORS.get(name, "").join(texts)}) == expected
    assert load(beside(name), {}, config(f"{name} = {toml}\n")) == expected


def test_the_defaults_are_what_the_design_says() -> None:
    settings = load({}, {})
    assert settings == Settings()
    assert (str(settings.listen), settings.policy, settings.rescan, settings.drain) == ("127.0.0.1:8787", "cross", 5, 30)
    assert (settings.paths, settings.allow_arch, settings.insecure, settings.token_file) == ((), (), False, None)


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(config: Callable[[str], Path]) -> None:
    file = config('allow_arch = ["arm"]\nlog_level = "error"\ndrain = 1\n')
    environment = {"FARCORE_ALLOW_ARCH": "s390x, ppc64", "FARCORE_LOG_LEVEL": "warning"}
    settings = load({"allow_arch": ["mips"]}, environment, file)
    assert (settings.allow_arch, settings.log_level, settings.drain, settings.rescan) == (("mips",), "warning", 1, 5)
    assert load({}, environment, file).allow_arch == ("s390x", "ppc64")
    assert load({}, {}, file).allow_arch == ("arm",)


def test_there_is_a_worker_for_each_core_that_may_be_used_but_no_more_than_four_unless_asked_for() -> None:
    count = "from farcore_server.settings import Settings; print(Settings().worker_count, Settings(workers=7).worker_count)"
    allowed = os.sched_getaffinity(0)
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    assert done.stdout == f"{min(4, len(allowed))} 7\n"
    pinned = ["taskset", "-c", str(min(allowed)), sys.executable, "-c", count]
    assert subprocess.run(pinned, capture_output=True, text=True, check=True).stdout == "1 7\n"


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().policy = "kernel"  # type: ignore[misc]


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load({}, {option.variable: "" for option in OPTIONS}) == Settings()


def test_variables_of_the_client_and_of_other_programs_do_not_matter() -> None:
    assert load({}, {"FARCORE_TOKEN": "x", "FARCORE_REQUIRE_TOOLS": "1", "LISTEN": "x"}) == Settings()


def test_a_command_with_few_options_does_not_stumble_over_the_others() -> None:
    policy = [option for option in OPTIONS if option.name == "policy"]
    assert load({}, {"FARCORE_LISTEN": "nonsense", "FARCORE_POLICY": "kernel"}, None, policy) == Settings(policy="kernel")


def test_a_relative_path_in_the_file_starts_from_the_files_directory(config: Callable[[str], Path], tmp_path: Path) -> None:
    settings = load({}, {}, config('paths = ["crash", "/proc/vmcore", "ram@0x1000"]\ntoken_file = "tokens"\n'))
    assert settings.paths == (f"{tmp_path}/crash", "/proc/vmcore", f"{tmp_path}/ram@0x1000")
    assert settings.token_file == tmp_path / "tokens"
    assert load({"paths": ["crash"], "token_file": ["tokens"]}, {}).token_file == Path("tokens")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("0.0.0.0:65535", "0.0.0.0", 65535), ("LocalHost:80", "localhost", 80),
     ("[::1]:8787", "::1", 8787), ("[fe80::1%eth0]:1", "fe80::1%eth0", 1), ("dumps.example.org:443", "dumps.example.org", 443)],
)  # fmt: skip
def test_an_address_to_listen_on(text: str, host: str, port: int) -> None:
    listen = load({"listen": [text]}, {}).listen
    assert listen == (host, port)
    assert str(listen) == text.lower()


BAD_TEXTS = [
    *(("listen", text) for text in ("8787", ":8787", "localhost", "::1:8787", "[::1]", "[::1:80", "[1.2.3.4]:80", "[::g]:80",
                                    "h:65536", "h:-1", "h:8x", "h: 80", "a/b:80", "u@h:80", "h:80 ", "*:80", "h:８０", "")),
    *(("workers", text) for text in ("65", "-1", "2.0", "two", "0x2", " 2", "\u0662", "", "1" * 400)),
    *(("rescan", text) for text in ("0", "0.09", "3600.1", "-1", "5s", "inf", "nan", "1e1", "", "1" * 400)),
    *(("drain", text) for text in ("-1", "3601", "never")),
    *(("map_limit", text) for text in ("-1", "1.5G", "512MB", "G", "1 G", "0x10", "1P", "", "1" * 16)),
    *(("insecure", text) for text in ("maybe", "2", "tru")),
    *(("policy", text) for text in ("kernal", "Cross", "")),
    ("log_level", "trace"), ("host_arch", "x86-65"), ("host_arch", "any"), ("allow_arch", "x86-65"),
    ("token_file", "a\0b"), ("paths", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), BAD_TEXTS)
def test_what_cannot_be_taken_is_refused_by_the_name_of_its_place(name: str, text: str, config: Callable[[str], Path]) -> None:
    flag = "PATH" if name == "paths" else "--" + name.replace("_", "-")
    with pytest.raises(SettingsError) as by_flag:
        load({name: [text]}, {})
    assert str(by_flag.value).startswith(f"{flag}: ")
    if text:
        with pytest.raises(SettingsError) as by_variable:
            load({}, {f"FARCORE_{name.upper()}": text}, options=[option for option in OPTIONS if option.name == name])
        assert str(by_variable.value).startswith(f"FARCORE_{name.upper()}: ")
        assert str(by_variable.value).split(": ", 1)[1] == str(by_flag.value).split(": ", 1)[1]


def test_limits_themselves_can_be_taken() -> None:
    settings = load({"rescan": ["0.1"], "drain": ["0"], "map_limit": ["0"], "workers": ["0"]}, {})
    assert (settings.rescan, settings.drain, settings.map_limit, settings.workers) == (0.1, 0, 0, 0)
    settings = load({"rescan": ["3600"], "drain": ["3600"], "map_limit": ["1t"], "workers": ["64"]}, {})
    assert (settings.rescan, settings.drain, settings.map_limit, settings.workers) == (3600, 3600, 1099511627776, 64)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('token-file = "x"', "there is no setting 'token-file'; known are paths, listen,"),
        ("[server]\nlisten = 1", "there is no setting 'server'"),
        ("listen = 8787", "listen must be a string, found 8787"),
        ('insecure = "true"', "insecure must be true or false, found 'true'"),
        ("insecure = 1", "insecure must be true or false, found 1"),
        ("rescan = true", "rescan must be a number, found True"),
        ('rescan = "5"', "rescan must be a number, found '5'"),
        ("rescan = inf", "rescan: 'inf' is not a number of seconds"),
        ("workers = 2.0", "workers must be a whole number, found 2.0"),
        ("map_limit = 1.5", "map_limit must be a number or a string, found 1.5"),
        ("map_limit = -1", "map_limit: '-1' is not a size"),
        ('paths = "/var/crash"', "paths must be a list, found '/var/crash'"),
        ('allow_arch = ["arm", 7]', "allow_arch must be a string, found 7"),
        ('policy = "both"', "policy: 'both' is none of kernel, cross"),
        ('token_file = ""', "token_file: an empty path names no file"),
        ('paths = [""]', "paths: an empty path names no file"),
        ("listen = ", "this is not TOML"),
        ('policy = "cross"\npolicy = "cross"', "this is not TOML"),
        ("x = " + "[" * 5000, "this is not TOML"),
    ],
)
def test_a_file_that_cannot_be_taken_is_named_with_the_key(text: str, why: str, config: Callable[[str], Path]) -> None:
    path = config(text)
    with pytest.raises(SettingsError, match=re.escape(why)) as caught:
        load({}, {}, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, why in (("missing", "No such file"), ("", "Is a directory"), ("binary", "not TOML")):
        with pytest.raises(SettingsError, match=why):
            load({}, {}, tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"tls_cert": Path("c")}, "go together"),
        ({"tls_key": Path("k")}, "go together"),
        ({"tls_client_ca": Path("ca")}, "--tls-cert and --tls-key as well"),
        ({"policy": "kernel", "allow_arch": ("arm",)}, "--allow-arch"),
        ({"allow_arch": ("vax",)}, "'vax'"),
    ],
)
def test_values_that_do_not_go_together_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        Settings(**wrong)


def test_the_arch_rules_are_those_of_the_named_host_and_policy() -> None:
    host, policy = load({"host_arch": ["i586"], "policy": ["cross"], "allow_arch": ["s390x"]}, {}).arch_rules()
    assert (host.name, policy.name, set(policy.allow)) == ("i386", "cross", {"s390x"})


LOOPBACK = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"]
EXPOSED = [
    "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "example.org:1", "localhost.example:1",
    "127.1:1", "0:1",
]  # fmt: skip


@pytest.mark.parametrize("address", LOOPBACK)
def test_a_loopback_address_may_be_served_without_credentials(address: str) -> None:
    check_exposure(load({"listen": [address]}, {}))


@pytest.mark.parametrize("address", EXPOSED)
def test_an_address_that_others_reach_is_refused_and_the_three_ways_out_are_named(address: str) -> None:
    settings = load({"listen": [address]}, {})
    with pytest.raises(SettingsError) as caught:
        check_exposure(settings)
    assert all(way in str(caught.value) for way in (address, "--token-file", "--tls-client-ca", "--insecure"))
    ways: list[dict[str, Any]] = [{"token_file": Path("t")}, {"tls_client_ca": Path("ca"), **TLS}, {"insecure": True}]
    for way in ways:
        check_exposure(replace(settings, **way))
    with pytest.raises(SettingsError):
        check_exposure(replace(settings, **TLS))


def test_whose_host_is_answered_follows_from_what_is_asked() -> None:
    assert Settings().own_hosts == "loopback"
    assert Settings(insecure=True).own_hosts == "address"
    assert Settings(insecure=True, tls_client_ca=Path("ca"), **TLS).own_hosts == "any"


def test_the_page_is_the_one_that_the_fields_make() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    made = "python -c 'from farcore_server.settings import reference; print(reference(), end=\"\")' > docs/settings.md"
    assert page.read_text() == reference(), f"make it again: {made}"


def test_the_page_names_every_field_in_its_three_spellings_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = {row[3]: row for row in (re.split(r" \| |^\| | \|$", line) for line in page.splitlines() if line.startswith("| `"))}
    assert {name.strip("`") for name in rows} == SAMPLES.keys()
    for name in SAMPLES:
        _, flag, variable, key, *_ = rows[f"`{name}`"]
        assert flag.startswith("`PATH" if name == "paths" else f"`--{name.replace('_', '-')}")
        assert (variable, key) == (f"`FARCORE_{name.upper()}`", f"`{name}`")
    assert "`127.0.0.1:8787`" in rows["`listen`"]
