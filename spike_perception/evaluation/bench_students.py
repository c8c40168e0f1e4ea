# SPDX-License-Identifier: Apache-2.0
"""Measure the students' speed on this machine beside well-known image networks.

All weights are random: speed does not depend on them. Every network is tried in every engine and
precision that can compute it, batch of one. Its eager form and its fastest engine in each precision
are then timed, all networks interleaved in one process, so whatever else the machine does falls on
all alike: trust the ratios more than the milliseconds.
"""

from __future__ import annotations

import argparse
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.deploy.engines import ENGINES, installed, make_engine
from spike_perception.deploy.grouping import group_cloud
from spike_perception.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

Call = Callable[[], object]

#: What is proposed for deployment: camera, and points with and without neighbourhoods.
STUDENTS = ("spikformer-s", "pointformer-s", "spike-pointnet-m")
POINTS = 1024
EAGER = ("torch", "f32")
TRIALS = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--students",
        nargs="+",
        default=list(STUDENTS),
        metavar="NAME[:SETTING=VALUE,...]",
        help="students, with settings that differ from the preset",
    )
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--rounds", type=int, default=40, help="timed calls of each variant")
    parser.add_argument("--no-peers", action="store_true", help="measure the students alone")
    parser.add_argument("--no-binary", action="store_true", help="leave the unfolded form out")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    try:
        threads = [int(word) for word in arguments.threads.split(",")]
    except ValueError:
        threads = []
    if not threads or not all(1 <= each <= 256 for each in threads) or arguments.rounds < 1:
        raise InputError(
            "invalid_option",
            f"--threads {arguments.threads} --rounds {arguments.rounds}: threads are whole numbers "
            "from 1, separated by commas; rounds is at least 1",
        )
    if not installed("torch"):
        raise InputError("engine_missing", "bench students needs torch: pip install torch")
    peers = not arguments.no_peers
    result = bench(arguments.students, threads, arguments.rounds, peers, not arguments.no_binary)
    emit(arguments, result, _table(result))
    return 0


@dataclass(frozen=True)
class Timing:
    """One network in one engine, precision and form, on so many threads; times per frame (ms)."""

    network: str
    form: str
    engine: str
    precision: str
    threads: int
    median_ms: float
    p95_ms: float
    minimum_ms: float


@dataclass(frozen=True)
class _Variant:
    """A network in one form: its graph for engines, its module for eager torch, or both."""

    network: str
    form: str
    sample: NDArray[np.float32]
    onnx: bytes
    precisions: tuple[str, ...]
    module: nn.Module | None = None


def bench(
    students: list[str], threads: list[int], rounds: int, peers: bool, binary: bool
) -> dict[str, Any]:
    """Time everything.

    Returns:
        ``networks`` (what was measured), ``timings`` and ``trials`` (:class:`Timing`), ``best``
        (fastest engine and precision of each network) and ``ratios`` (between bests), both by
        threads.
    """
    import torch

    before = torch.get_num_threads()
    networks: list[dict[str, Any]] = []
    variants: list[_Variant] = []
    grouping: dict[str, Call] = {}
    for name in tqdm(students, desc="export", disable=None, leave=False):
        facts, found, prepare = _student(name, binary)
        networks.append(facts)
        variants += found
        if prepare is not None:
            grouping[name] = prepare
    if peers:
        for facts, found in _peers():
            networks.append(facts)
            variants += found
    trials: list[Timing] = []
    timings: list[Timing] = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            tried, timed = _measure(variants, grouping, count, rounds)
            trials += tried
            timings += timed
    finally:
        torch.set_num_threads(before)
    best = {str(count): _best(timings, count) for count in threads}
    return {
        "weights": "random",
        "rounds": rounds,
        "networks": networks,
        "timings": [asdict(each) for each in timings],
        "trials": [asdict(each) for each in trials],
        "best": best,
        "ratios": {str(count): _ratios(timings, best[str(count)], count) for count in threads},
    }


