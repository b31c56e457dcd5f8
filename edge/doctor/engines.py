"""Check for engines that are installed but do not work, or work worse than they could."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge.doctor.packages import major
from edge.doctor.snapshot import Check, Finding, Snapshot
from edge.machine import accelerators
from runtimes import registry


def any_engine(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that at least one engine is installed."""
    ready = [one for one in snapshot.engines() if one.installed and one.requires and not one.lacks]
    if ready:
        yield Finding(
            level="ok", what="engines: " + ", ".join(f"{one.id} {one.version or ''}".strip() for one in ready)
        )
        return
    yield Finding(
        level="warning",
        what="no engine is installed",
        why="edge converts and runs models with engines, each of which is a separate extra",
        fix=registry.install_hint("onnxruntime"),
    )


def pycoral(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for PyPI's pycoral, a program for coral reefs that is not Google's package."""
    version = snapshot.packages.version("pycoral")
    # Google's package is recognized by its files: importing it would run it.
    if version is None or snapshot.packages.file("pycoral", "pycoral/utils/edgetpu.py"):
        return
    yield Finding(
        level="error",
        what=f"pycoral {version} is not Google's package",
        why="PyPI's package of that name is a client of the Allen Coral Atlas, which maps reefs",
        fix=f"pip uninstall --yes pycoral && {registry.install_hint('litert')} (it drives a Coral through libedgetpu)",
    )


def tflite_runtime(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the numpy that tflite-runtime uses, which was built for numpy 1."""
    version, numpy = snapshot.packages.version("tflite-runtime"), snapshot.packages.version("numpy")
    if version is None or numpy is None or major(numpy) < 2:
        return
    replaced = "ai-edge-litert" in snapshot.packages
    yield Finding(
        level="warning" if replaced else "error",
        what=f"tflite-runtime {version} does not work with numpy {numpy}",
        why="it was built for numpy 1, and opening a model fails: '_ARRAY_API not found', SystemError"
        + ("; edge uses ai-edge-litert, other programs may not" if replaced else ""),
        fix="pip uninstall --yes tflite-runtime" + ("" if replaced else f" && {registry.install_hint('litert')}"),
    )


def torch_build(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for a CUDA build of PyTorch without a GPU: it has gigabytes of libraries that are never loaded."""
    cuda = torch_cuda(snapshot)
    if cuda is None or has_nvidia_gpu(snapshot):
        return
    yield Finding(
        level="warning",
        what=f"torch {snapshot.packages.version('torch')} is built for CUDA {cuda}, but there is no NVIDIA GPU",
        why="it works, but takes gigabytes of disk and starts more slowly than the CPU build",
        fix="pip uninstall --yes torch, then install the CPU build as the page 'Start locally' of pytorch.org shows",
    )


def gpu_unused(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for a GPU that no installed engine can use."""
    if not has_nvidia_gpu(snapshot):
        return
    able = [name for name in ("onnxruntime-gpu", "tensorrt") if name in snapshot.packages]
    able += ["torch"] if torch_cuda(snapshot) else []
    if able:
        yield Finding(level="ok", what=f"the NVIDIA GPU can be used by {', '.join(able)}")
        return
    jetson = accelerators.is_attached(accelerators.JETSON, snapshot.machine)
    yield Finding(
        level="warning",
        what="there is an NVIDIA GPU, but no installed engine uses it",
        why="the CUDA builds of PyTorch, ONNX Runtime and TensorRT can use it",
        fix="install the wheels that NVIDIA builds for this JetPack (torch, onnxruntime-gpu); TensorRT comes with it"
        if jetson
        else "pip uninstall --yes onnxruntime && pip install onnxruntime-gpu",
    )


def torch_cuda(snapshot: Snapshot) -> str | None:
    """Return the CUDA release that the installed PyTorch was built for; None for a CPU build, or without PyTorch."""
    source = snapshot.packages.file("torch", "torch/version.py")
    if source is None:
        return None
    text = source.read_text(encoding="utf-8", errors="replace")
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, flags=re.MULTILINE)
    return match.group(1) if match else None


def has_nvidia_gpu(snapshot: Snapshot) -> bool:
    """Return whether there is an NVIDIA GPU: in a slot, or a Jetson's own."""
    kinds = (accelerators.NVIDIA_GPU, accelerators.JETSON)
    return any(accelerators.is_attached(kind, snapshot.machine) for kind in kinds)


CHECKS: tuple[Check, ...] = (any_engine, pycoral, tflite_runtime, torch_build, gpu_unused)
