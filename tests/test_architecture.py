"""The structure that the code promises: which file may import which, how long files are, how many stops a fit has."""

import ast
import re
import traceback
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import sklearn_acs
from sklearn_acs import PGD, Natural, RobustClassifier, evaluate, robust_accuracy
from sklearn_acs.attacks import ATTACKS, Attack, NormBoundedAttack

ROOT = Path(sklearn_acs.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LAYERS = [
    {"_compat", "_version"},
    {"checks", "params", "saving", "table"},
    {"data"},
    {"models", "gradients"},
    {"attacks"},
    {"objectives", "selectors", "model"},
    {"training", "evaluation"},
    {"callbacks", "recipe"},
    {"network"},
    {"plan"},
    {"classifier_file"},
    {"classifier"},
    {"inspection"},
    {"__init__"},
]
"""From the bottom to the top; a unit imports from lower layers alone."""


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path):
    """Modules of this package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn_acs"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
    return found - {module_of(path)}


def layer_of(module):
    unit = module.split(".")[1] if "." in module else "__init__"
    return next(i for i, units in enumerate(LAYERS) if unit in units), unit


def test_imports_run_downwards():
    upwards = []
    for module, path in MODULES.items():
        for imported in imports_of(path):
            (here, unit), (there, other) = layer_of(module), layer_of(imported)
            upwards += [] if there < here or unit == other else [f"{module} -> {imported}"]
    assert upwards == []


def test_no_import_goes_in_a_circle():
    graph = {module: imports_of(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module, way):
        assert module not in way, " -> ".join([*way, module])
        for imported in graph.get(module, set()) - done:
            walk(imported, (*way, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_files_are_short():
    long = {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 350}
    assert set(long) <= {"classifier.py"}  # whose length is documentation


def test_the_classifier_is_scikit_learns_and_the_one_that_routes_parameters():
    own = [base.__module__ for base in RobustClassifier.__mro__[1:] if base.__module__.startswith("sklearn_acs")]
    assert own == ["sklearn_acs.params"]
    others = {base.__module__.split(".")[0] for base in RobustClassifier.__mro__[1:]}
    assert others == {"sklearn_acs", "sklearn", "builtins"}


def test_scikit_learns_private_names_are_imported_in_one_file():
    private = re.compile(r"from sklearn(\.\w+)*\._\w+ import|from sklearn(\.\w+)* import [^\n]*\b_\w+")
    assert [path.name for path in FILES if private.search(path.read_text())] == ["_compat.py"]


def test_nobody_asks_for_the_class_of_an_attack():
    classes = "|".join(made.__name__ for made in ATTACKS.values())
    asked = re.compile(rf"isinstance\([^()]*,[^()]*\b({classes})\b")
    assert [str(path) for path in FILES if asked.search(path.read_text())] == []


# A fit

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:100], DIGITS.target[:100]


def test_x_reaches_the_optimisers_step_in_twelve_stops_that_the_page_lists():
    stops = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            frames = [frame for frame, _ in traceback.walk_stack(None)]
            stops.append([f.f_code for f in reversed(frames) if Path(f.f_code.co_filename).is_relative_to(ROOT)])
            return super().step(closure)

    RobustClassifier(optimizer=Watched, lr=0.01, max_epochs=1, selector=None, attack=PGD(eps=0.1, steps=1)).fit(X, y)
    on_the_way = {code.co_qualname for way in stops for code in way}
    page = (ROOT.parent / "docs" / "how_a_fit_goes.md").read_text()
    listed = re.findall(r"^\d+\. `([\w.]+)`", page, re.MULTILINE)
    assert len(listed) <= 12
    assert {name for name in on_the_way if "<" not in name} <= set(listed)
    for name in listed:
        owner, _, method = name.partition(".")
        assert re.search(rf"class {owner}\b.*?def {method}\(", "\n".join(p.read_text() for p in FILES), re.DOTALL)


def test_a_fit_assigns_its_attributes_in_one_place(monkeypatch):
    assign, calls, set_outside = RobustClassifier._assign, [], []

    def note(self, *made):
        calls.append({**vars(self)})
        assign(self, *made)

    clf = RobustClassifier(max_epochs=2, attack=PGD(eps=0.1, steps=1))
    before = {**vars(clf)}
    monkeypatch.setattr(RobustClassifier, "_assign", note)
    monkeypatch.setattr(RobustClassifier, "__setattr__", lambda *given: set_outside.append(given), raising=False)
    clf.fit(X, y)
    assert calls == [before]
    assert set_outside == []
    assert clf.score(X, y) > 0


# An attack of one's own: a class and a row


class Corners(NormBoundedAttack):
    """Steps from corner to corner of the ball, remembering the last one."""

    remembers = True

    def __init__(self, eps=None, *, norm="linf"):
        self.eps = eps
        self.norm = norm

    def for_evaluation(self) -> Attack:
        return PGD(self.eps, norm=self.norm)

    def _attack(self, problem, start):
        ball = self.threat.ball(problem.x, problem.clip)
        delta = ball.start("uniform", problem.generator) if start is None else ball.project(start)
        delta = ball.project(ball.ascend(delta, problem.gradient(problem.x + delta), ball.eps))
        return problem.x + delta if problem.clip is None else (problem.x + delta).clamp(*problem.clip)


def test_a_norm_bounded_attack_of_ones_own_trains_remembers_and_is_evaluated():
    clf = RobustClassifier(
        attack=Corners(eps=0.1), objective="trades", early_stopping=True, max_epochs=16, batch_size=32,
        augment="flip", random_state=0,
    )  # fmt: skip
    clf.fit(X, y)
    assert clf.score(X, y) > 0.8
    assert clf.robust_score(X, y) == clf.robust_score(X, y, PGD(eps=0.1)) > 0.5
    assert 0 < np.abs(clf.perturb(X, y) - X).max() <= 0.1 + 1e-6
    table = evaluate(clf, X, y, {"corners": Corners(eps=0.1), "wide": Corners(eps=0.3)}, check_masking=True)
    assert table["metric"][1:3] == ["linf", "linf"]
    assert table["accuracy"][2] <= table["accuracy"][1] <= table["accuracy"][0]
    assert robust_accuracy(clf.net_.module_, X, y, Corners(eps=0.1)) == robust_accuracy(
        clf.net_.module_, X, y, PGD(eps=0.1)
    )


def test_it_has_the_radius_of_a_table_by_name(monkeypatch):
    monkeypatch.setitem(ATTACKS, "corners", Corners)
    table = np.random.default_rng(0).normal(size=(60, 4)) * [1, 10, 100, 1000]
    clf = RobustClassifier(objective=Natural(attack="corners"), max_epochs=2, random_state=0)
    clf.fit(table, table[:, 0] > 0)
    assert isinstance(clf.attack_, Corners)
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * table.std(0), rtol=1e-5)
