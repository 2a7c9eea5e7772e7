"""What the workers hand back, made into records: tokens are counted now that nothing runs."""

from __future__ import annotations

from array import array

from tgi_cli.runtime.bench.counting import CountTokens, count_tokens
from tgi_cli.runtime.bench.messages import FinishedRequest
from tgi_cli.runtime.bench.records import RequestRecord

_COUNTED_TEXTS_REMOTE = 200


def take_records(
    finished: list[FinishedRequest],
    count_text: CountTokens | None,
    *,
    counts_all_texts: bool = True,
    saves_text: bool = False,
) -> list[RequestRecord]:
    """Return the records of `finished`, which is empty afterwards.

    Without `counts_all_texts` only a sample is counted beside the server's own count: each text
    then costs a request.
    """
    records, num_counted = [], 0
    finished.reverse()
    while finished:  # each is let go of as soon as it is counted: there may be millions of events
        each = finished.pop()
        record, deliveries = each.record, each.deliveries.unpacked()
        record.deliveries = deliveries.at
        tokens, record.token_source = count_tokens(deliveries, count_text)
        record.tokens = array("i", tokens)
        record.output_tokens = sum(tokens)
        may_count = counts_all_texts or num_counted < _COUNTED_TEXTS_REMOTE
        if count_text is not None and deliveries.text and record.is_ok and may_count:
            num_counted += 1
            record.own_output_tokens = count_text(deliveries.text)
        if saves_text:
            record.text = deliveries.text
        records.append(record)
    return records
