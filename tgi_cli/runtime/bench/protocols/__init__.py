"""The three ways to ask for text: TGI's own, OpenAI's completions and OpenAI's chat.

A protocol makes bodies before a stage and reads events while it runs. Spec: bench.md section 5.
"""

from __future__ import annotations

from tgi_cli.runtime.bench.protocols.chat import Chat
from tgi_cli.runtime.bench.protocols.completions import Completions
from tgi_cli.runtime.bench.protocols.protocol import BodyOptions, Protocol, ProtocolName, Reading
from tgi_cli.runtime.bench.protocols.tgi import Tgi

PROTOCOLS: dict[ProtocolName, type[Protocol]] = {
    "tgi": Tgi,
    "completions": Completions,
    "chat": Chat,
}

__all__ = ["PROTOCOLS", "BodyOptions", "Protocol", "ProtocolName", "Reading"]
