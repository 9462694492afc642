"""A process that creates objects at a steady rate and says when it sent each of them.

    python tests/bench/paced_client.py KUBECONFIG PLAN.json

Here: pacing. It is a process of its own so that its CPU time is its own. Never here:
judging what became of the objects. The plan holds `rate_per_s` and `items`, each a name
and the objects (`path`, `body`) to be created for it, in order. Standard output gets one
JSON document: when each item was sent (seconds since the epoch) and the CPU time used.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.kube import Kube

THREADS = 8


def main() -> None:
    """Read the plan, create everything, print what was done."""
    kubeconfig, plan_file = (Path(one) for one in sys.argv[1:3])
    plan = json.loads(plan_file.read_text())
    local = threading.local()
    sent_at: dict[str, float] = {}

    def create(item: dict[str, object], due: float) -> None:
        if not hasattr(local, "kube"):
            local.kube = Kube(kubeconfig)
        time.sleep(max(0.0, due - time.monotonic()))
        sent_at[str(item["name"])] = time.time()
        for one in item["objects"]:
            local.kube.request("POST", one["path"], body=one["body"])

    started_cpu_s = time.process_time()
    start = time.monotonic() + 1.0
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        waiting = [
            pool.submit(create, item, start + number / plan["rate_per_s"])
            for number, item in enumerate(plan["items"])
        ]
    for one in waiting:
        one.result()
    report = {"sent_at": sent_at, "cpu_s": time.process_time() - started_cpu_s}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
