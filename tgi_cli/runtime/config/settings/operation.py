"""Options about the address, who may call, and what is written down; and those of older scripts."""

from __future__ import annotations

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.settings.setting import (
    COMPATIBILITY,
    OPERATION,
    Setting,
    choice,
    switch,
    text,
)

OPERATION_SETTINGS: tuple[Setting, ...] = (
    text(
        "hostname",
        OPERATION,
        "Address to listen on. What isn't an IP address counts as 0.0.0.0.",
        metavar="IP",
    ),
    Setting(
        name="port",
        group=OPERATION,
        short_flag="-p",
        parse=parsers.port,
        metavar="N",
        help="Port to listen on; 0 takes a free one.",
    ),
    Setting(
        name="prometheus_port",
        group=OPERATION,
        parse=parsers.port,
        metavar="N",
        help="Port for /metrics beside the main one, if it is free; 0: none.",
    ),
    text(
        "api_key",
        OPERATION,
        "Key that requests must bring as a bearer token.",
        is_secret=True,
    ),
    text(
        "api_key_file",
        OPERATION,
        "File of further keys, one on a line; it is read again when it changes.",
        metavar="FILE",
    ),
    switch(
        "protect_chat_tokenize",
        OPERATION,
        "Have /chat_tokenize require the key too; TGI leaves it open.",
    ),
    Setting(
        name="cors_allow_origin",
        group=OPERATION,
        parse=parsers.names,
        metavar="ORIGIN",
        help="Origin that browsers may call from; repeat it, or give the variable a comma list.",
        default_note="any",
        is_repeated=True,
    ),
    switch(
        "openai_strict",
        OPERATION,
        "Answer in OpenAI's words and statuses where TGI's differ.",
    ),
    Setting(
        name="graceful_termination_timeout",
        group=OPERATION,
        short_flag="-g",
        parse=parsers.count,
        metavar="SECONDS",
        help="How long open requests may go on after SIGTERM.",
    ),
    Setting(
        name="stall_timeout",
        group=OPERATION,
        parse=parsers.count,
        metavar="SECONDS",
        help="How long an engine with work may be silent before the probes say that it is stalled.",
    ),
    switch("json_output", OPERATION, "Write the log as JSON, one object per line."),
    Setting(
        name="log_level",
        group=OPERATION,
        parse=parsers.log_filter,
        metavar="LEVEL",
        help="Least level of the server's own log lines: error, warn, info or debug; or a filter "
        "such as info,text_generation_router=debug.",
    ),
    text(
        "otlp_endpoint",
        OPERATION,
        "Collector to send traces to, over gRPC.",
        metavar="URL",
    ),
    text("otlp_service_name", OPERATION, "The server's name in traces.", metavar="NAME"),
    Setting(
        name="env",
        group=OPERATION,
        short_flag="-e",
        parse=parsers.switch,
        metavar="true|false",
        help="Log what this runs on (versions, CPU, GPUs), then start.",
        has_variable=False,
    ),
)

COMPATIBILITY_SETTINGS: tuple[Setting, ...] = (
    choice(
        "usage_stats",
        COMPATIBILITY,
        ("on", "off", "no-stack"),
        "Nothing is ever sent, whatever the value.",
    ),
    switch(
        "disable_usage_stats",
        COMPATIBILITY,
        "Earlier name of --usage-stats off.",
        no_effect="nothing is ever sent",
    ),
    switch(
        "disable_crash_reports",
        COMPATIBILITY,
        "Earlier name of --usage-stats no-stack.",
        no_effect="nothing is ever sent",
    ),
    switch(
        "messages_api_enabled",
        COMPATIBILITY,
        "Once turned on /v1/chat/completions.",
        no_effect="/v1/chat/completions is always there",
    ),
    switch("ngrok", COMPATIBILITY, "Tunnel through ngrok; refused."),
    text("ngrok_authtoken", COMPATIBILITY, "The tunnel's token.", is_secret=True),
    text("ngrok_edge", COMPATIBILITY, "The tunnel's edge."),
)
