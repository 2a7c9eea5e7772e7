"""Every rule in `rules/` names tests that exist; no section of the specification is left out."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
RULES = Path(__file__).parent / "rules"
SECTIONS = range(1, 19)
OTHER_PAGES = {"metrics 4": range(1, 8), "scheduling 16": range(1, 11)}
MARKS = {"K", "F", "O"}
_ROW = re.compile(
    r"^\| *(?P<number>(?:[a-z]+ )?\d+(?:\.\d+)*) *\|(?P<rule>.+)\| *(?P<mark>\w+) *"
    r"\|(?P<tests>[^|]*)\|$"
)


@dataclass(frozen=True)
class Rule:
    number: str  # section, subsection, row; of another page behind its name
    text: str
    mark: str
    tests: tuple[str, ...]


def read_rules(pattern: str) -> list[Rule]:
    rules = []
    for path in sorted(RULES.glob(pattern)):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"^\|[^|]*\d *\|", line):
                row = _ROW.match(line)
                assert row is not None, f"{path.name}: not a row of four columns: {line}"
                tests = tuple(re.findall(r"`([^`]+)`", row["tests"]))
                rules.append(Rule(row["number"], row["rule"].strip(), row["mark"], tests))
    return rules


ALL = read_rules("[0-9]*.md")
OTHERS = read_rules("other-pages.md")


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("rule", [*ALL, *OTHERS], ids=lambda rule: rule.number)
def test_a_rule_is_shown_by_tests_that_exist(rule: Rule) -> None:
    assert rule.mark in MARKS
    assert rule.tests, f"{rule.number} names no test"
    for test in rule.tests:
        file, _, function = test.partition("::")
        path = TESTS / file
        assert path.is_file(), f"{rule.number}: no file {file}"
        assert function in functions_of(path), f"{rule.number}: no {function} in {file}"


def test_rules_are_numbered_once_and_in_order() -> None:
    numbers = [tuple(map(int, rule.number.split("."))) for rule in ALL]

    assert len(set(numbers)) == len(numbers)
    for section in SECTIONS:
        within = [number for number in numbers if number[0] == section]
        assert within == sorted(within)


def test_no_section_is_left_out() -> None:
    written = {int(rule.number.partition(".")[0]) for rule in ALL}

    assert written == set(SECTIONS)


def test_no_rule_of_another_page_is_left_out() -> None:
    expected = [f"{section}.{row}" for section, rows in OTHER_PAGES.items() for row in rows]

    assert [rule.number for rule in OTHERS] == expected
