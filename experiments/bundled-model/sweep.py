"""Train several configurations on one device, a few at a time, and write one table of them all.

The runs share the device, so their seconds are not comparable between sweeps; their losses are.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent


def driver_version():
    try:
        return subprocess.check_output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                                       text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", required=True, help="JSON file: a list of runs")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=400, help="runs still going then are ended")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--full-report", action="store_true")
    args = parser.parse_args()
    runs = json.loads(Path(args.runs).read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + args.seconds
    flags = ["--compile"] * args.compile + ["--full-report"] * args.full_report

    def work(run):
        left = deadline - time.time()
        if left < 20:
            return
        command = [sys.executable, str(HERE / "train.py"), "--data", args.data, "--out", str(args.out),
                   "--run", json.dumps(run), *flags]
        with open(args.out / f"{run['name']}.log", "w") as log:
            try:
                subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=left,
                               env=os.environ | {"OMP_NUM_THREADS": "4"})
            except subprocess.TimeoutExpired:
                pass

    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(work, runs))

    summary = {"date": time.strftime("%Y-%m-%d"), "gpu_and_driver": driver_version(),
               "command": "python " + " ".join([Path(sys.argv[0]).name] + sys.argv[1:]), "results": []}
    for run in runs:
        path = args.out / run["name"] / "result.json"
        if path.exists():
            summary["results"].append(json.loads(path.read_text()))
        else:
            log = args.out / f"{run['name']}.log"
            tail = log.read_text()[-1500:] if log.exists() else "not started"
            summary["results"].append({"run": run, "unfinished": tail})
    (args.out / "sweep.json").write_text(json.dumps(summary, indent=1))
    done = [r for r in summary["results"] if "best" in r]
    for r in sorted(done, key=lambda r: r["best"]["valid_bpb"]):
        print(r["run"]["name"], r["parameters"], r["best"], "of", r["run"]["steps"], r["train_seconds"], "s", flush=True)
    for r in summary["results"]:
        if "best" not in r:
            print("UNFINISHED", r["run"]["name"], r["unfinished"])
    if done:
        (args.out / "best.txt").write_text(min(done, key=lambda r: r["best"]["valid_bpb"])["run"]["name"])


if __name__ == "__main__":
    main()
