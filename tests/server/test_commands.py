"""with_settings: a command that is given Settings, called as from a shell."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from farcore.errors import SettingsError
from farcore_server.commands import with_settings
from farcore_server.kinds import Listen
from farcore_server.settings import OPTIONS, Settings

seen: list[Settings] = []


@click.command()
@with_settings()
def whole(settings: Settings) -> None:
    seen.append(settings)


@click.command()
@click.option("--json", "as_json", is_flag=True)
@with_settings("paths", "policy", "allow_arch")
def some(settings: Settings, as_json: bool) -> None:
    assert as_json
    seen.append(settings)


def run(command: click.Command, *arguments: str, **environment: str | None) -> Settings:
    """The Settings that the command was called with; the SettingsError that it was not called for."""
    unset = {option.variable: None for option in OPTIONS}
    CliRunner().invoke(command, arguments, env=unset | environment, catch_exceptions=False, standalone_mode=False)
    return seen.pop()


def test_a_command_without_arguments_has_the_defaults() -> None:
    assert run(whole) == Settings()


def test_every_field_has_a_flag_and_the_paths_are_arguments() -> None:
    flags = ["--listen", "[::1]:1", "--policy", "cross", "--host-arch", "i686", "--allow-arch", "arm", "--allow-arch=s390x"]
    flags += ["--token-file", "t", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a", "--insecure"]
    flags += ["--rescan", "1", "--map-limit", "1K", "--drain", "2", "--log-level", "error", "--workers", "4", "one", "two"]
    assert run(whole, *flags) == Settings(
        paths=("one", "two"),
        listen=Listen("::1", 1),
        policy="cross",
        host_arch="i386",
        allow_arch=("arm", "s390x"),
        token_file=Path("t"),
        tls_cert=Path("c"),
        tls_key=Path("k"),
        tls_client_ca=Path("a"),
        insecure=True,
        rescan=1,
        map_limit=1024,
        drain=2,
        log_level="error",
        workers=4,
    )


def test_config_names_a_file_and_the_environment_counts(tmp_path: Path) -> None:
    config = tmp_path / "farcored.toml"
    config.write_text('insecure = true\nlog_level = "error"\ndrain = 1\n')
    settings = run(whole, "--config", str(config), "--drain", "3", FARCORE_LOG_LEVEL="debug")
    assert settings == Settings(insecure=True, log_level="debug", drain=3)


def test_a_command_with_some_fields_has_these_alone() -> None:
    assert run(some, "--json", "--policy", "kernel", "x", FARCORE_LISTEN="nonsense") == Settings(paths=("x",), policy="kernel")
    for other in ("--listen", "--config"):
        with pytest.raises(click.NoSuchOption):
            run(some, other, "x")


def test_what_cannot_be_taken_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="--rescan: 'soon'"):
        run(whole, "--rescan", "soon")
    with pytest.raises(SettingsError, match="FARCORE_DRAIN: 'soon'"):
        run(whole, FARCORE_DRAIN="soon")


def test_the_help_names_variable_and_default_of_a_flag() -> None:
    shown = " ".join(CliRunner().invoke(whole, ["--help"]).output.split())
    assert "--listen HOST:PORT" in shown
    assert "[FARCORE_LISTEN; default 127.0.0.1:8787]" in shown
    assert "--insecure Serve" in shown
