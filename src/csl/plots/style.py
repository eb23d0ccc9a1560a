"""Colours, fonts and a page measured in inches, which all pictures share.

The colours are those of Okabe and Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), which readers with
the common colour deficiencies can tell apart, and tints of them; wherever colour has a meaning, a symbol, a place or a
word says it too. matplotlib is imported when a picture is made.
"""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csl.machine.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.text import Text

INK, SOFT, FAINT = "#222222", "#6b6b6b", "#dddddd"  # text, secondary text, lines

POSITIVE, NEGATIVE, UNKNOWN = "#009e73", "#7cc3ee", "#dedede"  # labels
ESTIMATE, ANNOTATED, TRUTH = "#0072b2", "#e69f00", "#222222"  # frequencies of classes
CURVES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#222222")

BODY, SMALL, TITLE = 8.5, 7.5, 13.0  # points
DPI = 120

NAMED = 120
"""Up to this number of classes each has a row of its own, with its name."""

_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans", "Arial Unicode MS", "Microsoft YaHei",
          "PingFang SC", "WenQuanYi Micro Hei", "Droid Sans Fallback")  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's settings while a picture is made or drawn, as a block or a decorator (`@styled()`)."""
    mpl = _matplotlib()
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings = {
        "font.family": [name for name in _FONTS if name in installed],
        "font.size": BODY,
        "text.parse_math": False,  # a class may be called "$" or "under_score"
        "text.color": INK,
        "axes.labelcolor": SOFT,
        "axes.labelsize": BODY,
        "axes.edgecolor": SOFT,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "axes.unicode_minus": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.frameon": False,
        "legend.fontsize": BODY,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that no installed font has shows as boxes; one warning a glyph would bury the rest.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _matplotlib():
    """matplotlib, whatever MPLBACKEND names: a page has its own canvas and needs no backend.

    Jupyter hands the name of its own to what it starts, where it may not be installed: matplotlib's import raises then.
    """
    named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named is not None:
        with suppress(ValueError):  # one that is there stays the choice for the caller's own pictures
            matplotlib.rcParams["backend"] = named
    return matplotlib


class Page:
    """A figure whose parts are placed in inches from its upper left corner, so that texts do not overlap.

    Args:
        width, height: inches.
    """

    def __init__(self, width: float, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self._renderer = self.figure.canvas.get_renderer()

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Axes with their upper left corner at a place; all lengths in inches."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box, **options)

    def text(self, left: float, top: float, text: str, size: float = BODY, **options: Any) -> Text:
        """Text with its upper left corner at that place (`ha` and `va` change the corner)."""
        options = {"ha": "left", "va": "top", **options}
        return self.figure.text(left / self.width, 1 - top / self.height, text, size=size, **options)

    def title(self, text: str, below: Sequence[str] = ()) -> None:
        """The title of the page, with lines of explanation under it."""
        self.text(0.3, 0.22, text, TITLE, weight="bold")
        for i, line in enumerate(below):
            self.text(0.3, 0.55 + 0.19 * i, self.fit(line, self.width - 0.6, BODY), BODY, color=SOFT)

    def legend(self, left: float, top: float, entries: Sequence[tuple[str, str, str]]) -> None:
        """Marks with words in a row: (mark, colour, word). A mark is a character, which is drawn as text."""
        for mark, colour, word in entries:
            self.text(left, top, mark, BODY + 1.5, color=colour, weight="bold")
            left += self.measure(mark, BODY + 1.5, "bold") + 0.06
            self.text(left, top + 0.015, word)
            left += self.measure(word) + 0.25

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        from matplotlib.patches import Rectangle

        corner = (left / self.width, 1 - (top + height) / self.height)
        size = (width / self.width, height / self.height)
        self.figure.add_artist(Rectangle(corner, *size, color=colour, lw=0, zorder=-2))

    def image(self, left: float, top: float, pixels: np.ndarray) -> None:
        """uint8 [H, W, 3] with its upper left corner at that place, one pixel of it for one of the page."""
        y = self.height * DPI - round(top * DPI) - len(pixels)
        self.figure.figimage(pixels, round(left * DPI), y, zorder=-1)

    def line(self, left: float, top: float, right: float, colour: str, dash: str | tuple = "-") -> None:
        """A horizontal line between two places."""
        from matplotlib.lines import Line2D

        x, y = [left / self.width, right / self.width], [1 - top / self.height] * 2
        self.figure.add_artist(Line2D(x, y, color=colour, ls=dash, lw=2.0))

    def measure(self, text: str, size: float = BODY, weight: str = "normal") -> float:
        """Width of a line of text, in inches."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size, weight=weight)
        return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0] / self.figure.dpi

    def fit(self, text: str, width: float, size: float = BODY, weight: str = "normal") -> str:
        """`text` on one line, cut in its middle to `width` inches: what tells names apart is often at their end."""
        text = one_line(text)
        if self.measure(text, size, weight) <= width:
            return text
        lengths = range(1, len(text))
        return _cut(text, bisect_right(lengths, width, key=lambda kept: self.measure(_cut(text, kept), size, weight)))

    @styled()
    def save(self, path: str | Path) -> Path:
        """Write the page as a PNG, whole or not at all; returns the path."""
        path = Path(path)
        with replacing(path) as temporary:
            self.figure.savefig(temporary, format="png", dpi=DPI)
        return path

    @styled()
    def pixels(self) -> np.ndarray:
        """The page as uint8 [H, W, 3]."""
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()


def one_line(text: str) -> str:
    """`text` without line breaks, control characters and double spaces; a name of nothing else says so."""
    shown = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") else c for c in str(text))
    return " ".join(shown.split()) or "(no name)"


def _cut(text, kept):
    """The first and last of `text`, `kept` characters in all."""
    head = kept - kept * 2 // 5
    return text[:head].rstrip() + "…" + text[len(text) - (kept - head) :].lstrip()


def number(value: float) -> str:
    """A tick of a logarithmic axis: 0.01, 1, 1,000, 10 M. matplotlib's own needs its mathtext, which is off."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.4g} M"
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.10f}".rstrip("0")


def share(value: float) -> str:
    """A share, in [0, 1], in percent with two digits that count: "74 %", "0.012 %", "99.988 %"; NaN is a dash."""
    if np.isnan(value):
        return "–"
    percent = 100 * value
    if percent in (0, 100):
        return f"{percent:.0f} %"
    left = 100 - percent if percent > 98 else percent  # 99.988 % is not 100 %
    decimals = 1 - int(np.floor(np.log10(left)))
    return f"{percent:.{np.clip(decimals, 0, 6)}f} %"


def log_axis(axis: Axis, linear_below: float | None = None, percent: bool = False) -> None:
    """Make an axis (`axes.xaxis`) logarithmic, or from `linear_below` on, so that 0 has a place.

    Its ticks are plain numbers, or with `percent` shares in percent.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    set_scale = getattr(axis.axes, f"set_{axis.axis_name}scale")
    if linear_below is None:
        set_scale("log")
    else:
        set_scale("symlog", linthresh=linear_below, linscale=0.4)
    low, high = sorted(axis.get_view_interval())
    first = np.floor(np.log10(linear_below or max(low, 1e-12)))
    powers = 10.0 ** np.arange(first, np.ceil(np.log10(max(high, 1e-12))) + 1)
    if len(powers) > 7:
        powers = powers[:: -(-len(powers) // 7)]
    ticks = powers if linear_below is None else [0.0, *powers]
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{number(100 * value)} %" if percent else number(value)))
