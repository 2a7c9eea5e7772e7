"""`tgi bench mock`: a server without a model, to try a load generator on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tgi_cli import runtime
from tgi_cli.commands._console import print_error, print_listening
from tgi_cli.commands._options import completer
from tgi_cli.errors import ArgumentError, StartError
from tgi_cli.runtime.config import mock as settings
from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.spreads import Spread, parse_spread

_SPREAD = "a value or a distribution, such as uniform:10ms..30ms, exponential:20ms, "
_SPREAD += "normal:20ms,sd=5ms or lognormal:median=20ms,sigma=0.5"


def _reader(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Make a parser for Typer, which shows the reason of a `typer.BadParameter` only."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value  # a default
        try:
            return parse(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc

    return read


def _delays(value: str) -> Spread:
    return parse_spread(value, parsers.duration)


def _lengths(value: str) -> Spread:
    return parse_spread(value, parsers.number)


def _usage(value: str) -> str:
    return str(parsers.choice(*settings.USAGES)(value))


def _fault(value: str) -> settings.Fault:
    """Read one of a list, whose reader Typer doesn't know the flag of."""
    try:
        return settings.parse_fault(value)
    except ValueError as exc:
        raise typer.BadParameter(f"--fault: {exc}") from exc


def _time(flag: str, help: str) -> Any:
    return typer.Option(flag, parser=_reader(parsers.duration), metavar="TIME", help=help)


def mock(
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65_535, help="0: a free one.")
    ] = 3000,
    hostname: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    protocol: Annotated[
        Any,
        typer.Option(
            parser=_reader(settings.parse_dialects),
            metavar="LIST",
            help="Protocols that are served: a list of tgi, completions and chat.",
        ),
    ] = "tgi,completions,chat",
    model: Annotated[str, typer.Option(help="Name of the model.")] = "mock",
    ttft: Annotated[
        Any,
        typer.Option(
            parser=_reader(_delays),
            metavar="TIMES",
            help=f"From the start of the work to the first token: {_SPREAD}.",
        ),
    ] = "100ms",
    itl: Annotated[
        Any,
        typer.Option(parser=_reader(_delays), metavar="TIMES", help="Between two tokens."),
    ] = "20ms",
    tokens: Annotated[
        Any,
        typer.Option(
            parser=_reader(_lengths),
            metavar="LENGTHS",
            show_default=False,
            help="Where an answer ends by itself, without ignore_eos; default: at its limit.",
        ),
    ] = None,
    tokens_per_event: Annotated[int, typer.Option(min=1, help="Tokens in an event.")] = 1,
    events_per_write: Annotated[int, typer.Option(min=1, help="Events in one write.")] = 1,
    writes_per_event: Annotated[
        int, typer.Option(min=1, help="Writes over which an event is split.")
    ] = 1,
    split_gap: Annotated[Any, _time("--split-gap", "Between the writes of one event.")] = "1ms",
    role_event: Annotated[bool, typer.Option(help="Chats begin with an event of the role.")] = True,
    reasoning_tokens: Annotated[
        int, typer.Option(min=0, help="First tokens of a chat that are reasoning.")
    ] = 0,
    usage: Annotated[
        str,
        typer.Option(
            parser=_reader(_usage),
            metavar="|".join(settings.USAGES),
            autocompletion=completer(settings.USAGES),
            help="Where OpenAI's streams count tokens, if they are asked to.",
        ),
    ] = "final",
    usage_offset: Annotated[
        int, typer.Option(help="A lie: added to the number of output tokens.")
    ] = 0,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="OpenAI's events carry token ids.")
    ] = False,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Refuse requests with this field, such as ignore_eos; token_ids: as a prompt.",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARE:KIND",
            help="What goes wrong, such as 10%:429: a status, error-event, truncated, cut, reset, "
            "empty, garbage, hang or stall:TIME.",
        ),
    ] = None,
    spare: Annotated[int, typer.Option(min=0, help="First requests that no fault hits.")] = 0,
    retry_after: Annotated[
        Any, _time("--retry-after", "The header of that name, with 429 and 503.")
    ] = None,
    freeze: Annotated[
        Any,
        typer.Option(
            parser=_reader(settings.parse_freeze),
            metavar="TIME@MOMENT",
            help="Stand still once: 5s@10s after the first request, 5s@200 at request 200.",
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Requests that are worked on at once.")
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(min=0, help="Requests that may wait; others get a 429.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A tokenizer.json to count input by; default: words."
        ),
    ] = None,
    template_tokens: Annotated[
        int, typer.Option(min=0, help="Input tokens that a chat's template adds.")
    ] = 0,
    prefix_cache: Annotated[
        bool, typer.Option("--prefix-cache", help="Count input tokens that were seen before.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    null: Annotated[
        bool, typer.Option("--null", help="As fast as it can: no delays at all.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write when each token left, one line a request."),
    ] = None,
) -> None:
    """Serve text without a model, at a pace and with faults of your choice."""
    try:
        faults = tuple(map(_fault, fault or ()))
        options = settings.MockOptions(
            hostname=hostname,
            port=port,
            dialects=protocol,
            model_id=model,
            ttft_s=ttft,
            itl_s=itl,
            tokens=tokens,
            tokens_per_event=tokens_per_event,
            events_per_write=events_per_write,
            writes_per_event=writes_per_event,
            split_gap_s=split_gap,
            has_role_event=role_event,
            num_reasoning_tokens=reasoning_tokens,
            usage=usage,  # type: ignore[arg-type]
            usage_offset=usage_offset,
            sends_token_ids=token_ids,
            refused_fields=tuple(refuse or ()),
            faults=faults,
            num_spared=spare,
            retry_after_s=retry_after,
            freeze=freeze,
            num_slots=slots,
            max_queue=max_queue,
            tokenizer_file=tokenizer,
            num_template_tokens=template_tokens,
            caches_prefixes=prefix_cache,
            seed=seed,
            is_null=null,
            log_file=log,
        )
        exit_code = runtime.bench_mock(options, print_listening)
    except ArgumentError as exc:
        raise typer.BadParameter(exc.message) from exc
    except StartError as exc:
        print_error(exc)
        exit_code = exc.exit_code
    raise typer.Exit(exit_code)
