"""Which class runs which family. A new family is one line here."""

from __future__ import annotations

from tgi_cli.runtime.config.model_config import Family
from tgi_cli.runtime.models.llama import Llama

MODELS: dict[Family, type[Llama]] = {
    "llama": Llama,
    "mistral": Llama,
    "qwen2": Llama,
    "qwen3": Llama,
}
