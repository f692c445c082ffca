# SPDX-License-Identifier: Apache-2.0
"""Cloister's companion in a ComfyUI process that it supervises. It adds no nodes. See runtimes/comfyui/README.md."""

import gc

from server import PromptServer

# ComfyUI finds nothing to load in a pack without this.
NODE_CLASS_MAPPINGS = {}


async def freeze_what_started(_app):
    """Runs once, when all packs are loaded and before the port opens: what is alive now lives as long as the process.

    ComfyUI collects garbage after a job and holds the interpreter meanwhile. Frozen objects are not looked at again.
    """
    gc.collect()
    gc.freeze()


PromptServer.instance.app.on_startup.append(freeze_what_started)

# ComfyUI's log buffer must not be empty when the first progress bar rewrites a line: its interceptor would raise, and the bar
# keep a lock for ever. Quiet log levels leave it empty. Nothing of a job is known yet, and this line is the same each time.
print("cloister companion: ready")
