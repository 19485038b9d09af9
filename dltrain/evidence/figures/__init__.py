"""Figures of plain numbers, as SVG that stands in a page.

They have no colours of their own: classes name them, and the style sheet of the pages gives each two, for light and for
dark. No colour alone carries a meaning: shapes, dashes, order or words say the same.
"""

from dltrain.evidence.figures.axes import Axis, Names, Numbers, duration, number
from dltrain.evidence.figures.charts import SMALL, WIDE, Bar, Strip, bars, chart, histogram
from dltrain.evidence.figures.heat import heat_map
from dltrain.evidence.figures.marks import Point, Series, Shape, of_series, of_share
from dltrain.evidence.figures.parallel import Line, parallel
from dltrain.evidence.figures.svg import cut

__all__ = [
    "SMALL",
    "WIDE",
    "Axis",
    "Bar",
    "Line",
    "Names",
    "Numbers",
    "Point",
    "Series",
    "Shape",
    "Strip",
    "bars",
    "chart",
    "cut",
    "duration",
    "heat_map",
    "histogram",
    "number",
    "of_series",
    "of_share",
    "parallel",
]
