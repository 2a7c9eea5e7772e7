"""A tokenizer without its model: what it is read from, and what is refused."""

from __future__ import annotations

import pytest

from tgi_cli.errors import ModelNotFoundError
from tgi_cli.runtime.hub.tokenizer_only import read_tokenizer


def test_a_file_of_a_tokenizer_is_read(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")

    assert read_tokenizer(str(path)).tokenizer_json == "{}"


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "./nothing-here", "x" * 5000])
def test_what_is_not_there_is_refused_in_words(name):
    with pytest.raises(ModelNotFoundError, match="no such"):
        read_tokenizer(name)
