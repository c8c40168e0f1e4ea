# SPDX-License-Identifier: Apache-2.0
"""Shapes with names from the furniture catalogues of Sweet Home 3D (``.sh3f``), and abstract ones.

Debian has them as the package sweethome3d-furniture. Catalogues and what is sampled from them stay
with whoever trains; their authors are named in the file ATTRIBUTION beside the shapes.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes
from spike_perception.training.svl.abstract import abstract_shapes
from spike_perception.training.svl.render import Discs, RenderConfig, render_views

Float = NDArray[np.float32]
CATALOGUES = Path("/usr/share/sweethome3d/furniture")
PROPERTIES = "PluginFurnitureCatalog.properties"
MAX_PROPERTIES_BYTES = 16 << 20
#: What trimesh raises for files that it cannot make sense of.
UNREADABLE = (
    ArithmeticError, AttributeError, ImportError, LookupError, NotImplementedError, OSError,
    TypeError, ValueError,
)  # fmt: skip
#: Points of a surface that its pictures are made of: several to a pixel.
SAMPLES = 200_000
#: As furniture is photographed: from the front and its sides, a little from above, on white.
PICTURE = RenderConfig(arc=150.0, elevation=25.0, background=1.0, fog=0.0, band=0.01)
MAX_CATALOGUE_BYTES = 4 << 30
"""Largest catalogue, unpacked."""

#: Names of models that show a class of ModelNet40, as looked at one by one; under "CATEGORY: name"
#: where the name alone says too little. What is not here keeps its own name.
CLASSES: dict[str, tuple[str, ...]] = {
    "airplane": ("biplane",),
    "bathtub": ("bath", "corner bathtub", "island bath"),
    "bed": ("bed", "captain's bed", "child bed", "day bed", "hospital bed", "iron bed"),
    "bench": ("bench", "concrete bench", "little bank", "painted bench", "wood bank"),
    "bookshelf": ("bookcase", "full bookcase", "Living room: shelves"),
    "bottle": ("baby bottle", "beer bottle", "bottle", "medicine bottle", "wine bottle",
               "yogurt bottle"),
    "bowl": ("bowl",),
    "car": ("chevrolet", "concept sedan", "concept sedan sport", "ford focus", "peugeot 308 cc",
            "renault scenic", "seat leon", "smart car", "suv", "vw new beetle"),
    "chair": ("cafe chair", "chair", "chair with cushion", "child chair", "children chair",
              "class seat", "folding chair", "oak chair", "osaka chair", "plastic chair",
              "teck chair"),
    "cone": ("cone",),
    "cup": ("coffee cup", "coffee mug", "cup", "plastic cup"),
    "curtain": ("curtain", "shower curtain"),
    "desk": ("desk", "desk table", "wooden desk"),
    "door": ("door", "exterior door", "glass door", "screen door"),
    "dresser": ("Bedroom: chest", "dresser with drawers"),
    "guitar": ("electric guitar",),
    "lamp": ("desk lamp", "lamp", "little lamp", "pedestal vase lamp"),
    "laptop": ("apple ibook", "laptop"),
    "mantel": ("fireplace",),
    "monitor": ("tv", "tv 16:9", "wall flat tv"),
    "night stand": ("bedside table",),
    "person": ("boy", "female", "girl", "holding female", "holding male", "male",
               "mannequin female", "mannequin male"),
    "piano": ("grand piano", "upright piano"),
    "plant": ("cactus", "decorative plant", "ficus", "indoor plant", "little plant", "plant",
              "spathiphyllum", "spider plant", "succulent plant", "yucca"),
    "radio": ("radio",),
    "range hood": ("hood", "range hood"),
    "sink": ("small lavatory", "washbasin"),
    "sofa": ("burlap sofa", "clear sofa", "corner sofa", "couch", "futon couch", "rattan sofa",
             "sofa", "sofa 2 seats", "sofa 3 seats", "winchester sofa"),
    "stairs": ("spiral staircase",),
    "stool": ("bar stool", "stool"),
    "table": ("black table", "cafe table", "coffee table", "folding table", "glass table",
              "oak table", "rattan table", "round table", "table", "table on trestles",
              "wooden alder table", "wooden table", "wooden teak table"),
    "tent": ("barnum", "camping tent"),
    "toilet": ("toilets unit",),
    "tv stand": ("television cabinet", "tv stand"),
    "vase": ("vase",),
    "wardrobe": ("wardrobe",),
}  # fmt: skip
_CLASS_OF = {name: class_name for class_name, names in CLASSES.items() for name in names}


@dataclass(frozen=True)
class Model:
    """One model of a catalogue.

    Attributes:
        name: as catalogued, cleaned (see :func:`cleaned`).
        category: as catalogued.
        file: OBJ file inside the catalogue.
        creator: who made it.
        rotation: float64 [3, 3], of columns, before all else.
        size: width, height and depth (cm), as the model is to stand in a room.
    """

    name: str
    category: str
    file: str
    creator: str
    rotation: NDArray[np.float64]
    size: tuple[float, float, float]

    @property
    def class_name(self) -> str:
        """The class of ModelNet40 that it shows, else its own name."""
        return _CLASS_OF.get(f"{self.category}: {self.name}", _CLASS_OF.get(self.name, self.name))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be new")
    parser.add_argument(
        "--catalogues",
        type=Path,
        default=CATALOGUES,
        metavar="FOLDER",
        help="where the .sh3f files lie, as sweethome3d-furniture installs them",
    )
    parser.add_argument("--points", type=int, default=4096, metavar="N", help="of each shape")
    parser.add_argument("--views", type=int, default=3, metavar="N", help="pictures of each shape")
    parser.add_argument(
        "--abstract",
        type=int,
        default=4000,
        metavar="N",
        help="random assemblies of boxes, legs and shells, unnamed, for OUT/abstract.npz; 0: none",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sample the models of all catalogues; assemble abstract shapes."""
    result = write_shapes(
        arguments.catalogues,
        arguments.out,
        points=arguments.points,
        views=arguments.views,
        seed=arguments.seed,
    )
    result["abstract"] = arguments.abstract
    if arguments.abstract:
        cloud = abstract_shapes(arguments.abstract, arguments.seed, min(arguments.points, 1024))
        np.savez(arguments.out / "abstract.npz", points=cloud.astype(np.float16))
    emit(
        arguments,
        result,
        f"{result['shapes']} shapes of {result['classes']} names in {arguments.out}; "
        f"{len(result['skipped'])} models left out; authors in {arguments.out / 'ATTRIBUTION'}; "
        f"{arguments.abstract} abstract shapes",
    )
    return 0


