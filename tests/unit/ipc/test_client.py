"""The record of an open request: outputs pulled, and pushed."""

from __future__ import annotations

import asyncio

import pytest

from tgi_cli.errors import GenerationError
from tgi_cli.runtime.ipc.client import OpenRequest
from tgi_cli.runtime.ipc.messages import NewRequest, SequenceOutput
from tgi_cli.runtime.types import SamplingParams


def make_record() -> OpenRequest:
    return OpenRequest(NewRequest(1, [7], 10, SamplingParams()))


def deliver(record: OpenRequest, *token_ids: int) -> None:
    for token_id in token_ids:
        record.deliver(SequenceOutput(1, [token_id], [0.0], None))
    record.wake()


async def start(record: OpenRequest, taken: list[list[int]], *, until: int) -> asyncio.Task[None]:
    """Push `record` into `taken`, a list for each call, until token `until` came."""

    def take(outputs: list[SequenceOutput]) -> bool:
        taken.append([output.token_ids[0] for output in outputs])
        return taken[-1][-1] != until

    task = asyncio.create_task(record.push_to(take))
    await asyncio.sleep(0)
    return task


async def test_outputs_are_pushed_at_once_and_those_of_one_read_together():
    record, taken = make_record(), []
    task = await start(record, taken, until=4)

    deliver(record, 1)
    assert taken == [[1]]  # without a turn of the loop
    deliver(record, 2, 3)
    deliver(record, 4)
    deliver(record, 5)

    await task
    assert taken == [[1], [2, 3], [4]]
    assert [output.token_ids for output in await record.next_outputs()] == [[5]]


async def test_what_waits_is_pushed_first_and_may_be_enough():
    record, taken = make_record(), []
    deliver(record, 1, 2)

    await (await start(record, taken, until=2))

    assert taken == [[1, 2]]


async def test_a_failure_ends_the_push_after_what_came_before_it():
    record, taken = make_record(), []
    task = await start(record, taken, until=9)

    record.deliver(SequenceOutput(1, [1], [0.0], None))
    record.fail("the engine ended")
    record.wake()

    with pytest.raises(GenerationError, match="the engine ended"):
        await task
    assert taken == [[1]]


async def test_a_failure_after_the_last_wanted_output_is_not_the_pushs():
    record, taken = make_record(), []
    task = await start(record, taken, until=1)

    record.deliver(SequenceOutput(1, [1], [0.0], None))
    record.fail("the engine ended")
    record.wake()

    await task
    assert taken == [[1]]


async def test_what_came_before_a_failure_is_pushed_before_it_is_raised():
    record, taken = make_record(), []
    task = await start(record, taken, until=1)
    deliver(record, 1)  # the push is over, but its task has yet to run
    deliver(record, 2)
    record.fail("the engine ended")
    await task

    with pytest.raises(GenerationError, match="the engine ended"):
        await (await start(record, taken, until=9))

    assert taken == [[1], [2]]


async def test_an_error_of_the_receiver_ends_only_its_own_push():
    record = make_record()

    def take(outputs: list[SequenceOutput]) -> bool:
        raise ConnectionResetError

    task = asyncio.create_task(record.push_to(take))
    await asyncio.sleep(0)

    deliver(record, 1)

    with pytest.raises(ConnectionResetError):
        await task
    deliver(record, 2)
    assert [output.token_ids for output in await record.next_outputs()] == [[2]]
