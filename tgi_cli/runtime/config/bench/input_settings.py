"""Options about the endpoint and about what is sent to it."""

from __future__ import annotations

from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench import forms, length_forms
from tgi_cli.runtime.config.bench.options import BenchProtocol, PrefixCache
from tgi_cli.runtime.config.bench.setting import (
    ENDPOINT,
    INPUTS,
    BenchSetting,
    choice,
    path,
    switch,
)

ENDPOINT_SETTINGS: tuple[BenchSetting, ...] = (
    BenchSetting(
        name="url",
        group=ENDPOINT,
        parse=forms.base_url,
        metavar="URL",
        help="Base URL; the same as the argument.",
    ),
    BenchSetting(
        name="path",
        group=ENDPOINT,
        parse=forms.path,
        metavar="PATH",
        help="Route to call, in place of the protocol's.",
    ),
    choice(
        "protocol",
        ENDPOINT,
        get_args(BenchProtocol),
        "TGI's own or one of OpenAI's; auto asks /info, then /v1/models.",
    ),
    BenchSetting(
        name="model",
        group=ENDPOINT,
        metavar="NAME",
        help="Model name to send.",
        default_note="the first that is served",
    ),
    BenchSetting(
        name="tokenizer",
        group=ENDPOINT,
        metavar="MODEL",
        help="Model id, folder or tokenizer.json that counts tokens.",
        default_note="the model's, else the server's /tokenize",
    ),
    BenchSetting(
        name="api_key",
        group=ENDPOINT,
        metavar="KEY",
        help="Key to send; never written anywhere.",
        default_note="TGI_API_KEY, else OPENAI_API_KEY",
        is_secret=True,
        is_kept=False,
    ),
    BenchSetting(
        name="api_key_env",
        group=ENDPOINT,
        metavar="NAME",
        help="Environment variable that holds the key.",
        is_kept=False,
    ),
    BenchSetting(
        name="header",
        group=ENDPOINT,
        parse=forms.header,
        metavar="NAME:VALUE",
        short_flag="-H",
        help="A header to send; repeatable. Values are left out of results.",
        is_repeated=True,
        is_secret=True,
        is_kept=False,
    ),
    path("cacert", ENDPOINT, "Certificates to trust, in PEM.", note="the system's"),
    switch("insecure", ENDPOINT, "Take any certificate."),
)

INPUT_SETTINGS: tuple[BenchSetting, ...] = (
    BenchSetting(
        name="input_tokens",
        group=INPUTS,
        parse=length_forms.lengths,
        metavar="LENGTHS",
        help="512, uniform:100..900, normal:512,sd=128, lognormal:median=400,sigma=0.8, "
        "choice:128@3,2048@1 or file:PATH.",
        default_note="512",
    ),
    BenchSetting(
        name="output_tokens",
        group=INPUTS,
        parse=length_forms.lengths,
        metavar="LENGTHS",
        help="The same for outputs.",
        default_note="128, or the file's",
    ),
    path("dataset", INPUTS, "Prompts: ShareGPT JSON, JSONL or a plain text's lines."),
    path("text", INPUTS, "A text to cut inputs from."),
    BenchSetting(
        name="shared_prefix",
        group=INPUTS,
        parse=forms.shared_prefix,
        metavar="TOKENS[xGROUPS]",
        help="Begin inputs with one of GROUPS fixed prefixes; ,zipf=1.1 makes some frequent.",
    ),
    choice(
        "prefix_cache",
        INPUTS,
        get_args(PrefixCache),
        "avoid: nothing that was sent before; allow: the same inputs in every run; "
        "prime: send shared prefixes before the window.",
    ),
    switch("send_token_ids", INPUTS, "Send token ids in place of text; completions only."),
    BenchSetting(
        name="temperature", group=INPUTS, parse=parsers.ratio, metavar="T", help="0 is greedy."
    ),
    BenchSetting(
        name="top_p", group=INPUTS, parse=parsers.share, metavar="P", help="As the server means it."
    ),
    BenchSetting(
        name="body",
        group=INPUTS,
        parse=forms.body,
        metavar="JSON",
        help="Fields to put into every request.",
    ),
    switch("ignore_eos", INPUTS, "Force the output length, where the server takes that."),
    switch("require_output_length", INPUTS, "Outputs shorter than planned: exit code 5."),
    switch("stream", INPUTS, "Stream the answers; else only e2e is measured."),
)
