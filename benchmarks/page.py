"""Time `echo-targets inspect` on 100,000 utterances, and opening its page in a browser.

python -m benchmarks.page [--rows 100000] [--rounds 5]

The root comes from a rehearsal, without audio. Each round opens the page from disk in a browser with a new profile.
Needs chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from selenium import webdriver

from benchmarks.rehearsal import STAND_INS, rehearse
from benchmarks.rehearsal_stages import CORPORA
from echo_targets.jobs.inspector.site import write_site

SORT = """
const started = performance.now();
list.sortBy("wer_vs_reference");
list.find();
return (performance.now() - started) / 1000;
"""


def browser(profile: str) -> Any:
    """Return a headless browser with a new profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))


def opened(page: Path) -> tuple[float, float, float]:
    """Return the seconds to open the overview, to open the list of rows, and to sort the list."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = browser(profile)
        try:
            driver.get("about:blank")
            overview = _until_ready(driver, f"{page.as_uri()}#home")
            driver.get("about:blank")
            rows = _until_ready(driver, f"{page.as_uri()}#rows")
            return overview, rows, driver.execute_script(SORT)
        finally:
            driver.quit()


def _until_ready(driver: Any, address: str) -> float:
    started = time.perf_counter()
    driver.get(address)
    while not driver.execute_script("return 'ready' in document.documentElement.dataset"):
        time.sleep(0.01)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, site = f"{folder}/root", Path(folder, "page")
        items = sum(corpus.items for corpus in CORPORA)
        for _ in islice(rehearse(root, chosen.rows / items, 2), 1 + len(STAND_INS)):
            pass
        started = time.perf_counter()
        write_site(root, site, 0)
        made = time.perf_counter() - started
        size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        print(f"{chosen.rows:,} rows: made in {made:.1f} s, {size / 1e6:.0f} MB")
        rounds = [opened(site / "index.html") for _ in range(chosen.rounds)]
        for name, times in zip(
            ("overview", "list of rows", "sorted by a score"), zip(*rounds, strict=True), strict=True
        ):
            print(f"{name}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
