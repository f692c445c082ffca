"""A client of the real RunPod SDK: runs the input of its first argument to the end and prints what it saw as JSON."""

import json
import os
import sys

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"])
wanted = json.loads(sys.argv[1])

job = endpoint.run({"input": wanted})
first = job.status()
output = job.output(timeout=20)
cancelled = endpoint.run({"input": {"seconds": 30}}).cancel()
seen = {
    "id": job.job_id,
    "first": first,
    "last": job.status(),
    "output": output,
    "sync": endpoint.run_sync({"input": wanted}, timeout=20),
    "cancelled": cancelled,
    "health": endpoint.health(),
}
print(json.dumps(seen))
