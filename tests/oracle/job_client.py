"""A client of the real RunPod SDK against a worker's own doors. Reads three inputs as a JSON list on stdin: one to run,
one to run at once, one to cancel while it runs. Prints what it saw as JSON.
"""

import json
import os
import sys
import time

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"])
to_run, at_once, to_cancel = json.load(sys.stdin)

job = endpoint.run({"input": to_run})
first = job.status()
output = job.output(timeout=60)
running = endpoint.run({"input": to_cancel})
while running.status() != "IN_PROGRESS":
    time.sleep(0.05)
cancelled = running.cancel(timeout=30)
seen = {
    "id": job.job_id,
    "first": first,
    "last": job.status(),
    "output": output,
    "sync": endpoint.run_sync({"input": at_once}, timeout=60),
    "cancelled": cancelled,
    "after_cancel": running.status(),
    "health": endpoint.health(timeout=30),
}
print(json.dumps(seen))
