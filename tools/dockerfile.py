"""Read a Dockerfile into stages: as much of its language as ours uses, and an error for the rest.

`tools/prove_image.py` carries the steps out; tests hold the files that are shipped against them.
Source: Docker's Dockerfile reference.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

_STEPS = ("ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR")
_FACTS = ("EXPOSE", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD")  # of the image, not its files
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str  # in capitals
    text: str  # what follows it, lines joined
    line: int  # where it begins, from 1


@dataclass(frozen=True, slots=True)
class Stage:
    name: str  # "" where it has none
    parent: str  # a stage above it, or an image
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Mount:
    """`RUN --mount=type=bind`: a folder of another stage, there for one step."""

    stage: str
    source: str
    target: str


def parse(text: str, build_args: Mapping[str, str]) -> list[Stage]:
    """Return the stages in order.

    Raises:
        ValueError: an instruction that isn't known here, with its line.
    """
    head: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for each in _instructions(text):
        if each.word == "FROM":
            parent, *alias = expand(each.text, head).split()
            name = alias[1] if len(alias) == 2 and alias[0].upper() == "AS" else ""
            stages.append((name, parent, []))
        elif each.word not in _STEPS + _FACTS:
            raise ValueError(f"line {each.line}: {each.word} isn't known here")
        elif stages:
            stages[-1][2].append(each)
        elif each.word == "ARG":
            head |= argument(each.text, build_args, head)
        else:
            raise ValueError(f"line {each.line}: {each.word} before FROM")
    return [Stage(name, parent, tuple(found)) for name, parent, found in stages]


def chain(stages: list[Stage], target: str) -> list[Stage]:
    """Return the stages that `target` is built on, the image's own first; "" is the last stage."""
    by_name = {stage.name: stage for stage in stages if stage.name}
    stage = by_name[target] if target else stages[-1]
    found = [stage]
    while stage.parent in by_name:
        stage = by_name[stage.parent]
        found.insert(0, stage)
    return found


def fact(stages: list[Stage], word: str) -> str | None:
    """Return the last text of such an instruction in a chain of stages."""
    texts = [each.text for stage in stages for each in stage.instructions if each.word == word]
    return texts[-1] if texts else None


def command(text: str) -> list[str]:
    """Return the words of an ENTRYPOINT, a CMD or a HEALTHCHECK in its JSON form."""
    words = json.loads(text[text.index("[") :])
    assert isinstance(words, list)
    return [str(word) for word in words]


def argument(
    text: str, build_args: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, str]:
    """Return what an ARG sets: nothing, where it has no default and none was given."""
    name, has_default, default = text.partition("=")
    if name in build_args:
        return {name: build_args[name]}
    return {name: expand(default, variables)} if has_default else {}


def assignments(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what an ENV sets."""
    pairs = (word.partition("=") for word in shlex.split(text))
    return {name: expand(value, variables) for name, _, value in pairs}


def options(text: str) -> tuple[dict[str, str], str]:
    """Split `--name=value` words off the front of a COPY or a RUN."""
    found: dict[str, str] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option.removeprefix("--").partition("=")
        found[name] = value
        text = text.lstrip()
    return found, text


def mount(value: str) -> Mount:
    """Return the bind mount that the value of `--mount` describes."""
    fields = dict(field.split("=", 1) for field in value.split(","))
    if fields.pop("type", None) != "bind" or set(fields) != {"from", "source", "target"}:
        raise ValueError(f"--mount={value}: only type=bind with from, source and target")
    return Mount(fields["from"], fields["source"], fields["target"])


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in place: `$name`, `${name}`, `${name:-default}`; unset is empty."""
    return _VARIABLE.sub(
        lambda found: variables.get(found[1] or found[2], "") or found[3] or "", text
    )


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    begun: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not begun:
            first = number
        begun.append(stripped.removesuffix("\\"))
        if not stripped.endswith("\\"):
            word, _, rest = "".join(begun).partition(" ")
            found.append(Instruction(word.upper(), rest.strip(), first))
            begun = []
    if begun:
        raise ValueError(f"line {first}: the file ends within this instruction")
    return found
