#!/usr/bin/env python3
"""Sends a sealed ComfyUI workflow to a Cloister or to a RunPod endpoint, and writes the outputs.

    pip install pynacl
    SERVER_PUBLIC_KEY_B64=... BEARER_TOKEN=... python3 submit.py workflow.json [folder]

ENDPOINT_URL is a Cloister's `http://HOST:8080/v2/local` (the default, on this host) or
`https://api.runpod.ai/v2/<endpoint>`; BEARER_TOKEN is the Cloister's token or RunPod's API key.
"""

import hashlib
import json
import os
import pathlib
import sys
import time
import urllib.request
import uuid
from base64 import b64decode, b64encode

from nacl.public import Box, PrivateKey, PublicKey

URL = os.environ.get("ENDPOINT_URL", "http://127.0.0.1:8080/v2/local")
TOKEN = os.environ["BEARER_TOKEN"]
SERVER = PublicKey(b64decode(os.environ["SERVER_PUBLIC_KEY_B64"]))


def call(path, body=None):
    """One question to the endpoint: POST with a body, else GET."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, body and json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def main():
    workflow = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".")
    one_time = PrivateKey.generate()  # one for each request: it is what the answer is sealed to
    box = Box(one_time, SERVER)
    request_id = str(uuid.uuid4())
    plain = {"v": 2, "type": "request", "id": request_id, "ts": int(time.time()), "workflow": workflow}
    sealed = box.encrypt(json.dumps(plain).encode())  # PyNaCl makes the nonce
    job = call("/run", {"input": {
        "encrypted": True,
        "v": 2,
        "kid": hashlib.sha256(bytes(SERVER)).hexdigest()[:16],
        "epk": b64encode(bytes(one_time.public_key)).decode(),
        "nonce": b64encode(sealed.nonce).decode(),
        "ciphertext": b64encode(sealed.ciphertext).decode(),
    }})
    while job["status"] in ("IN_QUEUE", "IN_PROGRESS"):
        time.sleep(0.2)
        job = call(f"/status/{job['id']}")
    answer = job.get("output") or {}
    if "ciphertext" not in answer:
        sys.exit(f"{job['status']}: {job.get('error')}")
    reply = json.loads(box.decrypt(b64decode(answer["ciphertext"]), b64decode(answer["nonce"])))
    # Both directions of a box share one key: this tells the reply from anything else that was sealed with it.
    if reply["type"] != "reply" or reply["id"] != request_id:
        sys.exit("this is not the reply to this request: do not trust the worker")
    for output in reply["outputs"]:
        path = folder / pathlib.PurePosixPath(output["filename"]).name
        path.write_bytes(b64decode(output["data"]))
        print(path)
    if job.get("error"):
        sys.exit(f"{job['status']}: {job['error']}: {json.dumps(reply.get('error'))}")


main()
