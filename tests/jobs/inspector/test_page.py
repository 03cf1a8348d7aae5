"""The page in a real browser, headless: plays, seeks, sorts, searches, compares, and never says a word to its console.

Needs Debian's packages chromium and chromium-driver.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.commands.inspect import server
from echo_targets.jobs.inspector.site import Site, write_site
from echo_targets.transforms.models.vocoders.hifigan import UnitHifigan
from tests.jobs.inspector.inspect_root import ILL_TEXT, RECORDED, ROWS, current_first, name, write_root
from tests.schemas.samples import Root
from tests.transforms.speechbrain_checkpoints import make_vocoder

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("chromium and chromium-driver are not installed", allow_module_level=True)

PHONE = (390, 844)
DESK = (1280, 900)
UNTIL = 30


class Page:
    """The page as a person has it before them."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, hash: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address + hash)
        self.until(lambda: self.js("return 'ready' in document.documentElement.dataset"))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, UNTIL, poll_frequency=0.05).until(lambda _: holds())

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.js("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def click(self, selector: str) -> None:
        (found, *_) = self.until(lambda: self.all(selector))
        found.click()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def time(self) -> float:
        """Seconds at which the utterance's sound is."""
        return float(self.js("return document.querySelector('#row audio').currentTime"))

    def head(self, text: str) -> None:
        """Clicks a column's head."""
        (button,) = (button for button in self.all("#table th button") if button.text == text)
        button.click()

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def row(self, number: int) -> None:
        """Opens a row, and waits for it."""
        self.open("#row/" + self.js("return encodeURIComponent(arguments[0])", name(number)))
        self.until(lambda: self.texts("#row h1") == [name(number)] and self.all("#row .timeline canvas[width]"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return write_root(tmp_path_factory.mktemp("page") / "root")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # --no-sandbox: CI runs as root; --disable-dev-shm-usage: with little shared memory
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def site(root: Root) -> Site:
    return write_site(str(root.folder), root.folder.parent / "site", ROWS)[0]


@pytest.fixture
def page(driver: Any, site: Site) -> Iterator[Page]:
    """The page, opened as a file."""
    page = Page(driver, (site.folder / "index.html").as_uri())
    page.size(*DESK)
    driver.get_log("browser")
    yield page
    assert [entry["message"] for entry in driver.get_log("browser")] == []
    assert page.js("return window.ill") is None


def test_overview(page: Page) -> None:
    page.open()
    assert page.texts(".cards b")[0] == str(ROWS) and page.texts(".cards b")[3] == "2"
    assert [line.split()[0] for line in page.texts("#funnel tbody tr")][:2] == ["entries", "utterances"]
    charts = len(page.all("#scores figure"))
    assert charts == len(page.all("#scores canvas")) == page.js("return site.index.scores.length") > 5
    assert len(page.all("#shards canvas")) == len(page.js("return Object.keys(site.index.shards)"))
    assert ILL_TEXT in page.texts(".reject")[0]
    page.click("#scores a[href='#rows/wer_vs_reference']")
    page.until(lambda: page.texts("#table th[aria-sort=descending]") == ["WER"])


def test_sorts_searches_and_turns_pages(page: Page) -> None:
    page.open("#rows")
    assert len(page.all("#table tbody tr")) == 50 and page.texts("#found") == [f"1 to 50 of {ROWS} utterances"]
    page.click("#pager button:nth-of-type(3)")
    assert len(page.all("#table tbody tr")) == ROWS - 50

    by_error = sorted(range(ROWS), key=lambda number: (-(number * 37 % ROWS), number))
    page.head("WER")
    assert page.texts("#table td.id a")[:5] == [name(number) for number in by_error[:5]]
    page.head("WER")
    assert page.texts("#table td.id a")[0] == name(by_error[-1])
    page.head("unit error rate")
    assert page.texts("#table td.id a")[:2] == [name(68), name(66)]
    page.click("#direction")
    assert page.texts("#table td.id a")[:2] == [name(0), name(2)]  # rows without a score stay last

    page.press("/")
    page.driver.switch_to.active_element.send_keys("UTT-00004")
    page.until(lambda: page.texts("#table td.id a") == [name(4)])
    search = page.all("#search")[0]
    search.clear()
    search.send_keys("number 17")
    page.until(lambda: page.texts("#table td.id a") == [name(17)])
    search.clear()
    search.send_keys("there is none")
    page.until(lambda: page.texts("#found")[0].startswith("No utterance matches"))


def test_keyboard_walks_the_list_and_opens(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("#rows")
    page.press("j", "j", "j", "j", Keys.ARROW_DOWN, "k")
    assert page.texts("#table tr.here .id a") == [name(4)]
    page.press(Keys.ENTER)
    page.until(lambda: page.texts("#row h1") == [name(4)])
    page.press("j")
    page.until(lambda: page.texts("#row h1") == [name(5)])
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.until(lambda: page.texts("#row h1") == [name(3)])
    page.press(Keys.ESCAPE)
    page.until(lambda: page.texts("#table tr.here .id a") == [name(3)])


def test_plays_and_seeks(page: Page) -> None:
    page.row(8)
    page.until(lambda: page.js("return document.querySelector('#row audio').readyState") >= 3)
    assert page.js("return document.querySelector('#row audio').duration") == pytest.approx(1.05, abs=0.01)
    page.press(" ")
    page.until(lambda: page.time() > 0.2)
    page.press(" ")
    page.until(lambda: page.js("return document.querySelector('#row audio').paused"))
    time, shift, scale = page.js(
        "const head = document.querySelector('#row .head'), audio = document.querySelector('#row audio');"
        "return [audio.currentTime, new DOMMatrix(getComputedStyle(head).transform).m41, row.timelines[0].scale]"
    )
    assert shift == pytest.approx(time * scale, abs=0.1 * scale)  # the playhead goes with the sound

    page.click("#row .word:nth-child(2)")
    page.until(lambda: page.time() == pytest.approx(0.438, abs=0.01))
    page.until(lambda: page.texts("#row .word.now") == ["you"])
    canvas = page.all("#row .timeline canvas")[0]
    webdriver.ActionChains(page.driver).move_to_element_with_offset(
        canvas, int(canvas.size["width"] * 0.25), 0
    ).click().perform()
    page.until(lambda: page.time() == pytest.approx(0.79, abs=0.02))
    assert "unit " in page.texts("#row .readout")[0]


def test_text_differs_and_versions_stand_side_by_side(page: Page, root: Root) -> None:
    page.row(8)
    assert page.texts("#row .diff del") == ["well,", "there"] and page.texts("#row .diff ins") == ["where"]
    assert page.texts("#row article h3 code") == current_first(root)
    left, right = (article.rect for article in page.all("#row article"))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    assert len(page.all("#row article:first-child .pair.d")) == 3
    assert len(page.all("#row article:first-child .pair.s")) == 1
    assert len(page.all("#row article:last-child .pair.s")) == 0
    page.row(10)
    assert "segments end at 0.45 s" in page.all("#row .timeline canvas")[1].get_attribute("aria-label")
    assert len(page.all("#row .timeline")) == 2  # the question and its recorded reply


def test_a_target_is_sketched(page: Page) -> None:
    page.row(8)
    page.click("#row .sketch button")
    page.until(lambda: page.js("return document.querySelector('#row .sketch audio')?.duration > 0.3"))
    crossings, length = page.js(
        "const tone = new Float32Array(513); tone[64] = 1;"  # 1000 Hz, for 50 frames of 20 ms
        "const wave = sketch.invert(new Array(50).fill(tone), 320);"
        "return [wave.filter((value, at) => at && value >= 0 !== wave[at - 1] >= 0).length, wave.length]"
    )
    assert crossings == pytest.approx(2 * 1000 * length / 16_000, rel=0.02)


def test_a_target_is_said_by_a_vocoder(driver: Any, root: Root, tmp_path: Path) -> None:
    pytest.importorskip("speechbrain")
    voice = UnitHifigan(make_vocoder(tmp_path / "vocoder", 101))
    spoken, _ = write_site(str(root.folder), tmp_path / "page", ROWS, voice)
    page = Page(driver, (spoken.folder / "index.html").as_uri())
    page.size(*DESK)
    driver.get_log("browser")
    page.row(8)
    page.until(lambda: page.js("return document.querySelectorAll('#row article audio')[1]?.duration > 0.1"))
    assert page.all("#row .sketch button") == [] and driver.get_log("browser") == []


def test_what_means_ill_is_text(page: Page) -> None:
    page.row(2)
    assert ILL_TEXT.split()[0] in page.texts("#row .diff")[0]
    assert page.all("#row img, #row script, #table img, #table script") == []
    page.open("#rows")
    page.until(lambda: name(2) in page.texts("#table td.id a"))
    page.js("document.querySelectorAll('#table td.id a')[2].click()")
    page.until(lambda: page.texts("#row h1") == [name(2)])
    page.open("#row/nobody")
    page.until(lambda: "No utterance has this id" in page.texts("#row")[0])


def test_phone_and_dark(page: Page) -> None:
    for width, height in (PHONE, DESK):
        page.size(width, height)
        for hash in ("", "#rows", "#row/" + name(8)):
            page.open(hash)
            page.until(lambda: page.all("main section:not([hidden]) :is(table, canvas)"))
            assert page.js("return document.documentElement.scrollWidth") <= width, hash
    backs = []
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        backs.append(page.js("return getComputedStyle(document.documentElement).backgroundColor"))
    assert backs == ["rgb(251, 251, 250)", "rgb(19, 20, 22)"]


def test_controls_have_names(page: Page) -> None:
    page.row(8)
    page.js("list.draw()")
    nameless = page.js(
        "return [...document.querySelectorAll('button, a, input, select, audio, canvas, [role=img]')]"
        ".filter((one) => !one.closest('.chart') || one.matches('.chart')).filter((one) =>"
        " !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))"
        ".map((one) => one.outerHTML)"
    )
    assert nameless == []


def test_a_server_gives_any_row_its_sound(driver: Any, root: Root, tmp_path: Path) -> None:
    quiet, _ = write_site(str(root.folder), tmp_path / "quiet", 0)
    silent = Page(driver, (quiet.folder / "index.html").as_uri())
    silent.row(8)
    assert silent.all("#row audio") == [] and "No sound here" in silent.texts("#row .timeline .note")[0]
    with server(quiet) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        served = Page(driver, f"http://127.0.0.1:{serving.server_port}/")
        served.row(8)
        served.until(lambda: served.js("return document.querySelector('#row audio').readyState") >= 3)
        serving.shutdown()
    assert [entry["message"] for entry in driver.get_log("browser")] == []


def test_a_recording_shows_its_cuts(page: Page) -> None:
    """A lane for each channel; the row's own cut is marked, and each leads to its utterance."""
    page.row(45)
    assert page.texts("#row .lane .channel") == ["channel 0", "channel 1"]
    cuts = page.js(
        "return [...document.querySelectorAll('#row .cut')].map((cut) => ({lane: [...cut.closest('.lanes').children]"
        ".indexOf(cut.closest('.lane')), left: cut.offsetLeft, wide: cut.offsetWidth, says: cut.title, "
        "inside: cut.classList.contains('inside'), here: cut.getAttribute('aria-current')}))"
    )
    assert len(cuts) == 10 and [cut["lane"] for cut in cuts] == [0] * 5 + [1] * 5
    assert [cut["here"] for cut in cuts] == [None, None, "true", *[None] * 7]
    assert [cut["inside"] for cut in cuts] == [False, True, *[False] * 8]
    assert "turn 1, 6.3 to 7.5 s: well, hello there number 45" in cuts[2]["says"]
    for lane in (cuts[:5], cuts[5:]):
        assert all(one["left"] + one["wide"] <= other["left"] + 1 for one, other in pairwise(lane))
    assert f"6.25 to 7.53 s of {RECORDED}" in page.texts("#row .facts li")
    page.all("#row .cut")[6].click()
    page.until(lambda: page.texts("#row h1") == [name(42)])
    page.row(30)
    assert not page.all("#row .cut")
