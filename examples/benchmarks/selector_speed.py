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
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import distributions, version
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))
from selector_races import (
    APRICOT,
    APRICOT_COMPILED,
    CORDS,
    CORDS_RIDGE,
    COVER,
    OURS,
    OURS_BARE,
    OURS_RIDGE,
    RUNS,
    SKLEARN,
    SKLEARN_SINGLE,
    THREADS,
    batches,
    cover,
    make_gradients,
    match,
    mixed,
    one_class,
    race,
    stop_run,
    whole_set,
)
from shared import RESULTS, Row, hardware, markdown, new_figure

from sklearn_acs.selectors import CRAIG, BaseSelector, Glister, GradMatch, RandomSelector, ScoreSelector

CUT = 180
"""Seconds after which --quick stops a run of the others."""
INSTALL = "pip install --no-deps --target FOLDER cords==0.0.4 apricot-select==0.6.1 numba llvmlite"
SOLVERS = "cords/selectionstrategies/helpers/omp_solvers.py"
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
