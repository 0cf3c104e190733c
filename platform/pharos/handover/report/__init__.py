"""One HTML page for a sweep, complete in itself: it opens offline, from one trial to a thousand."""

from pharos.handover.report.page import write_report

__all__ = ["write_report"]
