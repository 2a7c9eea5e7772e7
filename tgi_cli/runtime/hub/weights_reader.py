"""One way to read a model's tensors, whatever files they are in.

Tensors are asked for by their Hugging Face names; the reader knows which file holds each, what
GGUF calls it, and whether GGUF stored its rows permuted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tgi_cli.runtime.config.model_config import WeightsSource
from tgi_cli.runtime.config.tensor_names import gguf_name
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.hub.tensor_file import TensorFile, TensorInfo

_PERMUTED = (".q_proj.", ".k_proj.")
# Codes, and fp16 scales (and offsets) for each 32: what the CPU kernels keep.
_BYTES_ON_GRID = {"Q4_0": 20 / 32, "Q4_1": 20 / 32, "Q8_0": 34 / 32}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor's bytes as they lie in the file, and what they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    is_gguf_permuted: bool  # rotary pairs interleaved, as GGUF stores q and k of `llama`


class WeightsReader:
    """Opens every file of `source`.

    Raises:
        CorruptModelError, ModelNotFoundError, UnsupportedModelError: as the file formats' readers.
    """

    def __init__(self, source: WeightsSource) -> None:
        self.source = source
        self._is_gguf = source.kind == "gguf"
        self._is_permuted = False
        self._places: dict[str, TensorFile] = {}
        for name in source.files:
            file = self._open(Path(name))
            self._places |= dict.fromkeys(file.tensors, file)

    def _open(self, path: Path) -> TensorFile:
        if not self._is_gguf:
            return SafetensorsFile(path)
        file = GgufFile(path)
        if "general.architecture" in file.metadata:  # of a model in parts, the first says it
            self._is_permuted = file.metadata["general.architecture"] == "llama"
        return file

    def find(self, name: str) -> tuple[Path, TensorInfo] | None:
        """Return the file and place of a tensor, or None."""
        stored = self._stored_name(name)
        file = self._places.get(stored)
        return None if file is None else (file.path, file.tensors[stored])

    def parts_of(self, module: str) -> frozenset[str]:
        """Return what is stored of a module, such as "weight" and "bias"."""
        start = f"{module}."
        return frozenset(n.removeprefix(start) for n in self._places if n.startswith(start))

    def read(self, name: str) -> RawTensor:
        """Return a tensor that `check_tensors` has found."""
        stored = self._stored_name(name)
        file = self._places[stored]
        info = file.tensors[stored]
        is_permuted = self._is_permuted and any(part in name for part in _PERMUTED)
        return RawTensor(name, info.dtype, info.shape, file.read(stored), is_permuted)

    def release(self, name: str) -> None:
        """Say that a tensor's bytes aren't needed for now."""
        stored = self._stored_name(name)
        self._places[stored].release(stored)

    def num_bytes(self) -> int:
        """Return the bytes of all tensors as they are stored."""
        return sum(file.tensors[name].num_bytes for name, file in self._places.items())

    def num_bytes_on_grid(self) -> int:
        """Return the bytes in memory with every matrix on its own grid, where it has one we keep.

        The others are counted as fp32, which they become beside a neighbour of another kind.
        """
        infos = [file.tensors[name] for name, file in self._places.items()]
        return sum(int(i.num_elements * _BYTES_ON_GRID.get(i.dtype, 4)) for i in infos)

    def _stored_name(self, name: str) -> str:
        return gguf_name(name) if self._is_gguf else name
