"""Upload a model's folder to a repository on the hub. The hub's own client does the work."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from tgi_cli.errors import HubUnreachableError, ModelNotFoundError


def check_push(repository: str) -> None:
    """Make the repository, private, unless it is there: before hours of work, not after them.

    Raises:
        ModelNotFoundError: no token, or one that may not write there.
        HubUnreachableError: the hub can't be reached.
    """
    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
    except Exception as exc:  # the client's own errors, and those of the HTTP library it uses
        raise _refused(repository, exc) from exc


def push_folder(folder: Path, repository: str, message: str) -> str:
    """Upload every file of `folder` as one commit; return the commit's address.

    Raises:
        ModelNotFoundError, HubUnreachableError: as `check_push`.
    """
    try:
        made = HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as exc:  # the client's own errors, and those of the HTTP library it uses
        raise _refused(repository, exc) from exc
    return str(made.commit_url)


def _refused(repository: str, exc: Exception) -> ModelNotFoundError | HubUnreachableError:
    if isinstance(exc, HfHubHTTPError) and exc.response.status_code < 500:
        reason = f"the hub answers {exc.response.status_code}"
    elif isinstance(exc, LocalTokenNotFoundError | HFValidationError):
        reason = "no token" if isinstance(exc, LocalTokenNotFoundError) else "no such name"
    else:
        return HubUnreachableError(
            f"--push-to-hub {repository}: the hub can't be reached ({type(exc).__name__}).",
            hint="A result that is written stays on the disk: upload it when the hub is back.",
        )
    return ModelNotFoundError(
        f"--push-to-hub {repository}: {reason}.",
        hint="Set HF_TOKEN to a token that may write to this repository.",
    )
