"""The routes of a live server: what each answers, what each is described to answer, and what none of them gives away."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.access import Access
from farcore_server.app import make_app
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
from farcore_server.metrics import Metrics
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.http1 import Answer, Connection
from tests.live import Live, Serve
from tests.served import listed

DESCRIPTION: dict[str, Any] = json.loads((files("farcore_server") / "openapi.json").read_bytes())
NOTES = note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1.0\nCRASHTIME=1700000000\n"))
LOADS = [load(b"page", paddr=0x1000 * n, memsz=0x1000) for n in range(300)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Live:
    folder = tmp_path_factory.mktemp("dumps")
    (folder / "b").mkdir()
    File([NOTES, *LOADS]).write(folder / "b" / "vmcore")
    (folder / "b" / "vmcore-dmesg.txt").write_text("[    0.000000] hello\n")
    File([NOTES, *LOADS], machine=40).write(folder / "vmcore-foreign")
    (folder / "vmcore-text").write_bytes(b"hello")
    return serve_all_along(folder, "--host-arch", "x86_64", "--rescan", "3600", "--workers", "1")


@pytest.fixture
def server(live: Live) -> Iterator[Connection]:
    with Connection(live.url) as connection:
        yield connection


@pytest.fixture
def link(server: Connection) -> str:
    found: str = listed(server)["b/vmcore"]["links"]["self"]
    return found


def test_openapi_json_is_valid_openapi_and_is_what_the_server_sends(server: Connection) -> None:
    validate(DESCRIPTION)
    answer = server.get("/openapi.json")
    assert (answer.get("Content-Type"), json.loads(answer.body)) == ("application/json", DESCRIPTION)


def test_openapi_json_has_the_routes_that_there_are_and_no_others() -> None:
    rules = Rules(host("x86_64"), Policy())
    app = make_app(Catalogue([], rules), Access(None), Metrics())
    routes = {(route.resource.canonical, route.method.lower()) for route in app.router.routes() if route.resource is not None}
    described = {(path, method) for path, item in DESCRIPTION["paths"].items() for method in item if method != "parameters"}
    # Every GET can be a HEAD; it is described where the fields are what one wants.
    assert {each for each in routes if each[1] != "head"} == {each for each in described if each[1] != "head"}
    assert {each for each in described if each[1] == "head"} <= {each for each in routes if each[1] == "head"}


def conform(said: object, schema: str) -> None:
    """Whether ``said`` is as a schema of openapi.json has it, and has no member that it does not name."""
    OAS31Validator({**DESCRIPTION, "$ref": f"#/components/schemas/{schema}"}).validate(said)


def test_what_is_said_of_a_dump_is_as_described(server: Connection) -> None:
    dumps = listed(server)
    assert list(dumps) == ["b/vmcore", "vmcore-foreign", "vmcore-text"]
    for brief in dumps.values():
        conform(brief, "Brief")
        assert json.loads(server.get(f"{brief['links']['self']}?brief").body) == brief
        assert brief.keys() == set(DESCRIPTION["components"]["schemas"]["Brief"]["properties"])
        full = json.loads(server.get(brief["links"]["self"]).body)
        conform(full, "Dump")
        assert full.keys() == set(DESCRIPTION["components"]["schemas"]["Dump"]["properties"])


def test_every_error_is_a_problem_as_described(server: Connection, link: str) -> None:
    refused = listed(server)["vmcore-text"]["links"]["self"]
    asked: list[tuple[str, str, dict[str, str], int, str]] = [
        ("GET", "/nothing", {}, 404, "not-found"),
        ("GET", "/v1/dumps/nobody-00000000", {}, 404, "no-such-dump"),
        ("GET", "/v1/dumps/..%2f..%2fetc%2fpasswd", {}, 404, "no-such-dump"),
        ("GET", "/v1/dumps/../../etc/passwd", {}, 404, "not-found"),
        ("GET", f"{link}/memory/physical", {"Range": "bytes=4-9"}, 404, "unmapped"),
        ("GET", f"{link}/memory/physical?fill=x", {}, 400, "bad-fill"),
        ("GET", f"{link}/vmcore", {"Range": "bytes=999999-"}, 416, "unsatisfiable"),
        ("GET", f"{link}/vmcore", {"If-Match": '"x"'}, 412, "changed"),
        ("GET", f"{refused}/vmcore", {}, 422, "refused"),
        ("PUT", f"{link}/vmcore", {}, 405, "method-not-allowed"),
        ("OPTIONS", "/v1/dumps", {}, 405, "method-not-allowed"),
        ("GET", "/v1/dumps", {"Host": "evil.example"}, 421, "misdirected"),
    ]
    for method, target, fields, status, slug in asked:
        answer = server.request(method, target, fields)
        assert (answer.status, answer.get("Content-Type")) == (status, "application/problem+json"), target
        said = json.loads(answer.body)
        conform(said, "Fault" if slug == "unmapped" else "Problem")
        assert (said["type"], said["status"]) == (f"/problems/{slug}", status)
        assert re.fullmatch(r"[^\n]{10,250}", said["detail"])
        if target.startswith((link, refused)) and status != 405:
            assert said["dump"] == target.split("/")[3].partition("?")[0]
        if status in (404, 422):
            assert answer.get("Cache-Control") == "no-store"


def test_no_answer_says_what_the_server_runs_on_or_may_be_kept_by_others(server: Connection, link: str) -> None:
    for target in (
        "/",
        "/v1/dumps",
        link,
        f"{link}/vmcore",
        f"{link}/stored",
        "/nothing",
        "/healthz",
        "/metrics",
        "/openapi.json",
    ):
        answer = server.get(target)
        assert re.fullmatch(r"farcore/[0-9.]+\S*", answer.get("Server") or "")
        if target.startswith(("/v1", "/nothing")) or target == "/":
            assert answer.get("Cache-Control") in ("private, no-cache", "no-store")


def test_a_browser_gets_a_page_and_everyone_else_json(server: Connection, link: str) -> None:
    page = server.get(link, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    data = server.get(link, Accept="*/*")
    assert (page.get("Content-Type"), data.get("Content-Type")) == (
        "text/html; charset=utf-8",
        "application/json; charset=utf-8",
    )
    assert (page.get("Vary"), data.get("Vary")) == ("Accept", "Accept")
    assert b"and 100 more; all of them in the JSON" in page.body
    assert page.body.count(b"<tr><td>0x") == 200
    assert len(json.loads(data.body)["segments"]) == 300
    catalogue = server.get("/")
    assert catalogue.get("Content-Type") == "text/html; charset=utf-8"
    for name in ("b/vmcore", "vmcore-foreign", "no dump format starts with"):
        assert name.encode() in catalogue.body


@pytest.mark.parametrize("target", ["/", "/v1/dumps", "", "/healthz", "/metrics", "/openapi.json"])
def test_a_head_of_a_description_has_no_body(server: Connection, link: str, target: str) -> None:
    head = server.head(target or link)
    assert (head.status, head.get("Content-Type")) == (200, server.get(target or link).get("Content-Type"))


def test_health_and_readiness_say_so(server: Connection) -> None:
    assert [server.get(each).body for each in ("/healthz", "/readyz")] == [b"ok\n", b"ready\n"]


def counted(answer: Answer) -> dict[str, float]:
    """Samples of the Prometheus text format by name and labels."""
    lines = answer.body.decode().splitlines()
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_metrics_count_answers_bytes_and_dumps(server: Connection, link: str) -> None:
    before = counted(server.get("/metrics"))
    for _ in range(10):
        assert server.get(f"{link}/vmcore", Range="bytes=10-109").status == 206
    assert server.get(f"{link}/stored", Range="bytes=999999-").status == 416
    assert server.get("/nothing").status == 404
    after = counted(server.get("/metrics"))
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert grown.pop('farcore_requests_total{route="metrics",status="200"}') == 1
    assert grown == {
        'farcore_requests_total{route="vmcore",status="206"}': 10,
        'farcore_sent_bytes_total{route="vmcore"}': 1000,
        'farcore_requests_total{route="stored",status="416"}': 1,
        'farcore_requests_total{route="none",status="404"}': 1,
    }
    assert (after['farcore_dumps{state="ready"}'], after['farcore_dumps{state="refused"}']) == (1, 2)


def test_a_request_body_is_read_past_and_not_taken_for_a_request(server: Connection) -> None:
    answer = server.request("POST", "/v1/dumps", {}, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 405
    assert server.get("/healthz").body == b"ok\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_the_end_of_the_connection_without_a_word_in_the_log(live: Live, raw: bytes) -> None:
    before = live.stderr
    with Connection(live.url) as server:
        server.send(raw)
        answer = server.answer()
        assert (answer.status, server.hung_up()) == (400, True)
    assert answer.get("Content-Type") == "application/problem+json"
    assert json.loads(answer.body)["type"] == "/problems/bad-request"
    assert (answer.get("Server") or "").startswith("farcore/")
    assert live.stderr == before


def test_thousands_of_dumps_are_listed_while_others_are_answered(tmp_path: Path, serve: Serve) -> None:
    for number in range(3_000):
        (tmp_path / f"vmcore-{number:05}").write_bytes(b"not a dump")
    live = serve(tmp_path, "--host-arch", "x86_64", "--workers", "1", "--rescan", "3600")
    with Connection(live.url) as server, Connection(live.url) as other:
        server.ask("GET", "/v1/dumps")
        head = server.answer_head()
        # The list has begun, and is far from its end: it is made while it is sent.
        assert (head.status, head.get("Transfer-Encoding")) == (200, "chunked")
        assert other.get("/healthz").body == b"ok\n"
    with Connection(live.url) as server:
        assert len(listed(server)) == 3_000
        assert server.get("/").body.count(b"<tr>") == 3_001


def test_the_links_of_a_dump_lead_where_they_say(server: Connection) -> None:
    said = listed(server)["b/vmcore"]
    for name, target in said["links"].items():
        assert target.startswith(f"/v1/dumps/{said['id']}"), name
        assert server.head(target).status == 200
