"""Measure how fast the selectors are, next to the code that others publish, and how much memory they take.

    pip install --no-deps --target FOLDER cords==0.0.4 apricot-select==0.6.1 numba llvmlite
    python examples/benchmarks/selector_speed.py --rivals FOLDER [--only 1,4] [--device cuda]

Rows 1 to 4 race solvers on the same inputs in one process; 5 and 6 select from a whole data set, in a process for each
selector that counts its memory. "blocked" is GRAD-MATCH with several rows a step; "scaling" times solvers over k for
the figure. "imagenet" takes minutes and its inputs 4 GB of disk: it runs only when asked for, `--only imagenet`. Each
call adds its rows to docs/results/selectors.jsonl, in place of earlier ones, and makes the table and the figure of all;
`--report` does only that, `--tiny` tries it all in seconds. What differs between the methods is told below the table.
"""

import importlib.util
import json
import signal
import sys
import tempfile
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import distributions, version
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import orthogonal_mp_gram
from threadpoolctl import threadpool_limits
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, hardware, markdown, new_figure

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors import CRAIG, BaseSelector, Glister, GradMatch, RandomSelector, ScoreSelector
from sklearn_acs.selectors._facility_location import facility_location
from sklearn_acs.selectors._omp import orthogonal_matching_pursuit

THREADS, RUNS, SLOW, CUT, SETTLE = 2, 5, 30, 180, 0.5
"""Threads of everyone; timed runs after a warm-up; seconds from which one run is enough, or with --quick too much;
seconds before each run, in which the threads of the one before stop spinning."""
INSTALL = "pip install --no-deps --target FOLDER cords==0.0.4 apricot-select==0.6.1 numba llvmlite"
SOLVERS = "cords/selectionstrategies/helpers/omp_solvers.py"
OURS, OURS_RIDGE, OURS_BARE = "GradMatch(ridge=0)", "GradMatch(ridge=0.1)", "GradMatch(ridge=0), not filled"
CORDS, CORDS_RIDGE, SKLEARN = "cords, lam=0", "cords, lam=0.5", "orthogonal_mp_gram and its Gram matrix"
SKLEARN_SINGLE, COVER = f"{SKLEARN}, float32", "facility_location, as in CRAIG"
APRICOT, APRICOT_COMPILED = "apricot, lazy", "apricot, lazy, compiled once"
NOTES = f"""\
Seconds are the median of {RUNS} runs after a warm-up, or those of one run where the table says so. Methods of the
same work take turns in one process, on the same inputs, with {THREADS} threads; ratios are to the first of them. Error
is `||b - sum w G|| / ||b||`, b being the sum of all gradients, and F is `sum_i max_{{j in S}} (d_max - d_ij)`. To be
faster counts as reached only where the objective is no worse. Rows matched are those that the method itself chose:
GradMatch fills up the budget with others, and "filled" is cords' error after its own filling, random rows of weight 1.
Peak MB is beyond the inputs, which lie in memory already; for ImageNet it is that of the whole process, pages of the
memory maps among it, and "anonymous" what it allocates itself.

Gradients are synthetic: `make_gradients` in the script. What differs between the methods: cords works in float32 and
stops at a residual of 1e-4, as its GRAD-MATCH calls its solver for tensors (on a CPU it calls one in NumPy, which is
several times slower); GradMatch goes on to 1e-6, without a ridge in float64. `orthogonal_mp_gram` allows negative
weights, and works in float64 where nothing else is said. In rows of OMP the ridge pulls towards zero, as the paper's;
lam, 0.5 for single classes and 0 for batches in GRAD-MATCH's configurations, is added to the squared norms as it is,
ridge times their mean. Without lam, cords stops near the rank and leaves most of a class's budget. apricot is given its
kernel in float64, made before the clock starts; it compiles its code anew in each fit, about a second, but for the line
that says "compiled once".
"""


