"""KServe's protocol, version 2: spec/http-api.md section 15."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tgi_cli.runtime.router.schemas.generate import GenerateParameters, settle_stop

Byte = Annotated[int, Meta(ge=0, le=255)]


class InferInput(msgspec.Struct):
    """A prompt: its text's UTF-8 bytes as numbers."""

    name: str
    shape: list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]  # not looked at: `data` says it all
    datatype: str
    data: list[Byte]


class WantedOutput(msgspec.Struct):
    name: str


class InferRequest(msgspec.Struct, kw_only=True):
    """As many inputs as outputs: each input is one generation."""

    id: str
    parameters: GenerateParameters | None = None
    inputs: list[InferInput]
    outputs: list[WantedOutput]

    def settle_aliases(self, raw: bytes) -> None:
        settle_stop(self.parameters, raw)


class InferOutput(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: Literal["BYTES"]
    data: list[Byte]


class InferReply(msgspec.Struct):
    id: str
    outputs: list[InferOutput]


class Liveness(msgspec.Struct):
    live: bool


class ModelMetadata(msgspec.Struct):
    name: str
    version: str
    extensions: list[str]


class ServerMetadata(msgspec.Struct):
    name: str
    version: str
    extensions: list[str]
