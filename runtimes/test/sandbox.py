"""The host's part of the runner protocol, against a real runtime in a real runsc sandbox."""

import json
import os
import secrets
import select
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNTIMES = HERE.parent
ROOTFS = Path(os.environ.get("CLOISTER_RUNTIMES_DIR", RUNTIMES.parent / ".cloister" / "runtimes"))
RUNSC = os.environ.get("CLOISTER_RUNSC", "runsc")
LIMITS = {"resultBytes": 4 << 20, "logBytes": 1 << 20, "messageBytes": 64 << 10}
FRAME_CAP = 32 << 20


def deno_argv(heap_mb=128, env="", extra=()):
    return [
        "/usr/bin/deno", "run", "--quiet", "--no-prompt", "--no-config", "--no-lock",
        "--cached-only", "--no-check", "--no-code-cache", "--node-modules-dir=manual",
        "--allow-read=/workspace,/runtime,/proc/self/fd/4", "--allow-write=/proc/self/fd/3",
        "--allow-env" + (f"={env}" if env else ""),
        f"--v8-flags=--max-old-space-size={heap_mb}",
        *extra, "/runtime/runner.js",
    ]


def bun_argv(heap_mb=128, env="", extra=()):
    return ["/usr/bin/bun", "run", "--no-install", "--no-env-file", "--config=/dev/null", "--smol",
            *extra, "/runtime/runner.js"]


ENVIRONMENT = {
    "deno": ["PATH=/usr/bin", "HOME=/tmp", "TMPDIR=/tmp", "NO_COLOR=1", "DENO_DIR=/tmp/.deno", "DENO_NO_PACKAGE_JSON=1",
             "DENO_NO_UPDATE_CHECK=1", "LANG=C.UTF-8"],
    "bun": ["PATH=/usr/bin", "HOME=/tmp", "TMPDIR=/tmp", "NO_COLOR=1", "BUN_RUNTIME_TRANSPILER_CACHE_PATH=0",
            "DO_NOT_TRACK=1", "LANG=C.UTF-8"],
}


def spec(runtime, argv, workspace, code, environment=(), cwd="/tmp"):
    ro = ["rbind", "ro", "nosuid", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False, "user": {"uid": 65534, "gid": 65534}, "args": argv, "cwd": cwd,
            "env": ENVIRONMENT[runtime] + list(environment),
            "capabilities": {k: [] for k in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
                        {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": str(ROOTFS / runtime / "rootfs"), "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            # runsc mounts a sysfs of its own where the spec names no /sys.
            {"destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid", "nodev", "noexec", "mode=555", "size=4k"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=755", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=64m"]},
            {"destination": "/runtime", "type": "bind", "source": str(code), "options": ro},
            {"destination": "/workspace", "type": "bind", "source": str(workspace), "options": ro},
        ],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]},
    }


