"""Pictures of the service's page, taken in Chromium: two widths, light and dark.

    python docs/service_screenshots.py --checkpoint=saved/TimelineRec-ml-100k-1a2b3c4d.pth

writes docs/assets/service-{1280,390}-{light,dark}.png.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ASSETS = Path(__file__).parent / "assets"
WIDTHS = (1280, 390)
COLOURS = 128


@contextmanager
def service(checkpoint: str, *options: str) -> Iterator[str]:
    """A running service; its address."""
    command = [sys.executable, "-m", "recbole_genrec", "serve", f"--checkpoint={checkpoint}"]
    with subprocess.Popen(
        [*command, "--port=0", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield address(process)
        finally:
            process.terminate()


def address(process: subprocess.Popen) -> str:
    """The address that a service prints when it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        match = re.search(r"http://\S+", line)
        if match:
            place = match.group()
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"{place}/health", timeout=5).close()
                    return place
                except OSError:
                    time.sleep(0.1)
    raise SystemExit("The service did not start.")


@contextmanager
def chromium(width: int, scheme: str) -> Iterator[webdriver.Chrome]:
    """A browser window of a width in pixels, with a colour scheme."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    # without a path selenium would look for a driver in the network
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        resize(driver, width, 900)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Set the size of the visible page, which may be narrower than a window can be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def fill_page(driver: webdriver.Chrome, place: str, titles: list[str]) -> None:
    """Choose a history on the page, and wait for the list."""
    driver.get(place)
    wait = WebDriverWait(driver, 30)
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#matches button"))
    search = driver.find_element(By.ID, "search")
    for number, title in enumerate(titles, start=1):
        search.clear()
        search.send_keys(title)
        button = f'//ul[@id="matches"]//button[contains(., "{title}")]'
        wait.until(lambda page, path=button: page.find_elements(By.XPATH, path))
        driver.find_element(By.XPATH, button).click()
        wait.until(
            lambda page, count=number: (
                len(page.find_elements(By.CSS_SELECTOR, "#chosen li")) == count
            )
        )
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#list li"))
    time.sleep(0.5)


def take(driver: webdriver.Chrome, width: int, file: Path) -> None:
    """Write a picture of the whole page."""
    height = driver.execute_script("return document.documentElement.scrollHeight")
    resize(driver, width, height)
    driver.save_screenshot(str(file))
    picture = Image.open(file).convert("RGB")
    picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(file, optimize=True)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data_path", default="")
    parser.add_argument("--titles", default="Star Wars,Fargo,Toy Story")
    parser.add_argument("--folder", default=str(ASSETS))
    arguments = parser.parse_args()
    options = []
    if arguments.data_path:
        options.append(f"--data_path={arguments.data_path}")
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with service(arguments.checkpoint, *options) as place:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                file = folder / f"service-{width}-{scheme}.png"
                with chromium(width, scheme) as driver:
                    fill_page(driver, place, arguments.titles.split(","))
                    take(driver, width, file)
                print(f"{file}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
