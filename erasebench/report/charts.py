"""The parts that all charts share: colours and lines that stay apart, and files that are equal byte for byte."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from erasebench.files import durably, write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which readers with any colour vision tell apart; without the yellow, too pale for lines."""
LineStyle = Literal["-", "--", ":", "-."]
STYLES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<>hdp8"
CROWD = 7
"""So many lines can be told apart in one panel; more get a panel each."""
DPI = 120
COLUMNS = 4
"""Of panels, where each line gets one."""
PALETTE = 128
"""Colours of a PNG: smooth edges, and a third of the size."""
_TOO_EXACT = re.compile(r"(?<=[ LM])(-?\d+\.\d\d)\d+")
"""Coordinates of paths to more than a hundredth of a point, which only make files large."""


@dataclass(frozen=True)
class Look:
    """The look of a method's line, in every chart alike."""

    color: str
    linestyle: LineStyle
    marker: str


CONTEXT = Look("#BBBBBB", "-", "")
"""Of the others, behind a line that has a panel of its own."""


def looks(methods: Sequence[str], baseline: str) -> Mapping[str, Look]:
    """A look for each method, no two alike among 28; grey dashes for the unerased model."""
    others = [method for method in methods if method != baseline]
    return {
        baseline: Look("#666666", "--", "."),
        **{
            method: Look(COLOURS[k % len(COLOURS)], STYLES[k % len(STYLES)], MARKERS[k % len(MARKERS)])
            for k, method in enumerate(others)
        },
    }


def legend_of_panels(baseline: str) -> list[Line2D]:
    """The lines of a panel of its own, for a legend.

    Args:
        baseline: the method that erases nothing; "" where it is not drawn.
    """
    from matplotlib.lines import Line2D

    names = {"the method": Look("black", "-", ""), "the other methods": CONTEXT}
    if baseline:
        names[f"{baseline}, unerased"] = looks([], baseline)[baseline]
    return [
        Line2D([], [], color=look.color, linestyle=look.linestyle, label=name, linewidth=2 if place == 0 else 1)
        for place, (name, look) in enumerate(names.items())
    ]


@contextmanager
def style() -> Iterator[None]:
    """Settings of a chart that do not depend on the user's own."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "erasebench"
        matplotlib.rcParams["svg.fonttype"] = "none"
        matplotlib.rcParams["font.family"] = ["DejaVu Sans"]
        matplotlib.rcParams["font.size"] = 9
        matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollar signs
        yield


def save(figure: Figure, path: Path, description: str = "", source: str = "") -> None:
    """Write a figure as PNG and as SVG, whose bytes are equal for equal figures.

    Args:
        figure: the figure, made within :func:`style`, as this call.
        path: the files, less their endings.
        description: what it shows, in words, for those who do not see it: kept in both files.
        source: what it was drawn from, kept in both files.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = io.BytesIO()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(image)  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # what took a second holds for both files
    notes = PngInfo()
    for name, words in (("Description", description), ("Source", source)):
        notes.add_itxt(name, words)
    with durably(path.with_name(f"{path.name}.png")) as stream, Image.open(image) as drawn:
        few = drawn.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
        few.save(stream, format="PNG", pnginfo=notes, optimize=True)
    write_durably(path.with_name(f"{path.name}.svg"), svg_text(figure, description, source))


def svg_text(figure: Figure, description: str = "", source: str = "") -> str:
    """A figure as SVG, the same text for equal figures; the arguments are those of :func:`save`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    metadata: dict[str, Any] = {"Creator": "erasebench", "Date": None, "Description": description, "Source": source}
    with warnings.catch_warnings():
        # Text stays text: whoever shows it has fonts of their own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # savefig would draw it twice.
        FigureCanvasSVG(figure).print_svg(text, metadata=metadata)  # type: ignore[no-untyped-call]
    return _TOO_EXACT.sub(r"\1", text.getvalue())
