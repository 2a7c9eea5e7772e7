"""The permits that bound how many requests are in the server at once: taken at once or refused."""

from __future__ import annotations

from tgi_cli.errors import OverloadedError


class Permits:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.num_taken = 0

    def take(self) -> None:
        """Take one. Raises `OverloadedError` if there is none; nobody ever waits for one."""
        if self.num_taken >= self._limit:
            raise OverloadedError
        self.num_taken += 1

    def give_back(self) -> None:
        assert self.num_taken > 0, "a permit was returned twice"
        self.num_taken -= 1
