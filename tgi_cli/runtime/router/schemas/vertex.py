"""Vertex AI's prediction route: spec/http-api.md section 14."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tgi_cli.runtime.router.schemas.generate import GenerateParameters, settle_stop


class VertexParameters(GenerateParameters, kw_only=True):
    """As of `/generate`, but an instance samples unless it says that it doesn't want to."""

    do_sample: bool | None = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.do_sample is None:
            self.do_sample = True


class VertexInstance(msgspec.Struct, kw_only=True):
    """One prompt to go on from."""

    inputs: str
    parameters: VertexParameters | None = None

    def settle_aliases(self, raw: bytes) -> None:
        settle_stop(self.parameters, raw)


_INSTANCE = {
    "anyOf": [{"$ref": f"#/components/schemas/{n}"} for n in ("VertexInstance", "ChatRequest")]
}


class VertexRequest(msgspec.Struct):
    """Instances of either kind, mixed."""

    instances: Annotated[list[msgspec.Raw], Meta(extra_json_schema={"items": _INSTANCE})]


class VertexReply(msgspec.Struct):
    """A text for each instance, in order."""

    predictions: list[str]
