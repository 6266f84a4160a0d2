"""Finding files in local directories and on the Hugging Face Hub, and pushing them there.

A name is a local directory if there is one, and a repository of the Hub otherwise; both hold the same files.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# By endpoint: when it was last asked whether it answers at all, and why it did not.
_heard: dict[str, tuple[float, str | None]] = {}
_SECONDS_HEARD, _SECONDS_TO_ANSWER = 60.0, 4.0
HUB_OPTIONS = ("subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download")


def find_file(
    name_or_path: str | os.PathLike,
    filename: str,
    *,
    required: bool = True,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path | None:
    """Path of a file in a local directory or, downloaded and cached, in a repository on the Hub.

    Args:
        name_or_path: a directory, or a repository such as `google/electra-small-discriminator`.
        required: whether a missing file is an error; otherwise the path is None.
        subfolder, revision, token, cache_dir, local_files_only, force_download: see `huggingface_hub.hf_hub_download`.

    Raises:
        FileNotFoundError: no such file, directory, repository or revision.
        OSError: the Hub answered with an error.
    """
    name = os.fspath(name_or_path)
    if os.path.isdir(name):
        path = Path(name, subfolder, filename)
        if path.is_file():
            return path
        if required:
            raise FileNotFoundError(f"{path.parent} must hold {filename}, which is missing")
        return None
    try:
        within = f"{subfolder}/{filename}" if subfolder else filename
        cached = huggingface_hub.try_to_load_from_cache(name, within, cache_dir=cache_dir, revision=revision)
        if not local_files_only and (force_download or not isinstance(cached, str)) and (reason := _silence()):
            if not required:
                return None
            raise FileNotFoundError(
                f"{name!r} is no directory, its {filename} is not in the cache, and the Hub cannot be asked: {reason}"
            )
        return Path(
            huggingface_hub.hf_hub_download(
                name,
                filename,
                subfolder=subfolder or None,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name!r} is neither a directory nor a name of a model on the Hub") from error
    except EntryNotFoundError as error:
        if not required:
            return None
        if not isinstance(error, LocalEntryNotFoundError):
            at = f" at revision {revision!r}" if revision else ""
            raise FileNotFoundError(f"{name} on the Hub must hold {filename}, which is missing{at}") from error
        why = "local_files_only=True forbids asking the Hub"
        if not local_files_only:
            why = f"the Hub cannot be asked: {_first_line(error.__cause__ or error)}"
        raise FileNotFoundError(f"{name!r} is no directory, its {filename} is not in the cache, and {why}") from error
    except GatedRepoError as error:
        raise FileNotFoundError(f"{name} on the Hub is gated: ask for access on its page and pass token=") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a directory nor a model on the Hub; a private model needs token="
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} on the Hub has no revision {revision!r}") from error
    except HTTPError as error:
        raise OSError(f"{filename} of {name} could not be downloaded from the Hub: {_first_line(error)}") from error


def _silence() -> str | None:
    """Why the Hub gives no answer of any kind; None if it gives one. The answer serves for a minute.

    Without this question huggingface_hub asks for every file six times, with half a minute of pauses.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint, now = huggingface_hub.constants.ENDPOINT, time.monotonic()
    if endpoint not in _heard or now - _heard[endpoint][0] > _SECONDS_HEARD:
        reason = None
        try:
            huggingface_hub.get_session().head(endpoint, timeout=_SECONDS_TO_ANSWER)
        except (HTTPError, OSError) as error:
            reason = f"{_first_line(error)}; HF_HUB_OFFLINE=1 uses what is in the cache without asking"
        _heard[endpoint] = now, reason
    return _heard[endpoint][1]


def push_directory(
    directory: str | os.PathLike,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload ELECTRA",
    create_pr: bool = False,
    files: Iterable[str],
) -> huggingface_hub.CommitInfo:
    """Uploads some files of a directory to a repository of the Hub in one commit; creates it if need be.

    Args:
        files: their names. A directory is never uploaded as a whole: it may hold what is not meant for others.
    """
    api = huggingface_hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=directory,
        revision=revision,
        commit_message=commit_message,
        create_pr=create_pr,
        allow_patterns=[glob.escape(name) for name in files],
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
