"""The browser that tests drive: a Chromium that is on this machine; none is downloaded for a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
APPLICATION = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

BADGES = """(selector) => {
    const channels = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const light = (value) => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
    const behind = (element) => {
        const found = channels(getComputedStyle(element).backgroundColor);
        return found.length === 3 || found[3] === 1 || !element.parentElement ? found : behind(element.parentElement);
    };
    return [...document.querySelectorAll(selector)].filter((badge) => badge.offsetHeight).map((badge) => {
        const [one, two] = [channels(getComputedStyle(badge).color), behind(badge)].map(luminance);
        const box = badge.getBoundingClientRect();
        const inView = box.left >= 0 && box.right <= innerWidth;
        return [badge.textContent.trim(), (Math.max(one, two) + .05) / (Math.min(one, two) + .05), inView];
    });
}"""
"""[word, contrast, whether it is on the screen without scrolling sideways] of every verdict that is shown."""


def find() -> str | None:
    """Its program: of NAMES the first on the path, or macOS's application."""
    on_path = next((found for name in NAMES if (found := shutil.which(name))), None)
    return on_path or (str(APPLICATION) if APPLICATION.exists() else None)


@contextmanager
def started() -> Iterator[Any]:
    """Playwright's browser; the test is skipped where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    program = find()
    if program is None:
        pytest.skip(f"no {', '.join(NAMES)} on the path and no {APPLICATION.name} among the applications")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
