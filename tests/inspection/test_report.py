"""The report: one page that is whole, well-formed, and escapes what users wrote."""

from base64 import b64decode
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, CoresetDisplay, RobustClassifier, make_robustness_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that elements are closed in their order, and keeps texts, headings, images and links."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.links, self.images, self.headings, self.text = [], [], [], [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "action", "data"):
                self.links.append(value)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def written(clf, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    X, y = digits
    attacks = {"<i>weak</i>": PGD(eps=0.05, steps=2), "strong & slow": PGD(eps=0.2)}
    before = plt.get_fignums()
    result = make_robustness_report(
        clf, X[300:340], y[300:340], path, attacks, y_train=y[:300], title="<script>alert(1)</script>", batch_size=16
    )
    assert plt.get_fignums() == before
    return result, path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_whole(written):
    _, page = written
    found = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object", "embed"} & set(found.tags)
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    for link in found.links:
        page = page.replace(link, "")
    for address in ("http:", "https:", "url(", "@import", "//", "data:"):
        assert address not in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url" not in style and "import" not in style


def test_it_has_every_section(written):
    found = Page(written[1])
    assert found.headings == [
        "Accuracy under attack",
        "Signs of masked gradients",
        "Accuracy over the radius",
        "Examples",
        "What the fit cost",
        "Coresets",
        "Dynamics of the fit",
        "Cost by phase",
        "Selections",
        "Parameters",
        "Versions",
    ]
    assert len(found.images) == 5 and all(image["alt"] for image in found.images)
    for image in found.images:
        assert b64decode(image["src"].partition(",")[2], validate=True).startswith(b"\x89PNG")


def test_what_users_wrote_is_escaped(written):
    _, page = written
    for text in ("<i>weak", "<b>zero", "<script>", "strong & slow"):
        assert text not in page
    assert "&lt;i&gt;weak&lt;/i&gt;" in page and "strong &amp; slow" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_table_is_the_one_returned(written):
    result, page = written
    assert result["attack"] == ["clean", "<i>weak</i>", "strong & slow", "worst case"]
    assert f"<td>{result['accuracy'][2]:.3g}</td>" in page
    assert len(result.masking) == 6
    assert all(check.name in Page(page).text for check in result.masking)


def test_selections_are_in_the_epochs_of_the_pictures(written, clf):
    _, page = written
    rows = page[page.index("<h2>Selections</h2>") :].partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")
    epochs = [int(row.partition("<td>")[2].partition("</td>")[0]) for row in rows[:-1]]
    assert epochs == CoresetDisplay.from_estimator(clf).epochs.tolist() and len(epochs) == len(clf.coresets_)


def test_parameters_and_versions_are_told(written, clf):
    text = Page(written[1]).text
    for name, value in clf.get_params(deep=False).items():
        assert name in text and " ".join(repr(value).split(" at 0x")[0].split())[:30] in " ".join(text.split())
    assert torch.__version__ in text and "scikit-learn" in text


def test_a_table_without_coresets_has_the_sections_that_are_known(plain_clf, tmp_path):
    path = tmp_path / "report.html"
    make_robustness_report(plain_clf, *load_iris(return_X_y=True), path, check_masking=False)
    headings = Page(path.read_text()).headings
    assert "Accuracy over the radius" in headings
    assert not {"Examples", "Coresets", "Dynamics of the fit", "Selections", "Signs of masked gradients"} & set(
        headings
    )


def test_signs_and_warnings_are_told(plain_clf, tmp_path, monkeypatch):
    from sklearn_acs.evaluation import MaskingCheck, evaluating

    signs = [MaskingCheck("<noise>", True, "because & so")]
    monkeypatch.setattr(evaluating, "find_masking", lambda *args, **options: signs)
    path = tmp_path / "report.html"
    make_robustness_report(plain_clf, *load_iris(return_X_y=True), path)
    page = path.read_text()
    assert '<td>&lt;noise&gt;</td><td class="found">found</td><td>because &amp; so</td>' in page


def test_a_dataset_is_streamed(clf, digits, tmp_path):
    X, y = digits
    data = TensorDataset(torch.from_numpy(X[300:310]), torch.zeros(10, dtype=torch.long))
    labels = y[300:310]
    result = make_robustness_report(clf, data, labels, tmp_path / "report.html", "fgsm", check_masking=False)
    assert result["accuracy"][0] == np.mean(clf.predict(X[300:310]) == labels)
    headings = Page((tmp_path / "report.html").read_text()).headings
    assert "Examples" not in headings and "Accuracy over the radius" not in headings


def test_bad_input_is_refused_before_any_work(clf, digits, tmp_path):
    with pytest.raises(TypeError, match="clf must be a fitted RobustClassifier; got Linear"):
        make_robustness_report(torch.nn.Linear(2, 2), *digits, tmp_path / "report.html")
    with pytest.raises(NotFittedError):
        make_robustness_report(RobustClassifier(), *digits, tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="in a folder that does not exist"):
        make_robustness_report(clf, *digits, tmp_path / "nowhere" / "report.html")