def make_gradients(
    n: int, n_classes: int, width: int, seed: int, label: int | None = None, folder: str | None = None
) -> tuple[LastLayerGradients, Tensor]:
    """Gradients as a trained ResNet has them, and the classes: low-rank features, logits that follow from them.

    Parameters
    ----------
    n, n_classes, width, seed : int
        Samples, classes, features, and what the randomness begins with.
    label : int or None
        The class of all samples; None for classes in random order.
    folder : str or None
        Where to write the factors as memory maps in half precision; None keeps them in memory, in single.
    """
    rng = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=rng)
    rank = min(64, width // 2)
    mix, means = draw(rank, width) / rank**0.5, 0.6 * draw(n_classes, width)
    weight = means.T * (0.8 / width**0.5)
    y = torch.randint(n_classes, (n,), generator=rng) if label is None else torch.full((n,), label)
    shapes = {"g": (n, n_classes), "h1": (n, width + 1)}
    if folder is None:
        g, h1 = (torch.empty(shape) for shape in shapes.values())
    else:
        np.save(f"{folder}/y.npy", y)
        g, h1 = (np.lib.format.open_memmap(f"{folder}/{key}.npy", "w+", "f2", shape) for key, shape in shapes.items())
    for start in range(0, n, 4096):
        block = y[start : start + 4096]
        h = (means[block] + draw(len(block), rank) @ mix + 0.1 * draw(len(block), width)).relu_()
        p = (h @ weight).softmax(1)
        p[torch.arange(len(block)), block] -= 1
        g[start : start + 4096], h1[start : start + 4096, :-1], h1[start : start + 4096, -1] = p, h, 1
    return LastLayerGradients([(g, h1)]), y


def one_class(n: int, width: int) -> Tensor:
    """Gradients of one class's samples at its own logit, from which cords selects class by class."""
    ((g, h1),) = make_gradients(n, 10, width, 0, label=3)[0].branches
    return g[:, 3:4] * h1


def mixed(n: int, width: int) -> Tensor:
    return make_gradients(n, 10, width, 0)[0].dense()


def batches(n: int, width: int) -> Tensor:
    """Mean gradients of n batches of 128."""
    return make_gradients(128 * n, 10, width, 0)[0].mean_by(torch.arange(128 * n) // 128)


def race(methods: dict[str, Callable[[], Any]], device: str, cut: float = 0, runs: int = RUNS) -> dict[str, Row]:
    """Run all methods in turns, a warm-up and five times, slow ones once: their median seconds and what they return.

    With `cut`, all but the first are stopped after so many seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    found: dict[str, Row] = {}
    for _ in range(1 + runs):
        for name, run in methods.items():
            if max(times[name], default=0) >= SLOW:
                continue
            synchronize(device)
            time.sleep(SETTLE)
            begun, result = time.perf_counter(), None
            try:
                signal.setitimer(signal.ITIMER_REAL, cut if found else 0)
                result = run()
            except TimeoutError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            synchronize(device)
            times[name].append(time.perf_counter() - begun)
            found[name] = {"result": result, "cut": result is None}
    for name, row in found.items():
        timed = times[name] if len(times[name]) <= runs else times[name][1:]
        row |= {"seconds": median(timed), "runs": len(timed)}
        print(f"  {name:<50} {row['seconds']:9.4f} s", flush=True)
    return found


def stop_run(*_: Any) -> None:
    raise TimeoutError


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def match(work: str, make: Callable[[], Tensor], k: int, names: Sequence[str], args: Namespace) -> Iterator[Row]:
    """Race the OMP solvers of these names: k rows of a matrix whose weighted sum comes close to that of all."""
    X = make().to(args.device)
    b = X.sum(0)

    def ours(ridge: float) -> tuple:
        selector = GradMatch(n_select=k, ridge=ridge, ridge_center="zero", tolerance=1e-6).fit(X)
        return selector.indices_, selector.weights_, selector.n_matched_

    def bare() -> tuple:
        with threadpool_limits(1, "blas"):  # as in fit
            found = orthogonal_matching_pursuit(as_gradients(X).to("cpu", torch.float64), k, tolerance=1e-6)
        return found.indices, found.weights, len(found.indices)

    def cords(lam: float) -> tuple:
        w = args.cords.OrthogonalMP_REG_Parallel_V1(X.T, b, 1e-4, k, True, lam, args.device)
        return w.nonzero()[:, 0], w[w != 0], int((w != 0).sum())

    def sklearns(dtype: torch.dtype) -> tuple:
        A = X.to("cpu", dtype).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it stops early, which the table says
            w = orthogonal_mp_gram(A @ A.T, A @ A.sum(0), n_nonzero_coefs=k)
        return np.flatnonzero(w), w[w != 0], np.count_nonzero(w)

    methods = {
        OURS: partial(ours, 0.0),
        OURS_RIDGE: partial(ours, 0.1),
        OURS_BARE: bare,
        CORDS: partial(cords, 0.0),
        CORDS_RIDGE: partial(cords, 0.5),
        SKLEARN: partial(sklearns, torch.float64),
        SKLEARN_SINGLE: partial(sklearns, torch.float32),
    }
    exact = X.double()
    for name, row in race({name: methods[name] for name in names}, args.device, args.cut, args.runs).items():
        if (result := row.pop("result")) is not None:
            w = torch.zeros_like(exact[:, 0])
            w[torch.as_tensor(result[0])] = torch.as_tensor(result[1], dtype=w.dtype, device=w.device)
            row |= {"error": missed(exact, w), "matched": int(result[2])}
            if name in (CORDS, CORDS_RIDGE) and row["matched"] < k:
                others = (w == 0).nonzero()[:, 0].cpu()
                w[others[torch.randperm(len(others))[: k - row["matched"]]]] = 1
                row["filled"] = missed(exact, w)
        yield {"work": f"{work}, {len(X):,} x {X.shape[1]:,}, k {k:,}", "method": name, "k": k, **row}


def missed(X: Tensor, w: Tensor) -> float:
    return float((X.sum(0) - w @ X).norm() / X.sum(0).norm())


def cover(work: str, make: Callable[[], Tensor], k: int, names: Sequence[str], args: Namespace) -> Iterator[Row]:
    """Race facility location of these names on a given matrix of distances, on the CPU."""
    X = make().double()
    d = torch.cdist(X, X).fill_diagonal_(0)
    distances = torch.maximum(d, d.T).float().numpy()  # symmetric to the last bit
    similarity = (distances.max() - distances).astype(np.float64)

    def ours() -> np.ndarray:
        with threadpool_limits(1, "blas"):  # as in fit
            return facility_location(distances.__getitem__, len(X), k)[0]

    def apricots() -> np.ndarray:
        return args.apricot.FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(similarity).ranking

    def compiled() -> np.ndarray:
        with patch.multiple(args.apricot.functions.facilityLocation, **args.compiled):
            return apricots()

    methods = {COVER: ours, APRICOT: apricots, APRICOT_COMPILED: compiled}
    for name, row in race({name: methods[name] for name in names}, "cpu", args.cut, args.runs).items():
        if (picks := row.pop("result")) is not None:
            row |= {"value": float(similarity[picks].max(0).sum()), "matched": len(picks)}
        yield {"work": f"{work}, n {len(X):,}, k {k:,}", "method": name, "k": k, **row}


def whole_set(work: str, spec: Row, selectors: list[BaseSelector], args: Namespace) -> Iterator[Row]:
    """Fit each selector in a process of its own."""
    for selector in selectors:
        with get_context("spawn").Pool(1) as pool:
            row = pool.apply(fit_alone, (selector, spec, args.device, args.runs))
        jobs = f"(n_jobs={selector.n_jobs})" if selector.n_jobs else ""
        yield {"work": work, "method": type(selector).__name__ + jobs, **row}


def fit_alone(selector: BaseSelector, spec: Row, device: str, runs: int) -> Row:
    """Make or open the inputs, then fit: seconds, and what memory that takes."""
    torch.set_num_threads(THREADS)
    n, n_validation = spec["n"], 1000 if isinstance(selector, Glister) else 0
    warm, y_warm = make_gradients(200, 10, 16, 0)
    clone(selector).fit(warm.to(device), y_warm)
    if "folder" in spec:
        g, h1, y = (np.load(f"{spec['folder']}/{key}.npy", mmap_mode="r") for key in ("g", "h1", "y"))
    else:
        gradients, y = make_gradients(n + n_validation, spec["n_classes"], spec["width"], 0)
        ((g, h1),) = gradients.to(device).branches
    gradients, validation = (LastLayerGradients([(g[part], h1[part])]) for part in (slice(n), slice(n, None)))
    run = partial(selector.fit, gradients, y[:n], **({"validation": validation} if n_validation else {}))
    with watch_memory(device) as memory:
        (row,) = race({type(selector).__name__: run}, device, runs=runs).values()
    del row["result"]
    return {**row, **memory, "error": selector.approximation_error_, "matched": selector.n_matched_}


@contextmanager
def watch_memory(device: str) -> Iterator[Row]:
    """The most MB held while the block runs, after it: in all, beyond its beginning, and that of the latter allocated.

    Pages of memory maps count in the first two. On a GPU it is the GPU's memory.
    """
    memory, done = {"anonymous_mb": 0.0}, Event()

    def sample() -> None:
        begun = memory_mb("RssAnon")
        while not done.wait(0.02):
            memory["anonymous_mb"] = max(memory["anonymous_mb"], memory_mb("RssAnon") - begun)

    if (reset := Path("/proc/self/clear_refs")).exists():
        reset.write_text("5")  # forget the peak that making the inputs left
    begun = torch.cuda.memory_allocated() / 2**20 if device == "cuda" else memory_mb("VmRSS")
    thread = Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()
    total = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else memory_mb("VmHWM")
    memory |= {"total_mb": total, "peak_mb": total - begun}


def memory_mb(field: str) -> float:
    """What Linux says of this process; elsewhere its peak so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field)) / 2**10


