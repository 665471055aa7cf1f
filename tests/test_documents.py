"""The documents' promises: each has a test that exists, and names what the server has."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SENTENCE = re.compile(r"- .+[.] <!-- ((?:test_\w+ ?)+)-->")


def existing() -> set[str]:
    """The names of all test functions."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of every table's rows, heads and rules left out."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rules = [i for i, line in enumerate(lines) if set("".join(line)) <= set("-: ")]
    heads = {i - 1 for i in rules}
    return [[cell.strip() for cell in line] for i, line in enumerate(lines) if i not in heads and i not in rules]


def test_every_sentence_of_behaviour_md_names_a_test_that_exists() -> None:
    lines = [line for line in (DOCS / "behaviour.md").read_text().splitlines() if line and not line.startswith("#")][1:]
    named: list[str] = []
    for line in lines:
        match = SENTENCE.fullmatch(line)
        assert match, line
        named += match[1].split()
    assert len(lines) > 40
    assert sorted(set(named) - existing()) == []


def test_every_threat_names_a_test_that_exists() -> None:
    table = rows((DOCS / "threat-model.md").read_text())
    named = {tuple(re.findall(r"`(test_\w+)`", row[2])) for row in table}
    assert len(table) > 15
    assert all(named)
    assert sorted({name for names in named for name in names} - existing()) == []


def openapi() -> dict[str, Any]:
    described: dict[str, Any] = json.loads((ROOT / "server/farcore_server/openapi.json").read_text())
    return described


def test_protocol_md_has_every_resource_and_every_field_of_openapi_json() -> None:
    text = (DOCS / "protocol.md").read_text()
    cells = [row for row in rows(text) if len(row) == 3]
    resources = {path for row in cells if row[0].startswith(("GET", "POST")) for path in re.findall(r"`(/\S*)`", row[1])}
    assert resources == set(openapi()["paths"])
    dump = text.partition("## Dump\n")[2].partition("\n## ")[0]
    fields = [row[0].strip("`") for row in rows(dump)]
    schema = openapi()["components"]["schemas"]["Dump"]["properties"]
    assert fields == [*schema, *schema["verdict"]["properties"]]
    terms = re.search(r"^The terms: (.+)\.$", text, re.MULTILINE)
    assert terms
    assert re.findall(r"`([a-z-]+)`", terms[1]) == openapi()["components"]["schemas"]["Term"]["properties"]["name"]["enum"]


def test_protocol_md_has_the_types_of_problems_that_the_server_makes() -> None:
    told = {
        match[1] for row in rows((DOCS / "protocol.md").read_text()) if (match := re.match(r"`/problems/([a-z-]+)`", row[0]))
    }
    sources = "".join(path.read_text() for path in sorted((ROOT / "server").rglob("*.py")))
    # What aiohttp raises for a path or a method that is not there is named after its class.
    made = told - {"not-found", "method-not-allowed"}
    assert len(told) > 10
    assert sorted(slug for slug in made if f'"{slug}"' not in sources) == []
