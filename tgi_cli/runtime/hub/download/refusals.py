"""What the hub's refusals mean to the person who can do something about them: one line each."""

from __future__ import annotations

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tgi_cli.errors import ModelNotFoundError, StartError

REFUSED = (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled)
_GIVE_TOKEN = "set HF_TOKEN to a token that may read it"


def refusal(
    exc: Exception, repository: str, revision: str | None, file: str | None, *, has_token: bool
) -> StartError:
    """Return the error to show. Nothing of the hub's own text is in it."""
    page = f"{constants.ENDPOINT}/{repository}"
    what = repository if file is None else f"{repository}: {file}"
    if isinstance(exc, GatedRepoError):
        way = "with the account of your token" if has_token else f"and {_GIVE_TOKEN}"
        return ModelNotFoundError(
            f"{what}: access is restricted (gated).", hint=f"Accept the licence on {page} {way}."
        )
    if isinstance(exc, RevisionNotFoundError):
        return ModelNotFoundError(
            f"{repository}: no revision {revision!r}.",
            hint=f"Branches and tags are listed on {page}/tree/main.",
        )
    if isinstance(exc, EntryNotFoundError):
        return _file_is_gone(what, page)
    if isinstance(exc, DisabledRepoError):
        return ModelNotFoundError(
            f"{repository}: the hub has disabled it.", hint=f"Its page, {page}, may say why."
        )
    if isinstance(exc, OfflineModeIsEnabled):
        return ModelNotFoundError(
            f"{what}: not in the cache, and HF_HUB_OFFLINE forbids to fetch it.",
            hint="Unset HF_HUB_OFFLINE once.",
        )
    if isinstance(exc, RepositoryNotFoundError | HFValidationError):
        return _not_found(repository, page)
    assert isinstance(exc, HfHubHTTPError)
    return _by_status(exc.response.status_code, what, repository, page, has_token=has_token)


def _by_status(
    status: int, what: str, repository: str, page: str, *, has_token: bool
) -> StartError:
    if status == 401:
        cause = "the hub doesn't know the token" if has_token else "the hub wants a token"
        return ModelNotFoundError(
            f"{what}: {cause} (401).",
            hint=f"Make one on {constants.ENDPOINT}/settings/tokens and set HF_TOKEN.",
        )
    if status == 403:
        return ModelNotFoundError(
            f"{what}: the token may not read this (403).",
            hint=f"Give it read access to {repository}, or ask its owner on {page}.",
        )
    if status == 404:
        return _not_found(repository, page) if what == repository else _file_is_gone(what, page)
    return ModelNotFoundError(
        f"{what}: the hub refuses (status {status}).", hint=f"Check the name, and {page}."
    )


def _file_is_gone(what: str, page: str) -> StartError:
    return ModelNotFoundError(
        f"{what}: the hub lists this file but doesn't have it.",
        hint=f"See {page}/tree/main; run the same command again if it has just changed.",
    )


def _not_found(repository: str, page: str) -> StartError:
    return ModelNotFoundError(
        f"{repository}: no such folder, and no such repository on the hub (or it is private).",
        hint=f"Check the name on {page}; for a private repository, {_GIVE_TOKEN}.",
    )
