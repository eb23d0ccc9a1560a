"""The page of a run, `report.html`, and the comparison of several: each one file that needs no server."""

from csl.report.command import ReportOptions, report_on
from csl.report.comparison import CompareOptions, compare
from csl.report.write import write_report

__all__ = ["CompareOptions", "ReportOptions", "compare", "report_on", "write_report"]
