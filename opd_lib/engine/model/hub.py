"""Where a checkpoint is: a folder, a GGUF file, or a model of the hub, `org/name` or `org/name@revision`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opd_lib.names import GGUF_PREFIX

WEIGHTS = "*.safetensors"
FILES = ("*.json", WEIGHTS, "*.txt", "*.model", "*.jinja")
"""What a checkpoint is made of: configuration, weights, tokenizer, chat template."""


def fetch(reference: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint, downloaded first if it is on the hub and not yet in the hub's cache.

    A GGUF file's is written first if nobody has yet (`gguf_files`).

    `weights` false leaves those out. A revision should be a commit: a branch may change. Raises ValueError, with what
    to do about it, for a folder or model that is not there, a gated one, a wrong revision, and without network.
    """
    from huggingface_hub import snapshot_download

    if str(reference).startswith(GGUF_PREFIX):
        from opd_lib.engine.model import gguf_files  # which needs torch; planning does not

        return gguf_files.folder(str(reference))
    if Path(reference).is_dir():
        return Path(reference)
    name, _, revision = str(reference).partition("@")
    with missing_said(reference, name):
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns(weights)))


def outstanding(reference: str | Path) -> int | None:
    """Bytes that `fetch` would download: 0 for folders, files and what the hub's cache holds; None: it cannot be asked.

    Raises ValueError as `fetch` does.
    """
    from huggingface_hub import errors, snapshot_download

    if str(reference).startswith(GGUF_PREFIX) or Path(reference).is_dir():
        return 0
    name, _, revision = str(reference).partition("@")
    with missing_said(reference, name):
        try:
            asked = snapshot_download(name, revision=revision or None, allow_patterns=patterns(True), dry_run=True)
        except errors.DryRunError:
            return None  # no network: `fetch` finds it in the cache, or says what is wrong
    return sum(file.file_size or 0 for file in asked if file.will_download)


def patterns(weights: bool) -> list[str]:
    """Which files of a model on the hub are fetched."""
    return [pattern for pattern in FILES if weights or pattern != WEIGHTS]


@contextmanager
def missing_said(reference: str | Path, name: str) -> Iterator[None]:
    """Let what goes wrong with a model on the hub be one ValueError that says what to do."""
    from huggingface_hub import errors

    page, wrong = f"https://huggingface.co/{name}", f"cannot load a checkpoint from {reference}:"
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(
            f"{wrong} no such folder, and no name of a model on the hub; give a folder written by save_pretrained, "
            "org/name, org/name@revision, gguf:FILE, or run:NOTEBOOK/ARM (`opd run NOTEBOOK ARM SEED` makes that again)"
        ) from error
    except errors.GatedRepoError as error:
        raise ValueError(f"{wrong} it is gated; ask for access on {page} and log in with `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{wrong} it has no such revision; take a commit of {page}/commits/main") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"{wrong} not on the hub, or private; see {page}, or log in with `hf auth login`") from error
    except (errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise ValueError(
            f"{wrong} no such folder, and the hub cannot be reached ({str(error).splitlines()[0]}); connect once to "
            "fill the cache, or name a folder that holds the checkpoint"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{wrong} it cannot be downloaded ({error}); free the disk, or set HF_HOME elsewhere"
        ) from error
