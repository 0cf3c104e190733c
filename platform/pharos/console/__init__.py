"""What a person sees: the plan, the live sweep, the result, an error. Rich alone: no torch, no Ray.

Other rooms use the names exported here.
"""

from pharos.console.check_view import show_check
from pharos.console.error_view import show_error
from pharos.console.live import LiveSweep
from pharos.console.models_view import show_models, show_promotion, show_rollback, show_version, told
from pharos.console.plan_view import show_plan
from pharos.console.result_view import show_result
from pharos.console.row_view import show_rows

__all__ = [
    "LiveSweep",
    "show_check",
    "show_error",
    "show_models",
    "show_plan",
    "show_promotion",
    "show_result",
    "show_rollback",
    "show_rows",
    "show_version",
    "told",
]