def write_shapes(
    catalogues: Path, out: Path, *, points: int = 4096, views: int = 3, seed: int = 0
) -> dict[str, Any]:
    """Sample every model of every catalogue.

    Each becomes ``OUT/NAME/CATALOGUE-MODEL.npy``, float32 [points, 6]: x, y, z (m, z up, front
    towards -y), then red, green, blue in 0..1, and beside it ``.png``, its pictures from several
    sides, one below the other. The same call writes the same files.

    Args:
        catalogues: folder with ``.sh3f`` files.
        out: folder that does not exist or is empty.
        points: of each shape.
        views: pictures of each shape.
        seed: of the sampling.

    Returns:
        ``shapes``, ``classes`` (how many names), ``per_class``, ``skipped`` (model to reason).

    Raises:
        InputError: ``catalogues_missing``, ``bad_catalogue``, ``out_exists``, ``invalid_option``.
    """
    from tqdm import tqdm

    files = sorted(catalogues.glob("*.sh3f"))
    if not files:
        raise InputError(
            "catalogues_missing",
            f"{catalogues} holds no .sh3f file; install Debian's sweethome3d-furniture, or give "
            "--catalogues",
        )
    if not 4 <= points <= SAMPLES or views < 1:
        raise InputError(
            "invalid_option",
            f"{points} points and {views} views; allowed are 4 to {SAMPLES}, and 1 or more",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("out_exists", f"{out} exists; give a new folder")
    counts: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    authors: list[str] = []
    for file in files:
        with tempfile.TemporaryDirectory() as place:
            models, notice = unpack(file, Path(place))
            authors.append(f"{file.name}: {notice}\n")
            for model in tqdm(models, desc=file.stem, unit="model", disable=None):
                key = f"{file.stem}-{Path(model.file).stem}"
                generator = int(sha256_bytes(f"{seed} {key}".encode())[:8], 16)
                try:
                    surface = sample(Path(place) / model.file, model, SAMPLES, generator)
                except UNREADABLE as error:
                    skipped[key] = f"{type(error).__name__}: {error}"
                    continue
                folder = out / model.class_name.replace("/", " ")
                folder.mkdir(parents=True, exist_ok=True)
                cloud = np.concatenate([surface.points, surface.colours], 1)[:points]
                np.save(folder / f"{key}.npy", cloud)
                sheet = pictures(surface, views, PICTURE)
                cv2.imwrite(str(folder / f"{key}.png"), sheet[..., ::-1])
                counts[model.class_name] += 1
                authors.append(f"  {folder.name}/{key}.npy: {model.name}, by {model.creator}\n")
    (out / "ATTRIBUTION").write_text("".join(authors), encoding="utf-8")
    for key, why in skipped.items():
        print(f"left out: {key}: {why}", file=sys.stderr)
    return {
        "shapes": sum(counts.values()),
        "classes": len(counts),
        "per_class": dict(sorted(counts.items())),
        "skipped": skipped,
    }


def unpack(file: Path, place: Path) -> tuple[list[Model], str]:
    """Models of a catalogue, its files unpacked under ``place``, and its licence.

    Raises:
        InputError: ``bad_catalogue``.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(each.file_size for each in archive.infolist()) > MAX_CATALOGUE_BYTES:
                raise ValueError(f"it exceeds {MAX_CATALOGUE_BYTES} bytes unpacked")
            if archive.getinfo(PROPERTIES).file_size > MAX_PROPERTIES_BYTES:
                raise ValueError(f"{PROPERTIES} exceeds {MAX_PROPERTIES_BYTES} bytes")
            listed = archive.read(PROPERTIES).decode("latin-1")  # as Java's properties are
            archive.extractall(place)  # keeps every member below that folder
        return list(read_models(listed)), _property(listed, "license")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError("bad_catalogue", f"{file} cannot be read: {error}") from error


def read_models(properties: str) -> Iterator[Model]:
    """The models that a catalogue lists, in its order; those without name or model are passed over.

    Raises:
        ValueError: if a number is none.
    """
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)\s*=[ \t]*(.*?)\s*$", properties, re.M):
        entries.setdefault(int(number), {})[key] = value
    for entry in entries.values():
        if not entry.get("name") or not entry.get("model", "").lower().endswith(".obj"):
            continue
        rotation = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), np.float64)
        if rotation.shape != (9,):
            raise ValueError(f"modelRotation of {entry['name']} has {rotation.size} values")
        width, height, depth = (float(entry.get(k, 0)) for k in ("width", "height", "depth"))
        yield Model(
            cleaned(entry["name"]),
            _unescaped(entry.get("category", "")),
            entry["model"].lstrip("/"),
            _unescaped(entry.get("creator", "unknown")),
            rotation.reshape(3, 3),
            (width, height, depth),
        )


@dataclass(frozen=True, eq=False)
class Surface:
    """Points drawn evenly by area from a model's surface, in random order.

    Attributes:
        points: float32 [N, 3], metres, z up, front towards -y.
        normals: unit, float32 [N, 3].
        colours: float32 [N, 3], 0..1.
    """

    points: Float
    normals: Float
    colours: Float


def sample(file: Path, model: Model, points: int, seed: int) -> Surface:
    """Points on a model's surface.

    Raises:
        ValueError: if it has no surface; whatever trimesh raises for files that it cannot read.
    """
    import trimesh

    scene = trimesh.load_scene(file)
    meshes = [each for each in scene.dump() if isinstance(each, trimesh.Trimesh) and each.area > 0]
    if not meshes:
        raise ValueError("it has no surface")
    areas = np.array([each.area for each in meshes])
    rng = np.random.default_rng(seed)
    parts = []
    for mesh, count in zip(meshes, rng.multinomial(points, areas / areas.sum()), strict=True):
        if count:
            parts.append(_drawn(mesh, int(count), rng))
    place, normal, colour = (np.concatenate(each) for each in zip(*parts, strict=True))
    turn = model.rotation.T
    place, normal = place @ turn, normal @ turn
    extent = np.ptp(place, 0)
    size = np.array(model.size) / 100.0
    if (size > 0).all() and (extent > 1e-9).all():
        place, normal = place * (size / extent), normal * (extent / size)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    if not np.isfinite(place).all():
        raise ValueError("its surface has points that are not finite")
    order = rng.permutation(points)
    upright = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # from y up, front +z
    return Surface(
        np.asarray((place @ upright)[order], np.float32),
        np.asarray((normal @ upright)[order], np.float32),
        np.asarray(colour[order], np.float32),
    )


def pictures(surface: Surface, views: int, config: RenderConfig) -> NDArray[np.uint8]:
    """Pictures of a densely sampled surface, one below the other, uint8 [views * size, size, 3]."""
    middle = (surface.points.min(0) + surface.points.max(0)) / 2
    shape = Discs(surface.points - middle, surface.normals)
    made = render_views(shape, views, config, surface.colours)
    return made.reshape(-1, config.size, 3)


def _drawn(mesh: Any, count: int, rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Points on a mesh, their normals and colours: its texture's or material's, grey without."""
    import trimesh

    place, faces = trimesh.sample.sample_surface(mesh, count, seed=rng)[:2]
    visual = mesh.visual
    colours = np.full((count, 4), 153)
    if visual.kind == "texture":
        colours = np.tile(visual.material.main_color, (count, 1))
        if visual.uv is not None and getattr(visual.material, "image", None) is not None:
            share = trimesh.triangles.points_to_barycentric(mesh.triangles[faces], place)
            uv = (visual.uv[mesh.faces[faces]] * share[..., None]).sum(1)
            colours = visual.material.to_color(uv)
    elif visual.kind is not None:
        colours = visual.face_colors[faces]
    return (
        np.asarray(place, np.float32),
        np.asarray(mesh.face_normals[faces], np.float32),
        np.asarray(colours[:, :3], np.float32) / np.float32(255),
    )


def cleaned(name: str) -> str:
    """A catalogued name as a person would say it: lower case, no number of a variant."""
    plain = _unescaped(name).lower()
    plain = re.sub(r"(?<=\w) 0\d\b", "", plain)
    return " ".join(plain.split())


def _unescaped(text: str) -> str:
    r"""Text of Java's properties, whose other characters are written as ``\uXXXX``."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)


def _property(properties: str, key: str) -> str:
    found = re.search(rf"^{key}\s*=\s*(.*?)\s*$", properties, re.M)
    return _unescaped(found[1]) if found else "unknown licence"
