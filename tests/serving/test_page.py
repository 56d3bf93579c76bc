"""The page of the service in Chromium, against what the model says."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
import uvicorn
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.serving.recommender import Recommender
from recbole_genrec.serving.service import create_app

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(DRIVER is None, reason="there is no chromedriver")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def place(checkpoints):
    """The address of a service of the TIGER model, and the model."""
    yield from served(checkpoints.tiger)


@pytest.fixture
def sasrec(checkpoints):
    yield from served(checkpoints.sasrec)


def served(checkpoint: str):
    recommender = Recommender(load_recommender(checkpoint))
    server = uvicorn.Server(uvicorn.Config(create_app(recommender), log_config=None))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", recommender.model
        server.should_exit = True
        thread.join(30)


class Browser:
    """What a person does on the page."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver
        self.wait = WebDriverWait(driver, 30, ignored_exceptions=[StaleElementReferenceException])

    def open(self, place: str, width: int = 1280, scheme: str = "light") -> None:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(place)
        self.wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "body[data-ready]"))

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText)"
        return self.driver.execute_script(script, selector)

    def click(self, selector: str) -> None:
        """Click the first such element, once it is there."""

        def clicked(page) -> bool:
            elements = self.all(selector)
            if elements:
                elements[0].click()
            return bool(elements)

        self.wait.until(clicked)

    def await_texts(self, selector: str, expected: list[str]) -> None:
        self.wait.until(lambda page: self.texts(selector) == expected)

    def write(self, text: str) -> None:
        search = self.driver.find_element(By.ID, "search")
        search.clear()
        search.send_keys(text)

    def css(self, name: str) -> str:
        script = f"return getComputedStyle(document.body).getPropertyValue('{name}')"
        return self.driver.execute_script(script)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


def test_a_history_is_clicked_together_and_the_list_follows(browser, place):
    address, model = place
    browser.open(address)
    assert browser.texts("#about") == [f"TIGER on toy, {model.n_items - 1} items"]
    assert browser.all("#walk")[0].is_displayed() is False
    browser.write("brush")
    browser.wait.until(lambda page: len(browser.all("#matches button")) == 5)
    browser.click('#matches button[data-item="i1"]')
    browser.write("soft soap")  # the title with markup in it
    browser.await_texts("#matches button", ["soft <b>soap</b> & no 16"])
    browser.click('#matches button[data-item="i16"]')
    browser.await_texts("#chosen li > span", ["red brush no 1", "soft <b>soap</b> & no 16"])
    assert browser.all("#chosen b") == []

    check_list(browser, model, ["i1", "i16"], excluded=["i1", "i16"])
    browser.click("#exclude")
    check_list(browser, model, ["i1", "i16"], excluded=[])
    browser.click("#chosen button")  # i1 leaves
    check_list(browser, model, ["i16"], excluded=[])

    # the tree shows the codes of the list at its last level
    leaves = browser.all(".node.on")
    assert len(leaves) >= 10
    levels = browser.texts("#levels li")
    assert len(levels) == len(model.level_sizes)
    browser.click("#clear")
    browser.await_texts("#chosen li", [])
    assert browser.all("#list li") == []
    check_no_other_hosts(browser, address)
    assert browser.errors() == []


def check_list(browser: Browser, model, history: list[str], excluded: list[str]) -> None:
    """The list of the page is the model's, with scores, codes and proofs."""
    rows = model.recommend(history, k=10, excluded=excluded)
    titles = model.content.titles
    items = [model.item_ids([row["item"]])[0] for row in rows]
    browser.await_texts("#list .title", [titles[item] for item in items])
    assert browser.texts("#list .rank") == [str(row["rank"]) for row in rows]
    scores = [float(text.split()[1]) for text in browser.texts("#list .score")]
    assert scores == pytest.approx([row["score"] for row in rows], abs=1e-3)
    codes = ["-".join(map(str, model.codes[item].tolist())) for item in items]
    assert browser.texts("#list .codes") == [f"codes {words}" for words in codes]
    assert len(browser.all("#list .proven")) == sum(row["certified"] for row in rows)


def check_no_other_hosts(browser: Browser, address: str) -> None:
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    names = browser.driver.execute_script(script)
    assert names
    assert all(name.startswith(address) for name in names)


def test_a_product_is_added_and_appears(browser, place):
    address, model = place
    browser.open(address)
    text = "soft soap <img src=x onerror=alert(1)>"
    browser.driver.find_element(By.ID, "new-text").send_keys(text)
    browser.driver.find_element(By.ID, "new-id").send_keys("007")
    browser.click("#new-form button")
    browser.await_texts("#matches button", [text])
    note = browser.texts("#new-note")[0]
    codes = "-".join(map(str, model.codes[-1].tolist()))
    assert note.startswith(f"007 is in the catalogue with the codes {codes}.")
    assert browser.all("#matches img") == []
    assert browser.texts("#about") == [f"TIGER on toy, {model.n_items - 1} items"]
    browser.click("#matches button")
    browser.wait.until(lambda page: browser.all("#list li"))

    browser.driver.find_element(By.ID, "new-text").send_keys("another one")
    browser.driver.find_element(By.ID, "new-id").send_keys("007")
    browser.click("#new-form button")
    browser.wait.until(lambda page: "007" in browser.texts("#new-note")[0])
    browser.wait.until(lambda page: "exists already" in browser.texts("#new-note")[0])


def test_the_page_by_keyboard_alone(browser, place):
    address, _ = place
    browser.open(address)
    browser.write("dry brush")
    browser.await_texts("#matches button", ["dry brush no 25"])
    search = browser.driver.find_element(By.ID, "search")
    search.send_keys(Keys.ENTER)
    browser.await_texts("#chosen li > span", ["dry brush no 25"])
    search.send_keys(Keys.ARROW_DOWN)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.await_texts("#chosen li > span", ["dry brush no 25"] * 2)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "search"
    # everything that can be operated has a name
    unnamed = browser.driver.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button')]"
        ".filter(one => !one.labels?.length && !one.textContent.trim()"
        " && !one.getAttribute('aria-label')).map(one => one.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_knows_light_and_dark(browser, place, width):
    address, _ = place
    grounds = set()
    for scheme in ("light", "dark"):
        browser.open(address, width, scheme)
        browser.write("oil")
        browser.wait.until(lambda page: len(browser.all("#matches button")) == 5)
        browser.click("#matches button")
        browser.wait.until(lambda page: browser.all(".node"))
        script = "return document.documentElement.scrollWidth"
        assert browser.driver.execute_script(script) <= width
        grounds.add(browser.css("background-color"))
    assert len(grounds) == 2


def test_a_model_without_codes_has_a_list_and_no_tree(browser, sasrec):
    address, model = sasrec
    browser.open(address)
    browser.write("red oil")
    browser.await_texts("#matches button", ["red oil no 7"])
    browser.click("#matches button")
    rows = model.recommend(["i7"], k=10, excluded=["i7"])
    browser.await_texts("#list .title", [row["text"] for row in rows])
    assert browser.all("#walk")[0].is_displayed() is False
    assert browser.all("#new-item")[0].is_displayed() is False
    assert browser.texts("#list-note") == ["Every item of the catalogue was scored."]
