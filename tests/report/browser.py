"""A page in a real browser: Chromium as the system installed it, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped where Chromium or Playwright is not installed."""
    if not CHROMIUM:
        pytest.skip("no chromium is installed; on Debian: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not start for root, which is who runs tests in a container.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, view: str = "", *, width: int = 1280, scripts: bool = True) -> Iterator[Any]:
    """The page in a window of this width. Every error of its script, and every forbidden load, fails the test."""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(f"file://{file}{view}")
    yield page
    context.close()
    assert not problems
