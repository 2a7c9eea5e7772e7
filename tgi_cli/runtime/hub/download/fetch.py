"""Fetch files, some at a time: each resumes, is checked as it arrives and is placed when whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import constants, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]
from huggingface_hub.utils import tqdm as hub_bar  # type: ignore[attr-defined]

from tgi_cli.errors import HubUnreachableError, VerificationError
from tgi_cli.runtime.hub.download.digest import has_digest, new_digest
from tgi_cli.runtime.hub.download.hub_client import BrokenOffError, Hub, Stop
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile
from tgi_cli.runtime.hub.download.partial_file import PartialFile, TooLongError, disk_error
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.store import Store
from tgi_cli.runtime.hub.download.threads import run_in_threads

_MAX_TEXT_BYTES = 100_000_000
_RANGE_NOT_SATISFIABLE = 416


class _NoBar(hub_bar):
    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(disable=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches the files of one commit into a store."""

    listing: Listing
    store: Store
    hub: Hub
    progress: Progress
    is_hashed: bool
    stop: Stop

    def fetch_all(self, files: Sequence[RemoteFile], num_workers: int) -> None:
        """Fetch every file, the largest first, so that none of them is left for the end.

        Raises:
            StartError: the first failure; the other files stop where they are.
        """
        by_size = sorted(files, key=lambda file: -file.num_bytes)
        run_in_threads(self.fetch, by_size, num_workers, self.stop)

    def fetch(self, file: RemoteFile) -> None:
        if file.num_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
            self._fetch_chunked(file)
            return
        for is_last in (False, True):
            if self._arrives_right(file):
                try:
                    self.store.place(file)
                except OSError as exc:
                    raise disk_error(exc, file.name, self.store.folder) from exc
                return
            self.store.partial(file).unlink(missing_ok=True)
            self._tell_wrong(file, is_last)
        raise wrong_file(self.listing.repository, file)

    def _arrives_right(self, file: RemoteFile) -> bool:
        """Fetch what is missing of the partial file; return whether the whole is right."""
        with PartialFile(
            self.store.partial(file),
            file,
            is_hashed=self.is_hashed,
            advance=lambda num_bytes: self.progress.advance(file.name, num_bytes),
            is_stopped=self.stop.is_set,
        ) as partial:
            self.progress.begin_file(file.name, file.num_bytes, partial.num_bytes)
            try:
                self.hub.ask(
                    lambda: self._request(file, partial),
                    self.listing.repository,
                    revision=self.listing.commit,
                    file=file.name,
                    num_arrived=lambda: partial.num_received,
                )
                is_right = partial.has_digest()
            except (TooLongError, _WrongLengthError):
                is_right = False
            if not is_right:
                partial.empty()
            self.progress.end_file(file.name)
            return is_right

    def _request(self, file: RemoteFile, partial: PartialFile) -> None:
        """Ask for the rest of a file once."""
        if partial.num_bytes == file.num_bytes:
            return
        before = partial.num_bytes
        try:
            http_get(
                file_url(self.listing, file),
                partial,  # type: ignore[arg-type]
                resume_size=partial.num_bytes,
                headers=self.hub.headers(),
                expected_size=file.num_bytes,
                displayed_filename=file.name,
                tqdm_class=_NoBar,
                _nb_retries=0,
            )
        except HfHubHTTPError as exc:
            if exc.response.status_code == _RANGE_NOT_SATISFIABLE:
                raise _WrongLengthError from exc
            raise
        except (OSError, ValueError) as exc:
            # The client's words for a body that is whole and yet too short, and for headers that
            # make no sense: the disk's own errors are told where they happen.
            if partial.num_bytes > before:
                raise BrokenOffError from exc
            raise _WrongLengthError from exc

    def _fetch_chunked(self, file: RemoteFile) -> None:
        """Fetch a file that the hub gives only in its own chunked form, through its client.

        It is placed before it is checked, and an interrupted one starts anew.
        """
        for is_last in (False, True):
            self.progress.begin_file(file.name, file.num_bytes)
            self.hub.ask(
                lambda: self._request_chunked(file),
                self.listing.repository,
                revision=self.listing.commit,
                file=file.name,
            )
            self.progress.advance(file.name, file.num_bytes)
            self.progress.end_file(file.name)
            if not self.is_hashed or has_digest(self.store.path(file), file.etag):
                return
            self.store.drop(file)
            self.progress.advance(file.name, -file.num_bytes)
            self._tell_wrong(file, is_last)
        raise wrong_file(self.listing.repository, file)

    def _tell_wrong(self, file: RemoteFile, is_last: bool) -> None:
        if not is_last:
            self.progress.say(f"{file.name}: not what the hub says it is; fetching it once more")

    def _request_chunked(self, file: RemoteFile) -> None:
        try:
            hf_hub_download(
                self.listing.repository,
                file.name,
                revision=self.listing.commit,
                token=self.hub.token,
                tqdm_class=_NoBar,
                **self.store.hub_target(),  # type: ignore[call-overload]
            )
        except LocalEntryNotFoundError as exc:  # the client's word for any trouble on the way
            raise BrokenOffError from exc
        except (RuntimeError, ValueError) as exc:
            raise HubUnreachableError(
                f"{self.listing.repository}: {file.name} can't be had in the hub's chunked form "
                f"({type(exc).__name__}).",
                hint="Files above 50 GB need the package hf_xet: pip install hf_xet.",
            ) from exc


class _WrongLengthError(Exception):
    """The server ends the file before its listed size, or its words on the length make no sense."""


def read_text(listing: Listing, file: RemoteFile, hub: Hub) -> str:
    """Return a small file of the repository without storing it.

    Raises:
        VerificationError: it isn't what the hub's listing says.
        StartError: it can't be fetched.
    """
    if file.num_bytes > _MAX_TEXT_BYTES:
        raise VerificationError(f"{listing.repository}: {file.name} is too large for an index.")

    def request() -> bytes:
        with get_session().stream(
            "GET",
            file_url(listing, file),
            headers=hub.headers(),
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        ) as response:
            hf_raise_for_status(response)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > file.num_bytes:
                    raise wrong_file(listing.repository, file)
            return bytes(content)

    content = hub.ask(request, listing.repository, revision=listing.commit, file=file.name)
    digest = new_digest(file.etag, file.num_bytes)
    digest.update(content)
    if digest.hexdigest() != file.etag:
        raise wrong_file(listing.repository, file)
    return content.decode("utf-8", "replace")


def file_url(listing: Listing, file: RemoteFile) -> str:
    return hf_hub_url(listing.repository, file.name, revision=listing.commit)


def wrong_file(repository: str, file: RemoteFile) -> VerificationError:
    kind = "SHA-256" if len(file.etag) == 64 else "git SHA-1"
    return VerificationError(
        f"{repository}: {file.name} isn't what the hub says it is: {file.num_bytes} bytes with "
        f"{kind} {file.etag}. It was removed.",
        hint="A proxy or mirror may have changed it (HF_ENDPOINT, HTTPS_PROXY); try again without.",
    )