def _student(name: str, binary: bool) -> tuple[dict[str, Any], list[_Variant], Call | None]:
    import torch

    from spike_perception.deploy.network import Whole, deployed_form, export
    from spike_perception.spiking.unfolding import unfold
    from spike_perception.students.registry import create_student

    preset, _, words = name.partition(":")
    settings = dict(word.partition("=")[::2] for word in words.split(",") if word)
    student = create_student(preset, {key: _value(text) for key, text in settings.items()}).eval()
    config = student.config
    size = getattr(config, "size", 0)
    raw = (
        (POINTS, 3 + config.point_features)
        if hasattr(config, "point_features")
        else (3, getattr(config, "height", size), getattr(config, "width", size))
    )
    samples = torch.rand(1, *raw)
    x = student.prepare(samples)
    grouped = x.shape != samples.shape
    facts = {
        "network": name,
        "parameters": sum(each.numel() for each in student.parameters()),
        "input": list(raw),
        "timesteps": config.steps,
        "levels": config.levels if config.neuron == "ilif" else 1,
    }

    # Eager is the student as training leaves it; engines get batch normalisation folded.
    forms = [
        ("integer", deployed_form(student, "f32"), ("f32", "bf16"), student),
        ("integer", deployed_form(student, "int8"), ("int8",), None),
    ]
    if binary:
        unfolded = unfold(student)
        forms.append(("binary", unfolded, ("f32", "bf16"), unfolded))
    variants = [
        _Variant(
            name,
            form,
            x.numpy(),
            export(network, x).onnx,
            precisions,
            None if eager is None else Whole(eager),
        )
        for form, network, precisions, eager in forms
    ]
    cloud = samples[0].numpy()
    prepare = partial(group_cloud, cloud, *x.shape[1:3]) if grouped else None
    return facts, variants, prepare


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _peers() -> list[tuple[dict[str, Any], list[_Variant]]]:
    import torch

    from spike_perception.evaluation.bench_peers import PEERS, SIZE, folded, quantised

    found = []
    for name, make in tqdm(PEERS.items(), desc="peers", disable=None, leave=False):
        torch.manual_seed(0)
        network = make().eval()
        images = torch.randn(4, 3, SIZE, SIZE)
        facts = {
            "network": name,
            "parameters": sum(each.numel() for each in network.parameters()),
            "input": [3, SIZE, SIZE],
        }
        x = images[:1]
        plain, eight = _onnx(folded(network), x), _onnx(quantised(network, images), x)
        variants = [
            _Variant(name, "plain", x.numpy(), plain, ("f32", "bf16"), network),
            _Variant(name, "plain", x.numpy(), eight, ("int8",)),
        ]
        found.append((facts, variants))
    return found


def _onnx(network: nn.Module, x: Tensor) -> bytes:
    import torch

    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (x,),
            stream,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=17,
        )
    return stream.getvalue()


def _call(variant: _Variant, engine: str, precision: str, threads: int) -> Call:
    if engine == "torch":
        return _eager(variant.module, variant.sample)
    # Peers keep much besides their sums in floats, and are faster with that in bf16. Spiking
    # networks keep potentials in f32, for the sake of their spikes.
    hint = "bf16" if (variant.form, precision) == ("plain", "int8") else precision
    made = make_engine(engine, hint, threads, lambda: variant.onnx)
    return partial(made.run, [variant.sample])


def _eager(module: nn.Module | None, sample: NDArray[np.float32]) -> Call:
    import torch

    if module is None:
        raise TypeError("this variant has no module")
    x, network = torch.from_numpy(sample), module.eval()

    def call() -> object:
        with torch.inference_mode():
            return network(x)

    return call


