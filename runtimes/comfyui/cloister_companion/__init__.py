# SPDX-License-Identifier: Apache-2.0
"""Cloister's companion in a ComfyUI process that it supervises. It adds no nodes, and takes some away. See runtimes/comfyui/README.md."""

import functools
import gc

import folder_paths
import nodes
from server import PromptServer

# ComfyUI finds nothing to load in a pack without this.
NODE_CLASS_MAPPINGS = {}

# Stock nodes that join a name of the request to a folder without looking where that leads, or write into ComfyUI's own
# directory. None of them serves a job here: the savers report no output, and a job's input has no folders.
LEAVING = (
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "SaveTrainingDataset",
    "LoadImageDataSetFromFolder",
    "LoadImageTextDataSetFromFolder",
    "LoadVideoDataSetFromFolder",
    "LoadVideoTextDataSetFromFolder",
)


def stays_inside(save_to):
    """Wraps the method by which 3D files are saved: their ending may come from the request, with a path in it."""

    @functools.wraps(save_to)
    def checked(self, path):
        shelves = (
            folder_paths.get_output_directory(),
            folder_paths.get_temp_directory(),
            folder_paths.get_input_directory(),
        )
        # The parts that are not there yet are made, so `..` behind them counts.
        if ".." in str(path).split("/") or not any(folder_paths.is_within_directory(shelf, path) for shelf in shelves):
            raise ValueError("a 3D file would be saved outside of the output directory")
        return save_to(self, path)

    return checked


async def keep_stock_nodes_inside(_app):
    """Runs once, when all packs are loaded: from here on, what a stock node writes lies in the instance's RAM directory."""
    for name in LEAVING:
        nodes.NODE_CLASS_MAPPINGS.pop(name, None)
    try:
        from comfy_api.latest._util.geometry_types import File3D
    except ImportError:
        return  # An older release: it has no such files.
    File3D.save_to = stays_inside(File3D.save_to)


async def freeze_what_started(_app):
    """Runs once, when all packs are loaded and before the port opens: what is alive now lives as long as the process.

    ComfyUI collects garbage after a job and holds the interpreter meanwhile. Frozen objects are not looked at again.
    """
    gc.collect()
    gc.freeze()


PromptServer.instance.app.on_startup.append(keep_stock_nodes_inside)
PromptServer.instance.app.on_startup.append(freeze_what_started)

# ComfyUI's log buffer must not be empty when the first progress bar rewrites a line: its interceptor would raise, and the bar
# keep a lock for ever. Quiet log levels leave it empty. Nothing of a job is known yet, and this line is the same each time.
print("cloister companion: ready")
