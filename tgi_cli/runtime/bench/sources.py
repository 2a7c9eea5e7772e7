"""The source of a run's inputs, as the options ask for it. Spec: bench.md section 7."""

from __future__ import annotations

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import Codec, CommonWords
from tgi_cli.runtime.bench.conversations import ConversationSource, read_conversations
from tgi_cli.runtime.bench.datasets import DatasetSource, read_dataset
from tgi_cli.runtime.bench.inputs import InputSource, MadeSource, Openings, Prefixes
from tgi_cli.runtime.bench.synthetic import TextMaker
from tgi_cli.runtime.bench.text_file import TextFile
from tgi_cli.runtime.bench.traces import TraceSource, read_trace
from tgi_cli.runtime.config.bench.options import (
    DEFAULT_INPUT_TOKENS,
    DEFAULT_OUTPUT_TOKENS,
    BenchOptions,
)


def open_source(
    options: BenchOptions, codec: Codec | None, *, offset: int = 0
) -> InputSource | ConversationSource:
    """Return the source of all inputs of a run. Reads files, so not for an event loop.

    `offset` is what the server counts beyond the tokenizer's own count, such as a chat template:
    planned lengths include it. Without a codec only texts that are whole already can be sent.

    Raises:
        UsageError: a file that can't be read, or no tokenizer where one is needed.
    """
    maker = None if codec is None else TextMaker(codec)
    if options.trace is not None:
        return TraceSource(read_trace(options.trace, options.trace_speed), maker, offset=offset)
    if maker is None and (options.shared_prefix is not None or options.send_token_ids):
        raise UsageError("--shared-prefix and --send-token-ids need a tokenizer: --tokenizer.")
    prefixes = None
    if options.shared_prefix is not None and maker is not None:
        prefixes = Prefixes(options.shared_prefix, maker)
    openings = Openings(maker or CommonWords(), prefixes)
    if options.conversations is not None:
        return ConversationSource(
            read_conversations(options.conversations),
            codec,
            openings,
            options.output_tokens,
            DEFAULT_OUTPUT_TOKENS,
            replays_answers=options.replay_answers,
        )
    if options.dataset is not None:
        return DatasetSource(
            read_dataset(options.dataset),
            codec,
            openings,
            options.output_tokens,
            DEFAULT_OUTPUT_TOKENS,
            offset=offset,
        )
    if maker is None:
        raise UsageError(
            "No tokenizer is known, so no text of an exact length can be made.",
            hint="Name one with --tokenizer, or bring prompts with --dataset.",
        )
    make_draft = maker.draft if options.text is None else TextFile(options.text, maker).draft
    return MadeSource(
        make_draft,
        maker,
        openings,
        options.input_tokens or DEFAULT_INPUT_TOKENS,
        options.output_tokens or DEFAULT_OUTPUT_TOKENS,
        offset=offset,
    )
