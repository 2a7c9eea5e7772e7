"""The process that checks grammars: `python -m tgi_cli.runtime.text.grammar_worker`.

A client's schema or pattern may be built to take for ever or to need all memory, so it is compiled
here first, as the engine will compile it: what passes is known to be good when it gets there.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from tgi_cli.runtime.text.grammar import compile_grammar, make_tokenizer
from tgi_cli.runtime.text.json_schema import SchemaError, prepare_schema
from tgi_cli.runtime.text.schema_narrowing import Node
from tgi_cli.runtime.text.worker_process import frames, send_frame
from tgi_cli.runtime.types import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_MEMORY_BYTES = 3 << 30
MAX_MASK_S = 0.01  # of processor time; an ordinary mask takes a hundredth of it
_WALKED_TOKENS = 12
_MAX_SEARCHED = 200  # schemas compiled on their own to find the one that is wrong


class Greeting(msgspec.Struct, array_like=True):
    """The model's tokens; the answer is an error text, or an empty one."""

    tokenizer_json: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]


class CheckReply(msgspec.Struct, array_like=True):
    grammar: Grammar | None  # ready for the engine
    error: str = ""
    is_malformed: bool = True  # rather than valid, and beyond what can be enforced


def check(grammar: Grammar, tokenizer: LLTokenizer) -> CheckReply:
    """Compile a grammar and follow it for some tokens; say what is wrong and where."""
    if grammar.kind == "json_schema":
        return _check_schema(grammar, tokenizer)
    if grammar.kind == "regex" and _ends_in_escape(grammar.source):
        return CheckReply(None, "incomplete escape sequence at the end of the pattern")
    error = _compile_error(grammar, tokenizer)
    return CheckReply(None, _explain(error)) if error else CheckReply(grammar)


def _check_schema(grammar: Grammar, tokenizer: LLTokenizer) -> CheckReply:
    root: Node = msgspec.json.decode(grammar.source)
    try:
        schemas = prepare_schema(root)
    except SchemaError as exc:
        return CheckReply(None, str(exc), exc.is_malformed)
    ready = _schema_grammar(root)
    error = _compile_error(ready, tokenizer)
    if not error:
        return CheckReply(ready)
    place = _find_error(error, root, schemas, tokenizer)
    return CheckReply(None, f"{_explain(error)} (at {place})", is_malformed=False)


def _schema_grammar(schema: Any) -> Grammar:
    return Grammar("json_schema", msgspec.json.encode(schema).decode())


def _find_error(
    error: str, root: Node, schemas: dict[str, Node | bool], tokenizer: LLTokenizer
) -> str:
    """Return the pointer of the innermost schema that gives the same error on its own."""
    shelves = {name: value for name, value in root.items() if isinstance(value, dict)}
    shelves.pop("properties", None)  # what else references may lead to, $defs and the like
    shelves.pop("patternProperties", None)
    for pointer, schema in [*schemas.items()][: -_MAX_SEARCHED - 1 : -1]:
        if pointer != "#" and isinstance(schema, dict):
            alone = _schema_grammar({**shelves, **schema})
            if _compile_error(alone, tokenizer) == error:
                return pointer
    return "#"


def _compile_error(grammar: Grammar, tokenizer: LLTokenizer) -> str:
    matcher = compile_grammar(grammar, tokenizer)
    mask_times_s = [] if matcher.is_error() else _walk(matcher, tokenizer)
    if matcher.is_error():
        error = matcher.get_error()
        return "nothing can match it" if error.startswith("NoExtension") else error
    typical_s = sorted(mask_times_s)[len(mask_times_s) // 2] if mask_times_s else 0.0
    return "it takes too long to say which tokens may follow" if typical_s > MAX_MASK_S else ""


def _walk(matcher: LLMatcher, tokenizer: LLTokenizer) -> list[float]:
    """Follow the grammar; return the processor time of each mask but the first.

    What is too much for the limits, or would hold up every step of the engine, mostly shows within
    a few tokens. The first mask is no part of a step.
    """
    ends = sum(1 << token_id for token_id in tokenizer.eos_tokens)
    times_s = []
    for _ in range(_WALKED_TOKENS):
        started_s = time.process_time()
        allowed = int.from_bytes(matcher.compute_bitmask(), "little") & ~ends
        times_s.append(time.process_time() - started_s)
        if not allowed or matcher.is_error():
            break
        matcher.consume_token(allowed.bit_length() - 1)  # of the highest id: often a long one
        if matcher.is_error():
            break
    return times_s[1:]


def _explain(error: str) -> str:
    """Return one line of llguidance's error text, with the place in a pattern or a Lark text."""
    lines = [line for line in error.splitlines() if line != "<non-verbose/>"]
    reason = next((line[7:] for line in lines if line.startswith("error: ")), None)
    mark = re.search(r"^ {4}( *)\^+$", error, re.MULTILINE)
    if lines[0].startswith("oneOf constraints"):
        return "`oneOf` whose branches could both match is not supported"
    if reason is not None:
        return f"{reason} at character {len(mark[1])} of the pattern" if mark else reason
    first = re.sub(r"^at 1\(8\): invalid regex \".*\" \(in regex\): ", "", lines[0])
    place = re.match(r"at (\d+)\((\d+)\): (.*)", first)
    return f"{place[3]} at line {place[1]}, column {place[2]}" if place else first[:200]


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    questions = frames(source)
    greeting = msgspec.msgpack.decode(next(questions), type=Greeting)
    try:
        tokenizer = make_tokenizer(
            greeting.tokenizer_json, greeting.vocab_size, greeting.eos_token_ids
        )
    except (ValueError, KeyError, TypeError) as exc:  # the last two: no tokenizer that we know
        send_frame(sink, (str(exc) or type(exc).__name__).encode())
        return
    send_frame(sink, b"")
    for question in questions:
        try:
            reply = check(msgspec.msgpack.decode(question, type=Grammar), tokenizer)
        except (ValueError, RecursionError, MemoryError) as exc:
            reply = CheckReply(None, f"it can't be compiled ({type(exc).__name__})")
        send_frame(sink, msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)
