"""A worker of the real RunPod SDK that runs workflows on the ComfyUI at COMFY_ADDRESS and gives its files as base64."""

import base64
import json
import os
import uuid

import aiohttp
import runpod

ADDRESS = f"http://{os.environ['COMFY_ADDRESS']}"


async def run(http, workflow):
    """Posts the workflow and returns its history entry once ComfyUI has gone idle."""
    client = uuid.uuid4().hex
    async with http.ws_connect(f"{ADDRESS}/ws?clientId={client}") as socket:
        async with http.post(f"{ADDRESS}/prompt", json={"prompt": workflow, "client_id": client}) as answer:
            prompt = (await answer.json())["prompt_id"]
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            told = json.loads(message.data)
            data = told["data"]
            if told["type"] == "execution_error":
                raise RuntimeError(data["exception_message"])
            if told["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt:
                break
    async with http.get(f"{ADDRESS}/history/{prompt}") as answer:
        return prompt, (await answer.json())[prompt]


async def handler(job):
    async with aiohttp.ClientSession() as http:
        prompt, entry = await run(http, job["input"]["workflow"])
        images = []
        for node, shown in entry["outputs"].items():
            for files in shown.values():
                for file in files:
                    params = {name: file[name] for name in ("filename", "subfolder", "type")}
                    async with http.get(f"{ADDRESS}/view", params=params) as answer:
                        data = base64.b64encode(await answer.read()).decode()
                    images.append({"filename": file["filename"], "type": "base64", "data": data, "node": node})
    return {"status": "ok", "prompt_id": prompt, "images": images}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
