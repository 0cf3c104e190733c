"""What a person sees: the plan, the live sweep, the result, an error. Rich alone: no torch, no Ray.

Other rooms use the names exported here.
"""

from pharos.console.chat_view import chat, read_line
from pharos.console.check_view import show_check
from pharos.console.compare_view import show_comparison
from pharos.console.doctor_view import examination_json, show_examination
from pharos.console.error_view import show_error
from pharos.console.eval_view import show_evaluation
from pharos.console.jobs_view import show_kept, show_sweep, show_sweeps
from pharos.console.live import LiveSweep
from pharos.console.models_view import show_models, show_promotion, show_rollback, show_version, told
from pharos.console.plan_view import show_plan
from pharos.console.progress import bytes_progress, steps_progress
from pharos.console.rerun_view import show_curves
from pharos.console.result_view import show_result
from pharos.console.row_view import show_rows
from pharos.console.status_lines import StatusLines
from pharos.console.top import show_top

__all__ = [
    "LiveSweep",
    "StatusLines",
    "bytes_progress",
    "chat",
    "examination_json",
    "read_line",
    "show_check",
    "show_comparison",
    "show_curves",
    "show_error",
    "show_evaluation",
    "show_examination",
    "show_kept",
    "show_models",
    "show_plan",
    "show_promotion",
    "show_result",
    "show_rollback",
    "show_rows",
    "show_sweep",
    "show_sweeps",
    "show_top",
    "show_version",
    "steps_progress",
    "told",
]
