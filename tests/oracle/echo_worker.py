"""A worker of the real RunPod SDK that gives back what it was given; the input says what else happens."""

import asyncio

import runpod


async def handler(job):
    wanted = job["input"]
    for step in range(wanted.get("steps", 0)):
        runpod.serverless.progress_update(job, {"step": step})
        await asyncio.sleep(0.3)
    await asyncio.sleep(wanted.get("seconds", 0))
    if "raise" in wanted:
        raise ValueError(wanted["raise"])
    return {"echo": wanted}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
