"""The report as a browser shows it: whole, in its place, without a network and without running what users wrote."""

import json
import re
import shutil
import subprocess
from html import unescape

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklearn_acs import PGD, make_robustness_report

NAMES = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome")
TITLE = "<script>document.title = 'ran'</script>"
LONG_NAME = "an_attack_whose_name_has_" + "many_" * 15 + "letters"

# Runs in a copy of the page alone, and leaves what it finds in an attribute, which --dump-dom prints.
MEASURE = """<script>
addEventListener("load", () => {
  const box = (element) => { const r = element.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const all = (selector) => [...document.querySelectorAll(selector)];
  document.documentElement.dataset.found = JSON.stringify({
    title: document.title,
    heading: document.querySelector("h1").textContent,
    viewport: innerWidth,
    width: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    images: all("img").map((img) => ({ loaded: img.complete && img.naturalWidth > 0, box: box(img) })),
    sections: all("section").map(box),
    accuracy: all("section:first-of-type td:nth-child(2)").map(box),
    elsewhere: performance.getEntriesByType("resource").map((e) => e.name).filter((name) => !name.startsWith("data:")),
  });
});
</script></body>"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(NAMES)} is on the PATH")
    return found


@pytest.fixture(scope="module")
def page(browser, clf, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    X, y = digits
    attacks = {LONG_NAME: PGD(eps=0.05, steps=2), "strong": PGD(eps=0.2)}
    make_robustness_report(clf, X[300:340], y[300:340], path, attacks, y_train=y[:300], title=TITLE)
    return path


def open_page(browser, path, profile, *options):
    """Standard output of a headless browser; as root it runs without a sandbox only."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-dev-shm-usage", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--force-device-scale-factor=1", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(browser, page, folder, width):
    copy = folder / "measured.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    copy.write_text(text.replace("</body>", MEASURE), encoding="utf-8")
    dom = open_page(browser, copy, folder / "profile", f"--window-size={width},1000", "--dump-dom")
    return json.loads(unescape(re.search(r'data-found="([^"]*)"', dom)[1]))


@pytest.mark.parametrize("width", [900, 500])
def test_all_of_it_is_shown_in_its_place(browser, page, tmp_path, width):
    found = measure(browser, page, tmp_path, width)
    assert found["viewport"] == width
    assert found["width"] <= width  # nothing to scroll sideways
    assert len(found["images"]) == 5 and all(image["loaded"] for image in found["images"])
    for left, _, right, _ in [image["box"] for image in found["images"]] + found["accuracy"]:
        assert 0 <= left < right <= width  # accuracies too, however long the attack's name
    assert len(found["sections"]) == 11
    for (_, _, _, bottom), (_, top, _, _) in zip(found["sections"], found["sections"][1:], strict=False):
        assert top >= bottom


def test_nothing_is_fetched_and_nothing_users_wrote_is_run(browser, page, tmp_path):
    found = measure(browser, page, tmp_path, 900)
    assert found["elsewhere"] == []
    assert found["title"] == found["heading"] == TITLE


def test_a_screenshot_shows_it_from_top_to_bottom(browser, page, tmp_path):
    found, path = measure(browser, page, tmp_path, 900), tmp_path / "report.png"
    # Some versions count the window's frame in, so that there must be room below the page.
    size = f"--window-size=900,{found['height'] + 200}"
    open_page(browser, page, tmp_path / "profile", size, f"--screenshot={path}")
    picture = plt.imread(path)[: found["height"], :, :3]
    assert picture.shape == (found["height"], 900, 3)
    assert (picture[:, :20] == 1).all()  # white paper
    for left, top, right, bottom in [image["box"] for image in found["images"]] + found["sections"]:
        part = picture[int(top) : int(bottom), int(left) : int(right)]
        assert np.ptp(part.mean(2)) > 0.5
        assert (part < 0.9).any(2).mean() > 0.01  # ink
