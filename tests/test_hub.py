"""Checkpoints by name: every way to miss one is a ValueError that says what to do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from opd_lib.engine.model import hub

ANSWER: Any = SimpleNamespace(headers={}, request=None, status_code=404)


def http(kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    return kind("the hub's own words", response=ANSWER)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http(errors.RepositoryNotFoundError), "not on the hub, or private"),
        (http(errors.GatedRepoError), "it is gated; ask for access on https://huggingface.co/org/model"),
        (http(errors.RevisionNotFoundError), "it has no such revision; take a commit of"),
        (errors.LocalEntryNotFoundError("offline\nand more"), r"the hub cannot be reached \(offline\); connect once"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=f"org/model@abc: .*{said}"):
        hub.fetch("org/model@abc")


@pytest.mark.parametrize("name", ["no/such/folder", "../nowhere", "a b"])
def test_a_path_that_is_not_there_is_no_hub_name(name: str) -> None:
    with pytest.raises(ValueError, match="no such folder, and no name of a model on the hub"):
        hub.fetch(name)


def test_name_and_revision_are_told_apart_and_a_folder_stands_for_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch("org/model@0123abc") == hub.fetch("org/model") == hub.fetch(tmp_path) == tmp_path
    assert asked == [("org/model", "0123abc"), ("org/model", None)]
