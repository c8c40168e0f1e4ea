# SPDX-License-Identifier: Apache-2.0
"""Train VPRTempo on one traverse and ask it about another; run as a script of its own.

``python -I vprtempo_runner.py IN.npz OUT.npz`` in any interpreter with the package ``vprtempo``:
nothing of this suite is imported. Its networks, their training and the conversion of images to
spikes are VPRTempo's own (Hines, Stratton, Milford and Fischer, ICRA 2024); its data sets read
files by torchvision, so its loops over them are written out here for arrays.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
import types
from argparse import Namespace
from typing import Any

import numpy as np

LIMIT = 500  # places a module, VPRTempo's default


def main(source: str, target: str) -> None:
    """Answer one request.

    Args:
        source: .npz with uint8 ``reference`` [P, H, W] and ``query`` [Q, H, W], grey, and JSON
            ``options`` with ``size``, ``patches``, ``epochs`` and ``seed``.
        target: .npz to write: float32 ``scores`` [Q, P], float64 ``seconds`` [Q] to answer a query,
            ``parameters`` and ``train_seconds``.
    """
    _torchvision()
    import torch
    from vprtempo.src.dataset import ProcessImage
    from vprtempo.VPRTempo import VPRTempo
    from vprtempo.VPRTempoTrain import VPRTempoTrain

    with np.load(source, allow_pickle=False) as given:
        reference, query = given["reference"], given["query"]
        options = json.loads(str(given["options"]))
    torch.manual_seed(options["seed"])
    np.random.seed(options["seed"])  # noqa: NPY002  (VPRTempo draws its connections from it)
    size = [options["size"], options["size"]]
    convert = ProcessImage(size, options["patches"])
    places = len(reference)
    modules = math.ceil(places / LIMIT)
    each = math.ceil(places / modules)
    outputs = [min(each, places - k * each) for k in range(modules)]
    asked = Namespace(
        dataset="traverse",
        data_dir="",
        database_dirs="reference",
        query_dir="query",
        database_places=places,
        query_places=len(query),
        max_module=each,
        filter=1,
        skip=0,
        GT_tolerance=0,
        epoch=options["epochs"],
        patches=options["patches"],
        PR_curve=False,
        sim_mat=False,
    )

    def spikes(image: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
        # Its gamma correction divides by the logarithm of the mean: black frames are lifted.
        lifted = image if image.mean() > 2 else np.maximum(image, np.uint8(3))
        return convert(torch.from_numpy(lifted)[None].float())  # type: ignore[no-any-return]

    began = time.perf_counter()
    learnt = [
        VPRTempoTrain(asked, size, None, modules, each, out_dim_remainder=None if n == each else n)
        for n in outputs
    ]
    labelled = [(spikes(image), k) for k, image in enumerate(reference)]
    trained: list[str] = []
    for name in ("feature_layer", "output_layer"):
        for k, model in enumerate(learnt):
            loader: Any = torch.utils.data.DataLoader(
                labelled[k * each : k * each + outputs[k]],  # type: ignore[arg-type]
                batch_size=1,
                shuffle=True,
            )
            model.train()
            with torch.no_grad():
                model.train_model(loader, getattr(model, name), model, k, prev_layers=trained)
        trained.append(name)
    train_seconds = time.perf_counter() - began

    networks = [
        VPRTempo(asked, size, None, modules, "", each, out_dim_remainder=None if n == each else n)
        for n in outputs
    ]
    for network, model in zip(networks, learnt, strict=True):
        network.load_state_dict(model.state_dict())
        network.eval()
    first = networks[0]
    # What its evaluate() sets up: inference is the product of both layers' weights.
    first.inferences = [torch.nn.Sequential(n.feature_layer.w, n.output_layer.w) for n in networks]
    scores = np.empty((len(query), places), np.float32)
    seconds = np.empty(len(query))
    with torch.no_grad():
        for k, image in enumerate(query):
            start = time.perf_counter()
            answer = first.forward(spikes(image)[None])
            seconds[k] = time.perf_counter() - start
            scores[k] = answer[0].numpy()
    np.savez(
        target,
        scores=scores,
        seconds=seconds,
        parameters=sum(w.numel() for n in networks for w in n.parameters()),
        train_seconds=train_seconds,
    )


def _torchvision() -> None:
    """Stand in for torchvision where it cannot be imported, as beside a CPU build of torch.

    VPRTempo imports it to read and compose images, and here they come as arrays.
    """
    try:
        importlib.import_module("torchvision.io")
        importlib.import_module("torchvision.transforms")
    except (ImportError, RuntimeError, OSError):
        for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        package: Any = types.ModuleType("torchvision")
        package.io = types.ModuleType("torchvision.io")
        package.io.read_image = None
        package.transforms = types.ModuleType("torchvision.transforms")
        for module in (package, package.io, package.transforms):
            sys.modules[module.__name__] = module


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"  # VPRTempo imports pyplot
    main(*sys.argv[1:3])
