"""Host arrays on the device, at addresses that stay."""

from __future__ import annotations

import numpy as np
import torch

from tgi_cli.runtime.platforms.uploads import PlainUploader


def test_the_next_array_of_a_name_and_shape_lies_where_the_last_one_lay() -> None:
    uploader = PlainUploader(torch.device("cpu"))
    first = uploader.upload("slots", np.array([3, 1, 4]))
    other = uploader.upload("rows", np.array([3, 1, 4]))

    second = uploader.upload("slots", np.array([1, 5, 9]))

    assert second.tolist() == [1, 5, 9]
    assert second.data_ptr() == first.data_ptr()
    assert other.tolist() == [3, 1, 4]


def test_an_upload_shares_nothing_with_its_array() -> None:
    array = np.array([3, 1, 4])
    uploaded = PlainUploader(torch.device("cpu")).upload("slots", array)

    array[0] = 9

    assert uploaded.tolist() == [3, 1, 4]
