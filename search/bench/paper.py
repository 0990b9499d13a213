"""What a paper takes from a bench: tables in Markdown and LaTeX, a paragraph, references."""

import re
from collections.abc import Sequence

from search.bench.result import POINTS, POWER, Bench

_HEAD = (
    *("dataset", "network", "GFLOPs", "parameters", "Dice [95 % CI]"),
    *("difference [95 % CI]", "p (Holm)", "needed", "mean rank"),
)
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}

_REFERENCES = {
    "isensee2021": """@article{isensee2021,
  author = {Isensee, Fabian and Jaeger, Paul F. and Kohl, Simon A. A. and Petersen, Jens and
            Maier-Hein, Klaus H.},
  title = {{nnU-Net}: a self-configuring method for deep learning-based biomedical image
           segmentation},
  journal = {Nature Methods}, volume = {18}, pages = {203--211}, year = {2021},
  note = {version VERSION_nnunetv2 was used}
}""",
    "paszke2019": """@inproceedings{paszke2019,
  author = {Paszke, Adam and others},
  title = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems 32}, year = {2019},
  note = {version VERSION_torch was used}
}""",
    "archspec": """@misc{archspec,
  title = {archspec: medical segmentation networks from one {YAML} file},
  note = {distribution archspec-seg, version VERSION_archspec-seg}
}""",
    "holm1979": """@article{holm1979,
  author = {Holm, Sture},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics}, volume = {6}, pages = {65--70}, year = {1979}
}""",
    "owen2007": """@article{owen2007,
  author = {Owen, Art B.},
  title = {The pigeonhole bootstrap},
  journal = {The Annals of Applied Statistics}, volume = {1}, pages = {386--411}, year = {2007}
}""",
    "rao1988": """@article{rao1988,
  author = {Rao, J. N. K. and Wu, C. F. J.},
  title = {Resampling Inference with Complex Survey Data},
  journal = {Journal of the American Statistical Association}, volume = {83},
  pages = {231--241}, year = {1988}
}""",
    "guenther1981": """@article{guenther1981,
  author = {Guenther, William C.},
  title = {Sample Size Formulas for Normal Theory {T} Tests},
  journal = {The American Statistician}, volume = {35}, pages = {243--244}, year = {1981}
}""",
}
"""What the paragraph cites, by key; versions are put in when it is written."""


def markdown(found: Bench) -> str:
    """Return the table in Markdown, a line per dataset and network."""
    rows = [list(_HEAD), ["---"] * len(_HEAD), *(row for own in _rows(found) for row in own)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([*lines, "", _caption(found), ""])


def latex(found: Bench) -> str:
    """Return a table that needs the package booktabs."""
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        rf"\caption{{{escaped(_caption(found))}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(_HEAD) - 2)}}}",
        r"\toprule",
        _latex_row(_HEAD),
    ]
    for own in _rows(found):
        lines += [r"\midrule", *map(_latex_row, own)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    names, numbers = cells[:2], cells[2:]
    shown = [*map(escaped, names), *(_with_minus(escaped(cell)) for cell in numbers)]
    return f"{' & '.join(shown)} \\\\"


def _with_minus(text: str) -> str:
    """Return text in which a minus is one, and a cell without a value a dash."""
    return "--" if text == "-" else re.sub(r"(?<!\w)-(?=\d)", "$-$", text)


def escaped(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _rows(found: Bench) -> list[list[list[str]]]:
    """Return the cells of every line, by dataset."""
    tables = []
    for dataset in found.settings.datasets:
        standings, differences = found.of(dataset)
        versus = {one.difference.a: one for one in differences}
        rows = []
        for one in standings:
            cells = [dataset, one.network, f"{one.gflops:.3f}", f"{one.params:,}", one.dice_text]
            other = versus.get(one.network)
            if other is None:
                cells += ["baseline" if one.network == found.baseline else "-", "-", "-"]
            else:
                points = other.difference.text(POINTS, 2)
                cells += [points, other.p_text, other.needed_text]
            rank = found.ranks.get(one.network)
            rows.append([*cells, "-" if rank is None else f"{rank:.2f}"])
        tables.append(rows)
    return tables


def _caption(found: Bench) -> str:
    size = "its size" if found.margin is None else f"{POINTS * found.margin:g} points"
    return (
        f"Dice points ({found.score_text}), differences to {found.baseline}; intervals by "
        f"bootstrap over {found.unit}s and seeds; p corrected by Holm for "
        f"{_counted(found)}; needed: {found.unit}s for power {POWER:g} at a difference of {size}, "
        f"noise of seeds apart; mean rank over {found.num_blocks} pairs of dataset and fold."
    )


def _counted(found: Bench) -> str:
    count = len(found.differences)
    return f"{count} comparison{'s' * (count != 1)}"


def methods(found: Bench) -> str:
    """Return a paragraph on how it was done, with keys of `bibtex` and the versions that ran."""
    settings, versions = found.settings, found.settings.versions
    seeds, folds = len(settings.seeds), ", ".join(map(str, settings.folds))
    data = "; ".join(
        f"{name} ({one['configuration']}, patches of {' x '.join(map(str, one['patch_size']))} "
        f"voxels, {found.num_units[name]} {found.unit}s compared)"
        for name, one in settings.datasets.items()
    )
    recipes = "; ".join(f"{name}: {recipe}" for name, recipe in found.recipes.items())
    if settings.steps is None:
        how = (
            "Every network was exported into nnU-Net's plans and trained and validated by nnU-Net's"
            f" own command {seeds} time{'s' * (seeds != 1)} per fold, without seeds, for as many "
            "epochs as its recipe says; Dice is nnU-Net's on the validation cases of the fold."
        )
    else:
        how = (
            f"Every network was trained with {seeds} seed{'s' * (seeds != 1)} per fold for "
            f"{settings.steps:,} optimizer steps of {settings.batch_size} patches, with nnU-Net's "
            "augmentation and loss and nothing stopped early; validation cases of the fold were "
            "predicted by sliding windows without mirroring and scored at the preprocessed spacing."
        )
    tests = (
        f" Differences to {found.baseline} are paired by {found.unit}; their p values come from "
        f"the same bootstrap and are corrected by Holm's procedure [@holm1979] for "
        f"{_counted(found)}. The number of {found.unit}s for power {POWER:g} is that of a paired "
        "t-test [@guenther1981] on means over seeds, noise of seeds apart."
    )
    return (
        f"Networks ({', '.join(found.labels)}) were planned by archspec {versions['archspec-seg']} "
        f"[@archspec] for data preprocessed by nnU-Net {versions['nnunetv2']} [@isensee2021], and "
        f"trained with PyTorch {versions['torch']} [@paszke2019] on {data}, folds {folds}. {how} "
        f"Recipes: {recipes}. Dice is the {found.score_text}; cases without a score are left out. "
        f"Intervals of 95 % are by bootstrap over {found.unit}s and seeds [@owen2007; @rao1988]."
        f"{tests if found.differences else ''} FLOPs follow {settings.convention}.\n"
    )


def bibtex(found: Bench) -> str:
    """Return the references that the paragraph cites, with the versions that ran."""
    text = "\n\n".join(_REFERENCES.values())
    for name, number in found.settings.versions.items():
        text = text.replace(f"VERSION_{name}", number)
    return text + "\n"
