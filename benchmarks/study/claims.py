"""What a study says of its claims: paired differences over seeds, and which of them hold."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from scipy import stats

from benchmarks.report import render_table
from benchmarks.study.strides import value_at

# Seeds below which nothing is decided, and the chance that a difference is taken for one that is none.
FEWEST_SEEDS, LEVEL = 3, 0.05

DIFFERENCES = """
Differences between two arms with the same seed, in points; the mean over seeds and the half-width of its 95 %
confidence interval (Student's t). """
UNCORRECTED = """A claim holds where the whole interval is above 0, the opposite where it is below;
what is neither, was measured with fewer than three seeds, or differs by the same in all of them, is undecided.
Nothing is corrected for the number of claims.
"""
CORRECTED = """p is that of the paired t-test, corrected after Holm for the number of claims of
its family. A claim holds where p is below 0.05 and the difference above 0, the opposite where that is below; what is
neither, or was measured with fewer than three seeds, is undecided.
"""


def explain_claims(grid: dict) -> str:
    """How verdicts are found."""
    return DIFFERENCES + (CORRECTED if has_families(grid) else UNCORRECTED)


def has_families(grid: dict) -> bool:
    """Whether claims are corrected for their number, in families."""
    return any("family" in claim for claim in grid["claims"])


def runs_by_seed(grid: dict, task: str, arm: str, results: list[dict]) -> dict[int, list[dict]]:
    """The runs of an arm, of each seed that has all its folds."""
    by_seed = defaultdict(list)
    for run in results:
        if (run["task"], run["arm"]) == (task, arm):
            by_seed[run["seed"]].append(run)
    folds = 1 if "fold_of_seed" in grid["tasks"][task] else len(grid["tasks"][task].get("folds", [None]))
    return {seed: runs for seed, runs in by_seed.items() if len(runs) == folds}


def seed_value(runs: list[dict], stride: int | None = None) -> float:
    """Mean over the folds, at the model's own stride or at another."""
    return statistics.mean(value_at(run, stride) for run in runs)


def compare(grid: dict, claim: dict, results: list[dict]) -> dict:
    """Differences over the seeds that both arms have, their interval, and p, how likely chance makes one as large."""
    arms = [runs_by_seed(grid, claim["task"], claim[side], results) for side in ("better", "than")]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    better, than = ([seed_value(arm[seed], claim.get("stride")) for seed in seeds] for arm in arms)
    differences = [one - other for one, other in zip(better, than, strict=True)]
    if len(seeds) < 2:
        return {"differences": differences, "half_width": None, "p": 1.0}
    mean, deviation = spread(differences)
    error = deviation / len(seeds) ** 0.5
    # Equal differences, as of few clips, say nothing of how they vary.
    p = 2 * stats.t.sf(abs(mean) / error, len(seeds) - 1) if error else 1.0
    half_width = stats.t.ppf(1 - LEVEL / 2, len(seeds) - 1) * error
    return {"differences": differences, "half_width": half_width, "p": p if len(seeds) >= FEWEST_SEEDS else 1.0}


def judge(grid: dict, results: list[dict]) -> list[dict]:
    """What `compare` says of each claim, p corrected within families where there are any, and the verdicts."""
    compared = [compare(grid, claim, results) for claim in grid["claims"]]
    families = defaultdict(list)
    for claim, found in zip(grid["claims"], compared, strict=True):
        families[claim.get("family")].append(found)
    for family, members in families.items():
        if family is not None:
            for found, p in zip(members, correct([found["p"] for found in members]), strict=True):
                found["p"] = p
    return [found | {"verdict": decide(found)} for found in compared]


def correct(values: Sequence[float]) -> list[float]:
    """p-values of several tests after Holm 1979: of n, the smallest times n, the next times n - 1, and so on."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def decide(found: dict) -> str:
    """The verdict on a claim."""
    if not found["differences"]:
        return "not measured"
    if found["p"] >= LEVEL:
        return "undecided"
    return "holds" if statistics.mean(found["differences"]) > 0 else "the opposite"


def render_claims(grid: dict, results: list[dict]) -> str:
    """Markdown."""
    rows = []
    for claim, judged in zip(grid["claims"], judge(grid, results), strict=True):
        difference = ""
        if judged["differences"]:
            difference = f"{100 * statistics.mean(judged['differences']):+.2f}"
        if judged["half_width"] is not None:
            difference += f" +- {100 * judged['half_width']:.2f}"
        row = [claim["claim"], claim["task"], difference, str(len(judged["differences"])), judged["verdict"]]
        if has_families(grid):
            p = show_p(judged["p"]) if len(judged["differences"]) >= FEWEST_SEEDS else ""
            row = [claim["family"], *row[:-1], p, row[-1]]
        rows.append(row)
    header = ["claim", "task", "difference", "seeds", "verdict"]
    return render_table(["family", *header[:-1], "p", "verdict"] if has_families(grid) else header, rows)


def show_p(p: float) -> str:
    """Three digits, and no p of zero."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation; that of one value is 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
