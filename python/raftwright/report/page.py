"""The report of a night as one HTML page: nothing is loaded from elsewhere, it is light or dark as the reader
likes it, and it can be printed."""

from __future__ import annotations

import functools
from importlib import resources

from raftwright.report.latency import LATE
from raftwright.report.night import NightFigures
from raftwright.report.scorecard import Colour
from raftwright.report.svg import bucket_plot, histogram_plot, night_plot, stage_plot
from raftwright.report.telling import Part, Table, markup, parts, title
from raftwright.report.times import iso, span

__all__ = ["page"]


def page(figures: NightFigures) -> str:
    """The page."""
    head = title(figures)
    colour = figures.colour.value
    under = (
        f"ledger {markup(figures.ledger)} · made {iso(figures.made_tai)} TAI · all times are TAI "
        "(UTC + 37 s), the night is that of the images' names"
    )
    body = [
        f'<div class="head"><span class="lamp {colour}" title="{colour}"></span><h1>{head}</h1></div>',
        f'<p class="under">{under}</p>',
        _cards(figures),
    ]
    for part in parts(figures):
        body += _part(part, figures)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup(head)}</title><style>{_style()}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


@functools.cache
def _style() -> str:
    return resources.files("raftwright.report").joinpath("night.css").read_text("utf-8")


def _cards(figures: NightFigures) -> str:
    total = len(figures.images)
    if not total:
        return ""
    complete = figures.states.get("complete", 0)
    lost = figures.states.get("lost", 0)
    latency = next((one for one in figures.stages if one.name == "end of readout to complete"), None)
    share = figures.availability.share
    cards = [
        (f"{total:,}", "images", ""),
        (_percent(complete / total, 1), "complete", _unless_green(figures, "images not complete")),
        (f"{lost:,}", "lost", "red" if lost else ""),
        (f"{len(figures.late):,}", "late", _unless_green(figures, f"images later than {LATE:g} s")),
        (span(latency.p50_s) if latency else "-", "median latency", ""),
        (span(latency.p99_s) if latency else "-", "99 % latency", ""),
        ("-" if share is None else _percent(share, 2), "available", ""),
    ]
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card {colour}"><b>{value}</b><span>{word}</span></div>'
            for value, word, colour in cards
        )
        + "</div>"
    )


def _percent(share: float, digits: int) -> str:
    """Never 100 % of what is not whole."""
    if share == 1.0:
        return "100 %"
    return f"{min(100 * share, 100 - 10.0**-digits):.{digits}f} %"


def _unless_green(figures: NightFigures, name: str) -> str:
    colour = next((one.colour for one in figures.scores if one.name == name), Colour.NONE)
    return colour.value if colour in (Colour.YELLOW, Colour.RED) else ""


def _part(part: Part, figures: NightFigures) -> list[str]:
    found = [f'<h2 id="{part.name}">{markup(part.title)}</h2>']
    found += [f"<p>{markup(line)}</p>" for line in part.lines]
    found += [f"<figure>{plot}</figure>" for plot in _plots(part.name, figures) if plot]
    found += [_table(table) for table in part.tables]
    return found


def _plots(name: str, figures: NightFigures) -> list[str]:
    if name != "latencies":
        return []
    complete = [one for one in figures.stages if one.name == "end of readout to complete"]
    return [
        night_plot(figures),
        *(histogram_plot(one) for one in complete),
        bucket_plot(figures.buckets),
        stage_plot(figures.stages),
    ]


def _table(table: Table) -> str:
    heads = "".join(f"<th{_side(n, table)}>{markup(head)}</th>" for n, head in enumerate(table.heads))
    rows = []
    for number, row in enumerate(table.rows):
        colour = table.colours[number] if number < len(table.colours) else ""
        cells = []
        for n, cell in enumerate(row):
            if n == 0 and colour and cell == colour:
                cells.append(f'<td class="colour"><span class="lamp {colour}"></span>{markup(cell)}</td>')
            else:
                tight = ' class="tight"' if n not in table.right and len(cell) <= 24 else ""
                cells.append(f"<td{_side(n, table) or tight}>{markup(cell)}</td>")
        rows.append(f'<tr class="{colour}">{"".join(cells)}</tr>')
    inside = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def _side(number: int, table: Table) -> str:
    return ' class="right"' if number in table.right else ""
