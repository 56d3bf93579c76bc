"""Screenshots of pages in headless Chromium, light and dark, wide and narrow.

python docs/screenshots.py report=saved/X.html leaderboard=results/leaderboard.html
"""

from __future__ import annotations

import argparse
import base64
import shutil
import time
from pathlib import Path

from selenium import webdriver

WIDTHS = (1280, 390)
THEMES = ("light", "dark")
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def browser() -> webdriver.Chrome:
    """A headless Chromium, the one of the system."""
    options = webdriver.ChromeOptions()
    program = shutil.which("chromium")
    if program is not None:
        options.binary_location = program
    for argument in ARGUMENTS:
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def show(driver: webdriver.Chrome, page: Path, width: int, theme: str, height: int) -> None:
    """Open a page as a screen of this width and theme shows it."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(page.resolve().as_uri())
    time.sleep(2)


def overflow(driver: webdriver.Chrome) -> int:
    """Pixels by which the page is wider than the screen."""
    return driver.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def capture(driver: webdriver.Chrome, file: Path, width: int, height: int, top: int = 0) -> None:
    """Write a picture of the page from ``top`` on, as the ending of ``file`` says."""
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    kind = file.suffix.lstrip(".")
    command = {"format": kind, "clip": clip, "captureBeyondViewport": True}
    if kind != "png":
        command["quality"] = 72
    image = driver.execute_cdp_cmd("Page.captureScreenshot", command)
    file.write_bytes(base64.b64decode(image["data"]))


def main() -> None:
    """Take all pictures of the pages on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", help="name=file.html")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "assets")
    parser.add_argument("--height", type=int, default=1500, help="of each picture, in pixels")
    parser.add_argument("--top", type=int, default=0, help="where each picture begins")
    parser.add_argument("--format", default="webp", choices=["webp", "png", "jpeg"])
    arguments = parser.parse_args()
    driver = browser()
    for page in arguments.pages:
        name, _, file = page.partition("=")
        for width in WIDTHS:
            for theme in THEMES:
                show(driver, Path(file), width, theme, arguments.height)
                picture = arguments.output / f"{name}-{width}-{theme}.{arguments.format}"
                capture(driver, picture, width, arguments.height, arguments.top)
                size = picture.stat().st_size // 1000
                print(f"{picture}: {size} kB, {overflow(driver)} pixels too wide")
    driver.quit()


if __name__ == "__main__":
    main()
