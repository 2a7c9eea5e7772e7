"""Recorded arrivals and lengths, replayed."""

from __future__ import annotations

import json

import pytest

from tests.builders.bench_tokenizers import FAMILIES, family_tokenizer
from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import LocalCodec
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.bench.traces import read_trace
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.text.tokenizer import Tokenizer


def written(tmp_path, content):
    file = tmp_path / "trace"
    file.write_text(
        content if isinstance(content, str) else "\n".join(map(json.dumps, content)),
        encoding="utf-8",
    )
    return str(file)


def row(timestamp, input_length=30, output_length=4, **fields):
    return {"timestamp": timestamp, "input_length": input_length,
            "output_length": output_length} | fields  # fmt: skip


def codec(family="byte-level"):
    return LocalCodec(Tokenizer(family_tokenizer(family, has_bos=True)))


def texts(path, own, *, nonce="run", phase="measure", offset=0):
    source = open_source(BenchOptions(trace=path), own, offset=offset)
    found = source.inputs(Streams(5, "trace", phase, nonce), 0, 99)
    return [each.prompt.text for each in found], [each.input_tokens for each in found]


def common_tokens(first, second):
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def test_whole_numbers_are_milliseconds_and_fractions_seconds(tmp_path):
    in_ms = read_trace(written(tmp_path, [row(7000), row(7250)]))
    in_s = read_trace(written(tmp_path, [row(7.0), row(7.25)]))

    assert [entry.at_s for entry in in_ms] == [0.0, 0.25]
    assert [entry.at_s for entry in in_s] == [0.0, 0.25]


def test_a_trace_is_sorted_and_sped_up(tmp_path):
    path = written(tmp_path, [row(3000, 5), row(1000, 6), row(2000, 7)])

    found = read_trace(path, speed=2.0)

    assert [(entry.at_s, entry.input_tokens) for entry in found] == [(0, 6), (0.5, 7), (1, 5)]


def test_a_csv_has_dates_or_seconds(tmp_path):
    dated = read_trace(
        written(
            tmp_path,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.2299601,3180,0\n",
        )
    )
    plain = read_trace(
        written(tmp_path, "GeneratedTokens,TIMESTAMP,Extra,ContextTokens\r\n7,1.5,x,99\r\n")
    )

    assert [entry.at_s for entry in dated] == [0.0, pytest.approx(0.2500001, abs=1e-6)]
    assert [(e.input_tokens, e.output_tokens) for e in dated] == [(4808, 10), (3180, 1)]
    assert (plain[0].input_tokens, plain[0].output_tokens) == (99, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_hash_ids_are_equal_blocks_and_lengths_are_exact(tmp_path, family):
    own = codec(family)
    path = written(
        tmp_path,
        [
            row(0, 1200, hash_ids=[1, 2, 3]),
            row(1, 1100, hash_ids=[1, 2, 4]),
            row(2, 600, hash_ids=[1, 9]),
            row(3, 600, hash_ids=[7, 2]),
        ],
    )

    made, lengths = texts(path, own)

    ids = own.encode(made, add_special_tokens=True)
    assert [len(each) for each in ids] == lengths == [1200, 1100, 600, 600]
    assert 1024 <= common_tokens(ids[0], ids[1]) < 1060
    assert 512 <= common_tokens(ids[0], ids[2]) < 550
    assert common_tokens(ids[0], ids[3]) < 8


def test_a_warm_up_does_not_fill_the_cache_with_the_window_s_blocks(tmp_path):
    own = codec()
    path = written(tmp_path, [row(0, 600, hash_ids=[1, 2])])

    ids = [
        own.encode(texts(path, own, phase=phase, nonce=nonce)[0], add_special_tokens=True)[0]
        for phase, nonce in (("measure", "a"), ("warmup", "a"), ("measure", "b"))
    ]

    assert common_tokens(ids[0], ids[1]) < 8
    assert common_tokens(ids[0], ids[2]) < 8


def test_later_inputs_of_a_conversation_begin_with_earlier_ones(tmp_path):
    own = codec()
    rows = [row(0, 30, conversation_id="x"), row(1, 30), row(2, 70, conversation_id="x")]

    made, lengths = texts(written(tmp_path, rows), own)
    entries = read_trace(written(tmp_path, rows))

    assert lengths == [30, 30, 70]
    assert made[2].startswith(made[0])
    assert not made[1].startswith(made[0][:9])
    assert [entry.turn for entry in entries] == [0, None, 1]


def test_recorded_texts_are_sent_with_a_new_beginning(tmp_path):
    rows = [{"timestamp": 0, "prompt": "tell me", "output_length": 3}]
    path = written(tmp_path, rows)

    [text], [length] = texts(path, None)

    assert text.endswith("\n\ntell me")
    assert length is None
    assert texts(path, None, nonce=None)[0] == ["tell me"]


def test_an_output_length_that_was_not_recorded_is_the_usual_one(tmp_path):
    path = written(tmp_path, [{"timestamp": 0, "input_length": 9}])
    source = open_source(BenchOptions(trace=path), codec())

    [found] = source.inputs(Streams(5, "trace", "measure"), 0, 1)

    assert found.output_tokens == 128


def test_what_the_server_counts_beyond_the_text_is_part_of_a_length(tmp_path):
    own = codec()

    made, lengths = texts(written(tmp_path, [row(0, 40)]), own, offset=13)

    assert lengths == [40]
    assert len(own.encode(made, add_special_tokens=True)[0]) == 27


def test_a_stage_replays_the_part_that_was_asked_for(tmp_path):
    path = written(tmp_path, [row(n * 500, 9 + n, n + 1) for n in range(20)])
    options = BenchOptions(trace=path, duration=4.0, trace_speed=2.0)
    [spec] = stage_specs(options)
    planner = StagePlanner(
        spec, open_source(options, codec()), lambda prompt, n: b"{}", seed=1, nonce="run"
    )

    requests = planner.phase("measure").requests

    assert [request.sched_s for request in requests] == [n / 4 for n in range(16)]
    assert [request.output_tokens for request in requests] == list(range(1, 17))
    assert len(planner.phase("warmup").requests) == 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "neither JSON lines nor"),
        ("a,b,c\n1,2,3\n", "neither JSON lines nor"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2\n", "too few columns"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,2,3\n", "neither a date nor"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\ninf,2,3\n", "neither a date nor"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,-2,3\n", "not a number of tokens"),
        ('{"timestamp": "x", "input_length": 3}', "'timestamp' is not a number"),
        ('{"timestamp": true, "input_length": 3}', "'timestamp' is not a number"),
        ('{"timestamp": 1e300, "input_length": 3}', "beyond any time"),
        ('{"timestamp": 1}', "neither 'input_length' nor"),
        ('{"timestamp": 1, "input_length": 3, "hash_ids": ["a"]}', "'hash_ids'"),
        ('{"timestamp": 1, "input_length": 0}', "'input_length'"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, content, reason):
    with pytest.raises(UsageError, match=reason):
        read_trace(written(tmp_path, content))


def test_a_trace_of_lengths_needs_a_tokenizer(tmp_path):
    with pytest.raises(UsageError, match="tokenizer"):
        texts(written(tmp_path, [row(0)]), None)
