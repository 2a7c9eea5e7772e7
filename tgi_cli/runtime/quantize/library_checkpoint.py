"""A checkpoint made by a library: the model brought to it as a folder, its result completed."""

from __future__ import annotations

from pathlib import Path

from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.hub.convert import convert_folder
from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.quantize.backends import run_backend
from tgi_cli.runtime.quantize.small_files import write_small_files
from tgi_cli.runtime.quantize.work_folder import WorkFolder

_THEIRS = ("config.json", "quantize_config.json", "model.safetensors.index.json")


def write_library_checkpoint(
    located: LocatedModel, recipe: QuantizeRecipe, windows: list[list[int]], work: WorkFolder
) -> Path:
    """Have the recipe's library make the checkpoint; return its folder.

    What the library wrote stays as it is, but for tokenizer and templates, which are the model's.

    Raises:
        UnsupportedModelError: the library failed.
        ConversionError: a GGUF file that can't be given to it.
    """
    folder = work.new_unchecked()
    first = Path(located.weights.files[0])
    source = first.parent
    if located.weights.kind == "gguf":
        source = work.folder / "source"
        convert_folder(first, source, kind="gguf", dtype=located.config.checkpoint_dtype)
    theirs = work.folder / "library"
    run_backend(source.absolute(), recipe, windows, theirs.absolute(), work.folder)
    write_small_files(located, folder)
    for path in theirs.iterdir():
        if path.is_file() and (path.suffix == ".safetensors" or path.name in _THEIRS):
            path.replace(folder / path.name)
    return folder