def imagenet(args: Namespace) -> Iterator[Row]:
    """Select 10 % of ImageNet by class from memory maps, and of a sixteenth, an eighth and a quarter of it."""
    n, C, D = (4_000, 20, 33) if args.tiny else (args.imagenet_samples, 1000, 513)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        make_gradients(n, C, D - 1, 0, folder=folder)
        for selector in (GradMatch(n_select=0.1, per_class=True), CRAIG(n_select=0.1, per_class=True)):
            before = None
            for size in (n // 16, n // 8, n // 4, n):
                m, k = size / C, 0.1 * size / C  # of a class
                pairs = k * (k + C + D) if isinstance(selector, GradMatch) else m * (C + D)
                work = size * (2 * C * D + pairs)  # multiplications: sums of gradients, and the solver
                for row in whole_set(
                    f"ImageNet by class, {size:,} x ({C:,} + {D}), 10 %",
                    {"n": size, "folder": folder},
                    [selector],
                    args,
                ):
                    if before:
                        seconds = row["seconds"] / before[0]
                        row["note"] = (
                            f"x {seconds:.2f} for x {size / before[2]:.0f}, predicted x {work / before[1]:.2f}"
                        )
                    before = row["seconds"], work, size
                    yield row | {"peak_mb": row["total_mb"]}


def benchmarks(args: Namespace) -> dict[str, Callable[[], Iterator[Row]]]:
    """What there is to measure, and what it is to reach."""
    scale = 10 if args.tiny else 1
    width = 512 // scale
    n1, n2, n3, n5 = (n // scale for n in (391, 2500, 5000, 50_000))
    share = {"n_select": 0.5, "per_class": True}
    selectors = [GradMatch(**share, n_jobs=1), GradMatch(**share, n_jobs=2), CRAIG(**share)]
    others = [Glister(**share, random_state=0), ScoreSelector(**share), RandomSelector(**share, random_state=0)]

    def by_set(name: str, n_classes: int, selectors: list[BaseSelector]) -> Iterator[Row]:
        spec = {"n": n5, "n_classes": n_classes, "width": width}
        return whole_set(f"{name} by class, {n5:,} x ({n_classes} + {width + 1}), 50 %", spec, selectors, args)

    def blocked() -> Iterator[Row]:
        gradients, k = make_gradients(n3, 10, width, 0, label=3)[0].to(args.device), n3 // 2
        work = f"OMP, a class, several rows a step, {n3:,} x (10 + {width + 1}), k {k:,}"
        methods = {f"GradMatch(atoms_per_step={m})": GradMatch(n_select=k, atoms_per_step=m) for m in (1, 2, 5, 20)}
        for name, row in race(
            {name: partial(s.fit, gradients) for name, s in methods.items()}, args.device, runs=args.runs
        ).items():
            selector = row.pop("result")
            error, matched = selector.approximation_error_, selector.n_matched_
            yield {"work": work, "method": name, "k": k, **row, "error": error, "matched": matched}

    def scaling() -> Iterator[Row]:
        bearable = True
        for k in (n2 // 2**i for i in range(6, 0, -1)):
            for row in match("OMP", partial(mixed, n2, width), k, [OURS, SKLEARN] + bearable * [CORDS], args):
                bearable &= row["method"] != CORDS or row["seconds"] < 3
                yield row
        for k in (n3 // 2**i for i in range(6, 0, -1)):
            yield from cover("facility location", partial(one_class, n3, width), k, [COVER, APRICOT_COMPILED], args)

    def omp(work: str, make: Callable, n: int, *names: str) -> Iterator[Row]:
        return match(f"OMP, {work}", partial(make, n, width), (n + 1) // 2, names, args)

    return {
        "1": lambda: omp("batches of CIFAR-10", batches, n1, OURS, CORDS, SKLEARN, SKLEARN_SINGLE),
        "2": lambda: omp("samples", mixed, n2, OURS, CORDS, SKLEARN, SKLEARN_SINGLE),
        "3": lambda: omp("a class", one_class, n3, OURS, OURS_BARE, OURS_RIDGE, CORDS, CORDS_RIDGE),
        "blocked": blocked,
        "4": lambda: cover(
            "facility location, a class",
            partial(one_class, n3, width),
            n3 // 2,
            [COVER, APRICOT, APRICOT_COMPILED],
            args,
        ),
        "5": lambda: by_set("CIFAR-10", 10, selectors + others),
        "6": lambda: by_set("CIFAR-100", 100 // scale, selectors),
        "scaling": scaling,
        "imagenet": lambda: imagenet(args),
    }


GOALS = {
    ("1", OURS): {"seconds": 0.06},
    ("1", CORDS): {"ratio": 10},
    ("2", CORDS): {"ratio": 50},
    ("2", SKLEARN): {"ratio": 1},
    ("3", CORDS_RIDGE): {"ratio": 20},
    ("4", APRICOT): {"ratio": 8},
    ("4", APRICOT_COMPILED): {"ratio": 8},
    ("5", "GradMatch(n_jobs=1)"): {"seconds": 40, "peak_mb": 400},
    ("5", "GradMatch(n_jobs=2)"): {"seconds": 40, "peak_mb": 400},
    ("5", "CRAIG"): {"seconds": 15, "peak_mb": 400},
    ("6", "GradMatch(n_jobs=1)"): {"seconds": 20},
    ("6", "GradMatch(n_jobs=2)"): {"seconds": 20},
    ("imagenet", "GradMatch"): {"peak_mb": 24 * 1024},
    ("imagenet", "CRAIG"): {"peak_mb": 24 * 1024},
}


def judge(row: Row, base: Row) -> tuple[str, str]:
    """The goals of a row in words, and whether they are reached."""
    words, reached = [], []
    for key, goal in GOALS.get((row["row"], row["method"]), {}).items():
        if key == "ratio":
            no_worse = row["cut"] or base.get("value", 0) >= 0.9999 * row.get("value", 0)
            no_worse &= row["cut"] or base.get("error", 0) <= 1.001 * row.get("filled", row.get("error", 0))
            no_worse |= goal == 1  # orthogonal_mp_gram, whose weights may be negative, solves an easier problem
            words.append(f"ours {goal} x as fast" if goal > 1 else "ours no slower")
            reached.append(row["seconds"] >= goal * base["seconds"] and no_worse)
        else:
            words.append(f"<= {goal:,g} {'s' if key == 'seconds' else 'MB'}")
            reached.append(row[key] <= goal)
    verdict = ("yes" if all(reached) else "no") if reached else "-"
    return ", ".join(words + ([row["note"]] if "note" in row else [])) or "-", verdict


def report(out: Path) -> None:
    """Make the table and the figure of all that has been measured so far."""
    rows = read_rows(out)
    columns = ["work", "method", "seconds", "ratio to ours", "objective", "rows matched", "peak MB", "goal", "reached"]
    lines = []
    for row in rows:
        base = next(other for other in rows if (other["row"], other["work"]) == (row["row"], row["work"]))
        at_least, alone = "> " * row["cut"], "peak_mb" in row
        objective = (
            f"F {row['value']:,.1f}" if "value" in row else f"error {row['error']:.3g}" if "error" in row else "-"
        )
        cells = [
            row["work"],
            row["method"],
            f"{at_least}{row['seconds']:.3g}" + ", one run" * (row["runs"] == 1),
            "-" if alone else f"{at_least}{row['seconds'] / base['seconds']:.3g}",
            objective + (f", filled {row['filled']:.3g}" if "filled" in row else ""),
            f"{row['matched']:,}" if "matched" in row else "-",
            f"{row['peak_mb']:,.0f}, anonymous {row['anonymous_mb']:,.0f}" if alone else "-",
            *judge(row, base),
        ]
        lines.append(cells)
    text = markdown(columns, lines)
    machines = "\n\n".join(dict.fromkeys(row["machine"] for row in rows))
    print(f"\n{text}\n\n{machines}")
    made_by = f"Made by `examples/benchmarks/selector_speed.py`. {machines}"
    (out / "selectors.md").write_text(
        f"# Speed and memory of the selectors\n\n{NOTES}\n{text}\n\n{made_by}\n\n![](selectors.png)\n"
    )
    draw([row for row in rows if row["row"] == "scaling"], out / "selectors.png")
    print(f"written to {out}: selectors.md, selectors.jsonl, selectors.png")


def draw(rows: list[Row], path: Path) -> None:
    """Seconds over k, a panel for each problem."""
    looks = {
        OURS: ("GradMatch", "C0", "o"),
        SKLEARN: ("scikit-learn", "C2", "^"),
        CORDS: ("cords", "C1", "s"),
        COVER: ("CRAIG", "C0", "o"),
        APRICOT_COMPILED: ("apricot", "C1", "s"),
    }
    figure, panels = new_figure(6.4, 3.2, columns=2)
    for axes, start in zip(panels, ("OMP", "facility location"), strict=True):
        mine = [row for row in rows if row["work"].startswith(start) and not row["cut"]]
        for method in dict.fromkeys(row["method"] for row in mine):
            label, color, marker = looks[method]
            points = [(row["k"], row["seconds"]) for row in mine if row["method"] == method]
            axes.loglog(*zip(*points, strict=True), marker=marker, markersize=5, color=color, label=label)
        axes.set(xlabel="k, rows to choose", title=mine[0]["work"].rsplit(", k", 1)[0] if mine else start)
        axes.title.set_fontsize(11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if mine:
            axes.legend(frameon=False)
    panels[0].set_ylabel("seconds")
    figure.savefig(path, dpi=150)


def read_rows(out: Path) -> list[Row]:
    path = out / "selectors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def load_rivals(args: Namespace) -> str:
    """Import into `args` what ours is raced against, of cords that one file; returns the versions."""
    if args.rivals is None or not (args.rivals / SOLVERS).exists():
        raise SystemExit(f"--rivals must be a folder made by `{INSTALL}`, got {args.rivals}.")
    spec = importlib.util.spec_from_file_location("omp_solvers", args.rivals / SOLVERS)
    args.cords = importlib.util.module_from_spec(spec)
    with np.errstate():  # which importing it changes
        spec.loader.exec_module(args.cords)
    sys.path.append(str(args.rivals))
    import apricot
    import numba

    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    args.apricot, module = apricot, apricot.functions.facilityLocation
    args.compiled = {name: cache(getattr(module, name)) for name in ("calculate_gains", "calculate_gains_sieve")}
    return ", ".join(sorted(f"{found.name} {found.version}" for found in distributions(path=[str(args.rivals)])))


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rivals", type=Path, help=f"folder made by `{INSTALL}`; rows 5, 6 and imagenet need none")
    parser.add_argument("--only", help="what to run, such as 1,4,scaling; default: all but imagenet")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where inputs lie")
    parser.add_argument("--quick", action="store_true", help=f"stop a run of the others after {CUT} seconds")
    parser.add_argument("--runs", type=int, default=RUNS, help="timed runs after the warm-up")
    parser.add_argument("--tiny", action="store_true", help="everything small, written to a temporary folder")
    parser.add_argument("--report", action="store_true", help="only make the table and the figure again")
    parser.add_argument("--imagenet-samples", type=int, default=1_281_167)
    parser.add_argument("--scratch", help="folder for imagenet's inputs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.cut = CUT if args.quick else 0
    out = args.out or (Path(tempfile.mkdtemp()) if args.tiny else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    known = benchmarks(args)
    wanted = args.only.split(",") if args.only else [name for name in known if name != "imagenet"]
    if not set(wanted) <= set(known):
        raise SystemExit(f"--only must be some of {','.join(known)}, got {args.only}.")
    torch.set_num_threads(THREADS)
    signal.signal(signal.SIGALRM, stop_run)
    for name in [] if args.report else wanted:
        machine = f"{hardware(args.device)}, numpy {version('numpy')}"
        if name in ("1", "2", "3", "4", "scaling"):
            machine += f"; {load_rivals(args)}"
        print(name, flush=True)
        with threadpool_limits(THREADS):
            new = [{"row": name, **row, "machine": machine} for row in known[name]()]
        rows = [row for row in read_rows(out) if row["row"] != name] + new
        rows.sort(key=lambda row: list(known).index(row["row"]))
        (out / "selectors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report(out)


if __name__ == "__main__":
    main()
