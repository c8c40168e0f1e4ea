# SPDX-License-Identifier: Apache-2.0
"""Reports: one folder with a self-contained HTML page, its figures as PNG, and the result as JSON.

A report is a list of sections, each of them data: headline figures, tables, figures and rows of
images. An evaluation always tells its story to a :class:`Report`; where none was asked for, that
is a :class:`NullReport`, and neither figures are drawn nor images read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cv2
import numpy as np

from spike_perception import __version__
from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | int | float | bool | None
Verdict = Literal["plain", "right", "wrong"]


@dataclass(frozen=True)
class Palette:
    """Colours of figures on a light or a dark page; right and wrong differ in luminance too."""

    surface: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    right: str
    wrong: str
    truth: str


LIGHT = Palette(
    surface="#ffffff",
    ink="#1c2430",
    muted="#5b6676",
    grid="#dfe4ea",
    series=("#2563c9", "#c2620c", "#6b4fbb", "#0f7f83", "#a83267"),
    right="#12804a",
    wrong="#d1331f",
    truth="#ffffff",
)
DARK = Palette(
    surface="#171d26",
    ink="#e6ebf2",
    muted="#9aa7b8",
    grid="#2e3846",
    series=("#6ba4ff", "#f0a052", "#b39cf5", "#4fc9cd", "#f07fb0"),
    right="#3fc27f",
    wrong="#ff6a55",
    truth="#ffffff",
)

FIGURE_SIZE = (5.2, 4.1)
"""Width and height (inch) of a figure beside others; wider than 8 inches, it has its own row."""

Draw = Callable[["Figure", Palette], None]
"""Draws on an empty matplotlib figure in the colours of a palette."""


@dataclass(frozen=True)
class Frame:
    """One image of a strip: pixels, what it is, and how it is judged (colour of its frame)."""

    image: RgbImage
    label: str
    verdict: Verdict = "plain"


@dataclass(frozen=True)
class Strip:
    """A row of images that belong together, under one caption."""

    caption: str
    frames: tuple[Frame, ...]


class Report(Protocol):
    """What an evaluation may put into a report, in the order of the calls."""

    def headline(self, label: str, value: Cell, note: str = "") -> None:
        """Add one figure to the row at the top; shares are given as numbers, not as text."""

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        note: str = "",
        folded: bool = False,
    ) -> None:
        """Add a table; a folded one shows only its title until it is opened."""

    def figure(
        self,
        title: str,
        name: str,
        draw: Draw,
        *,
        note: str = "",
        size: tuple[float, float] = FIGURE_SIZE,
    ) -> None:
        """Add a figure, written as ``name``.png too.

        Args:
            title: heading.
            name: stem of the PNG file.
            draw: draws the figure; called once for each palette.
            note: one or two sentences on how to read it.
            size: width and height (inch).
        """

    def strips(self, title: str, name: str, strips: Iterable[Strip], *, note: str = "") -> None:
        """Add rows of images, written as ``name``.png too; not iterated if nobody will see it."""

    def write(self, result: Mapping[str, Any]) -> Path | None:
        """Write the folder; returns the path of the page, or None if there is no report."""


class NullReport:
    """The report that nobody asked for."""

    def headline(self, label: str, value: Cell, note: str = "") -> None:
        """Do nothing."""

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        note: str = "",
        folded: bool = False,
    ) -> None:
        """Do nothing."""

    def figure(
        self,
        title: str,
        name: str,
        draw: Draw,
        *,
        note: str = "",
        size: tuple[float, float] = FIGURE_SIZE,
    ) -> None:
        """Do nothing."""

    def strips(self, title: str, name: str, strips: Iterable[Strip], *, note: str = "") -> None:
        """Do nothing."""

    def write(self, result: Mapping[str, Any]) -> Path | None:  # noqa: ARG002
        """Write nothing."""
        return None


@dataclass
class _Section:
    """One section as the template sees it."""

    kind: Literal["table", "figure", "strips"]
    title: str
    note: str
    columns: Sequence[str] = ()
    rows: list[list[str]] = field(default_factory=list)
    folded: bool = False
    light: str = ""
    dark: str = ""
    wide: bool = False
    strips: list[dict[str, Any]] = field(default_factory=list)


class HtmlReport:
    """A report written to a folder.

    The page loads nothing from outside: figures and images are embedded, and its own policy
    forbids every request. It follows the reader's light or dark setting.

    Args:
        directory: the folder; made if absent, files of the same names are replaced.
        title: heading of the page.
        subtitle: one line below it.

    Raises:
        InputError: ``output_unwritable`` if the folder cannot be made.
    """

    def __init__(self, directory: str | Path, title: str, subtitle: str = "") -> None:
        self._directory = Path(directory)
        self._title = title
        self._subtitle = subtitle
        self._headlines: list[dict[str, str]] = []
        self._sections: list[_Section] = []
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "output_unwritable",
                f"cannot write a report to {directory}: {error.strerror}; give a folder",
            ) from error

    def headline(self, label: str, value: Cell, note: str = "") -> None:
        """Add one figure to the row at the top."""
        self._headlines.append({"label": label, "value": shown(value), "note": note})

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        note: str = "",
        folded: bool = False,
    ) -> None:
        """Add a table."""
        cells = [[shown(cell) for cell in row] for row in rows]
        self._sections.append(
            _Section("table", title, note, columns=columns, rows=cells, folded=folded)
        )

    def figure(
        self,
        title: str,
        name: str,
        draw: Draw,
        *,
        note: str = "",
        size: tuple[float, float] = FIGURE_SIZE,
    ) -> None:
        """Add a figure."""
        light = _render(draw, LIGHT, size)
        (self._directory / f"{name}.png").write_bytes(light)
        self._sections.append(
            _Section(
                "figure",
                title,
                note,
                light=_data_uri(light, "png"),
                dark=_data_uri(_render(draw, DARK, size), "png"),
                wide=size[0] > 8,
            )
        )

    def strips(self, title: str, name: str, strips: Iterable[Strip], *, note: str = "") -> None:
        """Add rows of images."""
        from spike_perception.evaluation.figures import draw_strips

        listed = list(strips)
        if not listed:
            return
        columns = max(len(strip.frames) for strip in listed)
        size = (2.6 * columns, 2.0 * len(listed) + 0.2)
        sheet = _render(lambda figure, palette: draw_strips(figure, palette, listed), LIGHT, size)
        (self._directory / f"{name}.png").write_bytes(sheet)
        self._sections.append(
            _Section("strips", title, note, strips=[_strip_cells(strip) for strip in listed])
        )

    def write(self, result: Mapping[str, Any]) -> Path | None:
        """Write ``report.html``, ``report.json`` and ``config.json``; returns the page's path.

        ``config.json`` holds the resolved configuration and the hash of the weights: what it
        takes to make the same result again.
        """
        from jinja2 import Environment, StrictUndefined

        source = resources.files(__package__).joinpath("templates", "report.html.j2").read_text()
        template = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        ).from_string(source)
        page = template.render(
            title=self._title,
            subtitle=self._subtitle,
            version=__version__,
            headlines=self._headlines,
            sections=self._sections,
        )
        path = self._directory / "report.html"
        path.write_text(page, encoding="utf-8")
        origin = {key: result[key] for key in ("config", "weights_id", "versions") if key in result}
        for name, content in (("report.json", dict(result)), ("config.json", origin)):
            text = json.dumps(content, indent=2, allow_nan=False)
            (self._directory / name).write_text(text + "\n", encoding="utf-8")
        return path


def open_report(directory: str | Path | None, title: str, subtitle: str = "") -> Report:
    """A report in ``directory``, or one that does nothing if there is none."""
    return HtmlReport(directory, title, subtitle) if directory else NullReport()


def shown(value: Cell) -> str:
    """A value as a reader sees it: four significant digits, a dash for what does not exist."""
    if value is None:
        return "–"  # noqa: RUF001  (an en dash is meant)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not np.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return value


def _render(draw: Draw, palette: Palette, size: tuple[float, float]) -> bytes:
    """PNG of a figure, drawn without a display and without touching global state."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "figure.facecolor": palette.surface,
        "axes.facecolor": palette.surface,
        "axes.edgecolor": palette.muted,
        "axes.labelcolor": palette.muted,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": palette.grid,
        "grid.linewidth": 0.8,
        "text.color": palette.ink,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "axes.prop_cycle": cycler(color=palette.series),
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        "font.size": 10.5,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, palette)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", facecolor=palette.surface)
    return buffer.getvalue()


MAX_STRIP_PIXELS = 320
"""Longest side of an embedded image; a page of many photographs must stay light."""


def _strip_cells(strip: Strip) -> dict[str, Any]:
    frames = []
    for frame in strip.frames:
        image = frame.image
        longest = max(image.shape[:2])
        if longest > MAX_STRIP_PIXELS:
            scale = MAX_STRIP_PIXELS / longest
            image = np.asarray(
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
            )
        kind = "png" if longest <= 96 else "jpeg"
        _, data = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]))
        frames.append(
            {
                "uri": _data_uri(data.tobytes(), kind),
                "label": frame.label,
                "verdict": frame.verdict,
                "pixelated": longest <= 160,
            }
        )
    return {"caption": strip.caption, "frames": frames}


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