def _measure(
    variants: list[_Variant], grouping: dict[str, Call], threads: int, rounds: int
) -> tuple[list[Timing], list[Timing]]:
    """Trials of every engine and precision, one after another; then the contest.

    In the contest run, interleaved, each network's eager form and its fastest engine in each
    precision (by the trials' minima): no more, since every engine holds its own weights.
    """
    trials: list[Timing] = []
    fastest: dict[tuple[str, str, str], tuple[float, _Variant, str]] = {}
    calls: dict[tuple[str, str, str, str], Call] = {}
    for each in tqdm(variants, desc=f"{threads} threads: trials", disable=None, leave=False):
        if each.module is not None:
            calls[(each.network, each.form, *EAGER)] = _call(each, *EAGER, threads)
        for engine, (_, computes) in ENGINES.items():
            for precision in each.precisions:
                if engine == "torch" or precision not in computes or not installed(engine):
                    continue
                key = (each.network, each.form, engine, precision)
                call = _call(each, engine, precision, threads)
                trials += _time({key: call}, threads, TRIALS, quiet=True)
                found = (trials[-1].minimum_ms, each, engine)
                slot = (each.network, each.form, precision)
                if slot not in fastest or found[0] < fastest[slot][0]:
                    fastest[slot] = found
    for (network, form, precision), (_, variant, engine) in fastest.items():
        calls[(network, form, engine, precision)] = _call(variant, engine, precision, threads)
    calls |= {(name, "grouping", "numpy", "f32"): call for name, call in grouping.items()}
    return trials, _time(calls, threads, rounds, quiet=False)


def _time(
    calls: dict[tuple[str, str, str, str], Call], threads: int, rounds: int, quiet: bool
) -> list[Timing]:
    times: dict[tuple[str, str, str, str], list[float]] = {key: [] for key in calls}
    bar = tqdm(
        range(rounds), desc=f"{threads} threads", disable=True if quiet else None, leave=False
    )
    for _ in bar:
        for key, call in calls.items():
            call()  # brings weights back into the caches that the network before has taken
            began = time.perf_counter()
            call()
            times[key].append((time.perf_counter() - began) * 1e3)
    return [
        Timing(
            *key,
            threads,
            float(np.median(found)),
            float(np.quantile(found, 0.95)),
            float(np.min(found)),
        )
        for key, found in times.items()
    ]


def _best(timings: list[Timing], threads: int) -> dict[str, dict[str, Any]]:
    """The fastest engine and precision of each network (a student's integer form)."""
    best: dict[str, dict[str, Any]] = {}
    for each in timings:
        if each.threads != threads or each.form not in ("integer", "plain"):
            continue
        if each.network not in best or each.median_ms < best[each.network]["median_ms"]:
            best[each.network] = {
                key: getattr(each, key) for key in ("engine", "precision", "median_ms", "p95_ms")
            }
    return best


def _ratios(
    timings: list[Timing], best: dict[str, dict[str, Any]], threads: int
) -> dict[str, dict[str, float]]:
    """How many times faster each student's best is than its other forms and the peers' bests."""
    peers = {each.network for each in timings if each.form == "plain"}
    ratios: dict[str, dict[str, float]] = {}
    for name in best.keys() - peers:
        own = best[name]["median_ms"]
        others = {peer: best[peer]["median_ms"] / own for peer in sorted(peers)}
        for each in timings:
            if (each.network, each.threads) == (name, threads) and each.form != "grouping":
                others[f"{each.form} {each.engine} {each.precision}"] = each.median_ms / own
        ratios[name] = others
    return ratios


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"ms per frame, batch of one, random weights, {result['rounds']} interleaved rounds; "
        "x: times the network's best",
        f"{'network':<42}{'form':<10}{'engine':<13}{'precision':<11}{'threads':>7}{'median':>10}"
        f"{'p95':>10}{'x':>8}",
    ]
    for each in result["timings"]:
        best = result["best"][str(each["threads"])][each["network"]]["median_ms"]
        lines.append(
            f"{each['network']:<42}{each['form']:<10}{each['engine']:<13}{each['precision']:<11}"
            f"{each['threads']:>7}{each['median_ms']:>10.2f}{each['p95_ms']:>10.2f}"
            f"{each['median_ms'] / best:>8.1f}"
        )
    for threads, ratios in result["ratios"].items():
        for name, others in sorted(ratios.items()):
            best = result["best"][threads][name]
            against = [
                f"{other:.1f} x {peer}"
                for peer, other in others.items()
                if peer in result["best"][threads]
            ]
            eager = others.get("integer torch f32")
            lines.append(
                f"{threads} threads, {name}: {best['median_ms']:.2f} ms in {best['engine']} "
                f"{best['precision']}; as fast as {', '.join([f'{eager:.1f} x eager', *against])}"
            )
    return "\n".join(lines)
