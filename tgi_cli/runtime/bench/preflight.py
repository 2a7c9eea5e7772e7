"""Before the first stage: who is there, what counts its tokens, and where inputs come from.

Spec: bench.md sections 4, 7 and 8.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tgi_cli.errors import StartError, UsageError
from tgi_cli.runtime.bench.codec import Codec, LocalCodec
from tgi_cli.runtime.bench.conversations import ConversationSource
from tgi_cli.runtime.bench.facts import is_on_small_host, num_cores
from tgi_cli.runtime.bench.inputs import InputSource
from tgi_cli.runtime.bench.probe import Probe
from tgi_cli.runtime.bench.remote_codec import RemoteCodec
from tgi_cli.runtime.bench.result import Endpoint
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.config.bench import BenchOptions
from tgi_cli.runtime.text.tokenizer import Tokenizer

LoadTokenizer = Callable[[str, bool], Tokenizer]
"""Return the tokenizer of a name; the switch allows to fetch it. Raises `StartError`."""

_OFFSET_TEXTS = ("hello", "Count from one to ten, then say what the weather is like today.")


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is known once the endpoint has been asked."""

    endpoint: Endpoint
    codec: Codec | None
    source: InputSource | ConversationSource


async def look(
    options: BenchOptions, probe: Probe, load_tokenizer: LoadTokenizer, note: Callable[[str], None]
) -> Preflight:
    """Ask the endpoint, find a tokenizer, open the inputs; `note` tells what a reader must know.

    Raises:
        UnreachableError: nobody answers, or the first generation fails.
        UsageError: options that this endpoint or these files can't serve.
    """
    protocol = None if options.protocol == "auto" else options.protocol
    endpoint = await probe.find(protocol, forces_length=options.ignore_eos)
    if options.send_token_ids and not endpoint.capabilities.get("token_ids"):
        raise UsageError("--send-token-ids: the endpoint takes no token ids.")
    if is_on_small_host(endpoint.url):
        note(
            f"The server may be on this host, whose {num_cores()} cores it then shares "
            "with the client: read the verdicts."
        )
    codec = await _find_codec(options, probe, endpoint.model, load_tokenizer)
    offset = 0 if codec is None else await _input_offset(codec, probe, endpoint, note)
    source = await asyncio.to_thread(partial(open_source, options, codec, offset=offset))
    return Preflight(endpoint, codec, source)


async def _find_codec(
    options: BenchOptions, probe: Probe, model: str | None, load_tokenizer: LoadTokenizer
) -> Codec | None:
    """Return the tokenizer that was named, else the model's, else the server's own."""
    if options.tokenizer is not None:
        return LocalCodec(await asyncio.to_thread(load_tokenizer, options.tokenizer, True))
    if model is not None:
        with contextlib.suppress(StartError):
            return LocalCodec(await asyncio.to_thread(load_tokenizer, model, False))
    if await probe.tokenize("a") is not None:
        return RemoteCodec(probe, asyncio.get_running_loop())
    return None


async def _input_offset(
    codec: Codec, probe: Probe, endpoint: Endpoint, note: Callable[[str], None]
) -> int:
    """Return what the server counts beyond the tokenizer's own count: a chat's template."""
    own = await asyncio.to_thread(partial(codec.encode, _OFFSET_TEXTS, add_special_tokens=True))
    offsets = []
    for text, ids in zip(_OFFSET_TEXTS, own, strict=True):
        counted = await probe.num_input_tokens(PromptInput(text=text))
        if counted is None:
            return 0
        offsets.append(counted - len(ids))
    if endpoint.protocol == "chat":
        endpoint.template_overhead = offsets[0]
    if offsets[0] != offsets[1]:
        note(
            "The server counts input tokens in another way than the tokenizer "
            f"({offsets[0]:+d} and {offsets[1]:+d}): inputs won't have exactly the planned "
            "lengths. --tokenizer names the right one."
        )
    return offsets[0]
