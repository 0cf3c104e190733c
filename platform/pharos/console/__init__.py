"""What a person sees: the plan, the live sweep, the result, an error. Rich alone: no torch, no Ray.

Other rooms use the names exported here.
"""

from pharos.console.check_view import show_check
from pharos.console.compare_view import show_comparison
from pharos.console.error_view import show_error
from pharos.console.live import LiveSweep
from pharos.console.plan_view import show_plan
from pharos.console.result_view import show_result
from pharos.console.row_view import show_rows

__all__ = ["LiveSweep", "show_check", "show_comparison", "show_error", "show_plan", "show_result", "show_rows"]
