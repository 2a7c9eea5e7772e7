"""Bytes that aren't the file's: found out as they arrive, in the cache and inside the weights."""

from __future__ import annotations

import pytest

from tests.builders.download import INDEX, Downloads, model_files, weights
from tests.builders.files import safetensors_bytes, tensor_entry
from tests.builders.hub import Fault
from tgi_cli.errors import HubUnreachableError, VerificationError

WEIGHTS = "model.safetensors"
SIZE = len(weights())


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize("change", ["flipped", "shorter", "longer"])
def test_wrong_bytes_are_fetched_once_more_and_then_refused(
    name: str, change: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    right = model_files()[name]
    wrong = {"flipped": right[:-1] + b"?", "shorter": right[:-1], "longer": right + b"?"}[change]
    downloads.hub.fail(name, *[Fault(body=wrong)] * 20)

    with pytest.raises(VerificationError, match=f"{name} isn't what the hub says it is") as failure:
        downloads.get()

    assert "HF_ENDPOINT" in str(failure.value.hint)
    assert name not in downloads.placed()
    assert all(WEIGHTS not in path.name for path in downloads.partials())
    assert sum("once more" in text for text in downloads.progress.said) == 1


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize("change", ["flipped", "longer"])
def test_bytes_that_were_wrong_once_are_mended(
    name: str, change: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    right = model_files()[name]
    wrong = {"flipped": right[:-1] + b"?", "longer": right + b"?"}[change]
    downloads.hub.fail(name, Fault(body=wrong))

    obtained = downloads.get()

    assert (obtained.folder / name).read_bytes() == right


def test_a_range_that_makes_no_sense_makes_the_file_be_fetched_once_more(
    downloads: Downloads,
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(status=206, headers={"Content-Range": "bytes 5-9/zz"}))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()


@pytest.mark.parametrize("off_by", [-7, 7])
def test_a_wrong_length_in_the_answer_is_a_body_that_broke_off(
    off_by: int, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(content_length=SIZE + off_by))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()


def test_a_partial_file_of_other_bytes_is_found_out_and_begun_anew(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(cut_at=4_000), *[Fault(status=503)] * 6)
    with pytest.raises(HubUnreachableError):
        downloads.get()
    [partial] = downloads.partials()
    partial.write_bytes(bytes(4_000))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()


@pytest.mark.parametrize("extra", [0, 1])
def test_a_partial_file_that_is_as_long_as_the_whole_is_not_trusted(
    extra: int, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(cut_at=4_000), *[Fault(status=503)] * 6)
    with pytest.raises(HubUnreachableError):
        downloads.get()
    downloads.partials()[0].write_bytes(bytes(SIZE + extra))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()


def test_a_damaged_copy_in_the_cache_is_fetched_again(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    path = downloads.get().folder / WEIGHTS
    path.resolve().write_bytes(bytes(SIZE))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()
    assert any(
        "model.safetensors: the copy that is here is damaged" in text
        for text in downloads.progress.said
    )


@pytest.mark.parametrize("check", ["size", "none"])
def test_hashes_are_compared_only_if_that_is_asked(check: str, downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    wrong = weights(seed=8)
    downloads.hub.fail(WEIGHTS, Fault(body=wrong))

    obtained = downloads.get(check=check)

    assert (obtained.folder / WEIGHTS).read_bytes() == wrong


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (weights()[:-1], "its tensors cover|cut off|bytes"),
        (b"\xff" * 99, "header claims"),
        (b"", "empty"),
    ],
)
def test_weights_that_were_uploaded_broken_are_found_out(
    content: bytes, reason: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files(**{WEIGHTS: content}))

    with pytest.raises(VerificationError, match=reason) as failure:
        downloads.get()

    assert "owner" in str(failure.value.hint)


def test_weights_of_a_type_that_no_reader_here_knows_are_whole_all_the_same(
    downloads: Downloads,
) -> None:
    newer = safetensors_bytes({"w": tensor_entry("F4", [2], 0, 1)}, b"x")
    index = b'{"weight_map": {"w": "model.safetensors"}}'
    downloads.hub.publish(model_files(**{WEIGHTS: newer, INDEX: index}))

    assert (downloads.get().folder / WEIGHTS).read_bytes() == newer


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"{", "not an index"),
        (b'{"weight_map": {}}', "must name files"),
        (b'{"weight_map": {"w": "../w.safetensors"}}', "must name files"),
        (b'{"weight_map": {"w": "other.safetensors"}}', "aren't in the repository"),
        (b'{"weight_map": {"v": "model.safetensors"}}', "'v' of the index is missing"),
    ],
)
def test_an_index_that_doesnt_fit_its_files_is_refused(
    index: bytes, reason: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files(**{INDEX: index}))

    with pytest.raises(VerificationError, match=reason):
        downloads.get()
