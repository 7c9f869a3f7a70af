"""A real Chromium without a window, and what its console has to complain of."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class NoBrowser(Exception):
    """There is no Chromium, or no driver for it (scripts/chromium.sh)."""


@contextmanager
def browser(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """A WebDriver with a profile of its own. :raises NoBrowser:"""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise NoBrowser("there is no chromium (scripts/chromium.sh)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        opened = webdriver.Chrome(options=options, service=Service(driver))
        try:
            resize(opened, width, height)
            look = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": look})
            yield opened
        finally:
            opened.quit()


def resize(opened: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(opened: Any) -> list[str]:
    """What its console has said since this was last asked, errors and warnings and all."""
    return [entry["message"] for entry in opened.get_log("browser")]