class Sandbox:
    """One runner in one sandbox. `close` ends it and asserts nothing."""

    def __init__(self, runtime, modules=None, argv=None, environment=(), cgroups=(), cwd="/tmp", workspace=None,
                 edit=None, runsc_flags=(), arguments=()):
        self.dir = Path(tempfile.mkdtemp(prefix="runner-test-"))
        self.id = "runner-test-" + secrets.token_hex(6)
        self.workspace = workspace or self.dir / "workspace"
        self.workspace.mkdir(exist_ok=True, mode=0o755)
        self.dir.chmod(0o755)
        for name, source in (modules or {}).items():
            path = self.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source if isinstance(source, bytes) else source.encode())
        code = self.dir / "runtime"
        code.mkdir(mode=0o755)
        for source in (RUNTIMES / runtime / "runner.js", RUNTIMES / "shared" / "core.js"):
            shutil.copy(source, code)
        argv = argv or {"deno": deno_argv, "bun": bun_argv}[runtime]()
        argv = [*argv, *arguments]
        config = spec(runtime, argv, self.workspace, code, environment, cwd)
        if edit:
            edit(config)
        (self.dir / "config.json").write_text(json.dumps(config))
        self.from_runner, out = os.pipe()
        into, self.to_runner = os.pipe()
        self.output, self.error = open(self.dir / "stdout", "wb"), open(self.dir / "stderr", "wb")
        self.spawned = time.monotonic()

        def enter():
            for group in cgroups:
                with open(group + "/cgroup.procs", "w") as procs:
                    procs.write(str(os.getpid()))

        self.process = subprocess.Popen(
            [RUNSC, "--root", str(self.dir / "state"), "--platform=systrap", "--network=none", "--ignore-cgroups",
             "--host-uds=none", "--overlay2=none", "--file-access-mounts=shared", *runsc_flags, "run", "--bundle", str(self.dir),
             "--pass-fd", f"{out}:3", "--pass-fd", f"{into}:4", self.id],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.error, pass_fds=(out, into), start_new_session=True,
            preexec_fn=enter if cgroups else None)
        os.close(out)
        os.close(into)
        self.nonce = secrets.token_hex(16)
        self.times = {}

    def read(self, timeout=20):
        """The next frame; None at end-of-file; TimeoutError after `timeout` seconds without one."""
        deadline = time.monotonic() + timeout
        header = self._exactly(4, deadline)
        if not header:
            return None
        (size,) = struct.unpack(">I", header)
        if not 1 <= size <= FRAME_CAP:
            return {"type": "garbage", "size": size}
        body = self._exactly(size, deadline)
        try:
            return json.loads(body.decode("utf-8"))
        except ValueError as cause:
            return {"type": "garbage", "cause": str(cause)}

    def _exactly(self, size, deadline):
        chunks, missing = [], size
        while missing:
            ready, _, _ = select.select([self.from_runner], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no frame from {self.id}")
            chunk = os.read(self.from_runner, min(missing, 1 << 20))
            if not chunk:
                return b""
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks)

    def ready(self):
        frame = self.read()
        self.times["ready"] = time.monotonic() - self.spawned
        return frame

    def send(self, request, last=True):
        data = json.dumps(request, ensure_ascii=False).encode("utf-8")
        data = struct.pack(">I", len(data)) + data
        while data:
            data = data[os.write(self.to_runner, data):]
        if last:
            os.close(self.to_runner)
            self.to_runner = None
        self.sent = time.monotonic()

    def execute(self, main="main.js", data=None, env=None, limits=None):
        self.send({"nonce": self.nonce, "task": "execute", "main": main, "event": {"data": data, "env": env or {}},
                   "context": {"executionId": "e", "environmentId": "v", "requestId": "r"},
                   "limits": {**LIMITS, **(limits or {})}})

    def prepare(self, main):
        self.send({"nonce": self.nonce, "task": "prepare", "main": main, "limits": LIMITS}, last=False)

    def call(self, data=None, env=None):
        self.send({"event": {"data": data, "env": env or {}}, "context": {"executionId": "e", "environmentId": "v", "requestId": "r"}})

    def settle(self, timeout=20, imported=False, until_imported=False):
        """Frames up to the one that settles; the outcome as a strict host would see it."""
        logs = []
        deadline = time.monotonic() + timeout
        while True:
            try:
                frame = self.read(max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                return {"outcome": "timeout", "phase": "handler" if imported else "import", "logs": logs}
            if frame is None or frame.get("nonce") != self.nonce:
                return {"outcome": "no_result", "logs": logs, "forged": frame is not None, "frame": frame}
            kind = frame["type"]
            self.times[kind] = time.monotonic() - self.sent
            if kind == "imported" and not imported:
                imported = True
                if until_imported:
                    return {"outcome": "imported", "logs": logs}
            elif kind == "log":
                logs.append(frame)
            elif kind == "result" and imported:
                return {"outcome": "ok", "json": frame["json"], "logs": logs}
            elif kind == "failure":
                return {"outcome": frame["kind"], "error": frame["error"], "logs": logs, "imported": imported}
            else:
                return {"outcome": "no_result", "logs": logs, "forged": True, "frame": frame}

    def exit_code(self, timeout=5):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return "hangs"

    def stdio(self):
        return tuple((self.dir / name).read_bytes() for name in ("stdout", "stderr"))

    def close(self):
        self.process.kill()
        self.process.wait()
        for fd in (self.from_runner, self.to_runner):
            if fd is not None:
                os.close(fd)
        self.output.close()
        self.error.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
