"""python tests/benchmarks [NAME ...]: run benchmarks, print their tables, write results/<name>.json.

    fusion              K trials together against one after another, and against raw PEFT loops
    single              one trial alone against a raw PEFT loop
    zero3               one base sharded over two ranks: time and traffic of a clock
    ray_overhead        one pool against a TorchTrainer per trial
    packing             rows packed into sequences against rows padded
    packs               how full packs are, and how long packing takes
    data_prepare        a million rows prepared, against datasets.map: time and memory
    compare             pharos compare of 1,000 trials, from the event log and from MLflow
    evaluation          answers and losses of `pharos eval`, against plain transformers
    quickstart_quality  what the quickstart finds, and in which time
    metrics             what measuring costs a clock
    merge               an adapter merged into a 4 GB base: memory, and time against copying the files
    checkpoints         a trial's checkpoint: flushed to the disk, and brought to an object store
    gpu                 an 8B-shaped model on one GPU

`--smoke` runs the cheapest form of each, to see that it works; its figures mean nothing and go below build/.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = (
    "fusion",
    "single",
    "zero3",
    "ray_overhead",
    "packing",
    "packs",
    "data_prepare",
    "compare",
    "evaluation",
    "quickstart_quality",
    "metrics",
    "merge",
    "checkpoints",
    "gpu",
)
ENVIRONMENT = {
    # Two ranks on two cores: more threads than cores would be slower by an order.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def main() -> None:
    arguments = _arguments()
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if shutil.which("nvidia-smi") is None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed warns that it had to find that out
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

    from tests.benchmarks.reporting import Options, show, write

    command = shlex.join(["python", "tests/benchmarks", *sys.argv[1:]])
    options = Options(smoke=arguments.smoke, max_steps=arguments.steps, shape=arguments.shape, data=arguments.data)
    for name in arguments.names or NAMES:
        report = importlib.import_module(f"tests.benchmarks.{name}").run(options)
        show(name, report)
        print(f"written: {write(name, report, directory=arguments.results, command=command)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of the above; none runs all")
    parser.add_argument("--smoke", action="store_true", help="the cheapest form of each")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a trial of ray_overhead, quickstart_quality")
    parser.add_argument("--shape", choices=("8b", "tiny"), help="of gpu's model: tiny runs on a CPU too")
    parser.add_argument("--data", type=Path, metavar="DIR", help="real rows, for packs")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the JSON goes")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name}; there are {', '.join(NAMES)}")
    if arguments.results is None:
        is_real = not arguments.smoke and arguments.steps is None
        arguments.results = (ROOT / "tests" if is_real else ROOT / "build") / "benchmarks" / "results"
    return arguments


if __name__ == "__main__":
    main()
