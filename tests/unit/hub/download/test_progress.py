from __future__ import annotations

import pytest

from tgi_cli.runtime.hub.download.progress import LineProgress, size_text, time_text


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_there_is_a_line_each_ten_seconds_with_speed_and_time_left() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, clock)

    progress.begin("download", 3, 10_000_000, 1_000_000)
    for _ in range(25):
        clock.now += 1
        progress.advance("a", 100_000)
    progress.end()

    assert lines == [
        "download: 3 file(s), 10.0 MB, 1.0 MB of it here already",
        "download: 20%, 2.0 MB of 10.0 MB, 100.0 kB/s, 1 min 20 s left",
        "download: 30%, 3.0 MB of 10.0 MB, 100.0 kB/s, 1 min 10 s left",
        "downloaded: 3.5 MB of 10.0 MB in 25 s, 100.0 kB/s",
    ]


def test_the_speed_is_that_of_the_last_thirty_seconds() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, clock)
    progress.begin("download", 1, 10_000_000)
    progress.advance("a", 9_000_000)

    for _ in range(40):
        clock.now += 1
        progress.advance("a", 1_000)

    assert ", 1.0 kB/s, 1" in lines[-1]


def test_a_file_that_begins_anew_takes_its_bytes_back() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, Clock())
    progress.begin("download", 1, 1_000)

    progress.advance("a", 700)
    progress.advance("a", -700)
    progress.end()

    assert lines[-1].startswith("downloaded: 0 bytes of 1.0 kB")


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (2.5e9, "2.5 GB"), (7e12, "7.0 TB")],
)
def test_sizes_are_for_people(num_bytes: float, text: str) -> None:
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
