"""The walk from a hub id to a folder of checked files; `tgi serve` and `tgi download` take it."""

from __future__ import annotations

from huggingface_hub import constants

from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.cached import find_cached
from tgi_cli.runtime.hub.download.choice import Choice, choose_files
from tgi_cli.runtime.hub.download.disk import check_space, free_bytes
from tgi_cli.runtime.hub.download.fetch import Fetcher, read_text
from tgi_cli.runtime.hub.download.hub_client import Hub, Stop, hub_session, stoppable_pause
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile, resolve
from tgi_cli.runtime.hub.download.lock import repository_lock
from tgi_cli.runtime.hub.download.partial_file import disk_error
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.reference import parse_reference
from tgi_cli.runtime.hub.download.result import FileReport, Obtained
from tgi_cli.runtime.hub.download.space import conversion_bytes
from tgi_cli.runtime.hub.download.store import CacheStore, FolderStore, Store, usual_cache
from tgi_cli.runtime.hub.download.verify import check_weights, wrong_files


def obtain(options: DownloadOptions, progress: Progress, stop: Stop) -> Obtained:
    """Return the files of a repository, fetching what isn't here; setting `stop` ends it early.

    Raises:
        StartError: it can't be had, and why; what has arrived stays for the next run.
    """
    reference = parse_reference(options.model_id, options.revision)
    if options.is_offline or constants.HF_HUB_OFFLINE:
        return find_cached(reference, options, progress, stop)
    with hub_session():
        hub = Hub(options.token, stoppable_pause(stop), progress.say)
        listing = resolve(reference, hub)
        store = _store(options, listing)

        def index_text(file: RemoteFile) -> str:
            if store.holds(file):
                return store.path(file).read_text("utf-8", "replace")
            return read_text(listing, file, hub)

        choice = choose_files(listing, options, reference.quantization, index_text)
        held = [file for file in choice.files if store.holds(file)]
        if not options.is_dry_run:
            wrong = _wrong(held, options, store, progress, stop)
            held = [file for file in held if file not in wrong]
            fetcher = Fetcher(listing, store, hub, progress, options.check == "sha256", stop)
            _complete(fetcher, choice, wrong, options)
            if options.check != "none":
                check_weights(store.folder, (file.name for file in choice.files))
    return Obtained(
        model_id=listing.repository,
        folder=store.folder,
        files=tuple(FileReport(f.name, f.num_bytes, f in held) for f in choice.files),
        commit=listing.commit,
        revision=listing.revision,
        pipeline_tag=listing.pipeline_tag,
        gguf_file=choice.gguf_file,
        free_bytes=free_bytes(store.folder),
        is_dry_run=options.is_dry_run,
    )


def _store(options: DownloadOptions, listing: Listing) -> Store:
    if options.local_dir is not None:
        return FolderStore(options.local_dir.expanduser(), listing)
    return CacheStore(usual_cache(options.cache_dir, listing.repository), listing)


def _wrong(
    held: list[RemoteFile],
    options: DownloadOptions,
    store: Store,
    progress: Progress,
    stop: Stop,
) -> list[RemoteFile]:
    if options.check != "sha256" or not options.rechecks_cached:
        return []
    wrong = wrong_files(held, store.path, progress, options.num_workers, stop)
    for file in wrong:
        progress.say(f"{file.name}: the copy that is here is damaged; fetching it again")
    return wrong


def _complete(
    fetcher: Fetcher, choice: Choice, wrong: list[RemoteFile], options: DownloadOptions
) -> None:
    """Put every chosen file into its place: nothing is written if they are all there."""
    store, progress = fetcher.store, fetcher.progress
    try:
        if wrong or not all(store.holds(file) for file in choice.files):
            with repository_lock(store.lock_file, progress.say):
                for file in wrong:
                    store.drop(file)
                # Another process may have fetched them while this one waited.
                missing = [file for file in choice.files if not store.holds(file)]
                _fetch(fetcher, missing, options, conversion_bytes(choice, options))
        for file in choice.files:
            store.place(file)
        store.finish()
    except OSError as exc:
        raise disk_error(exc, fetcher.listing.repository, store.folder) from exc


def _fetch(
    fetcher: Fetcher, missing: list[RemoteFile], options: DownloadOptions, num_converted: int
) -> None:
    if not missing:
        return
    store, progress = fetcher.store, fetcher.progress
    arrived = sum(_num_arrived(store, file) for file in missing)
    total = sum(file.num_bytes for file in missing)
    if not options.ignores_disk_space:
        what, spare = fetcher.listing.repository, options.min_free_bytes
        check_space(what, store.folder, total - arrived + num_converted, spare)
    progress.begin("download", len(missing), total, arrived)
    try:
        fetcher.fetch_all(missing, options.num_workers)
    finally:
        progress.end()


def _num_arrived(store: Store, file: RemoteFile) -> int:
    try:
        num_bytes = store.partial(file).stat().st_size
    except FileNotFoundError:
        return 0
    return num_bytes if num_bytes <= file.num_bytes else 0
