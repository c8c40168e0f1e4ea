# SPDX-License-Identifier: Apache-2.0
"""Write a folder or zip file of images as a ROS 2 bag."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spike_perception.bags.images import ImageSequence
from spike_perception.bags.writer import STORAGES, BagWriter
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError

DEFAULT_RATE_HZ = 10.0
DEFAULT_TOPIC = "/camera/image_raw"
DEFAULT_FRAME_ID = "camera"
START_NS = 1_000_000_000  # not zero, which means "no time" to ROS

_PASSED_THROUGH = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


def write_bag(
    images: ImageSequence,
    output: str | Path,
    *,
    rate_hz: float = DEFAULT_RATE_HZ,
    topic: str = DEFAULT_TOPIC,
    frame_id: str = DEFAULT_FRAME_ID,
    storage: str = "mcap",
    compressed: bool = False,
) -> dict[str, Any]:
    """Write ``images`` as a bag whose k-th stamp is 1 s + k / ``rate_hz``.

    Args:
        images: the sequence to write.
        output: folder of the new bag; must not exist.
        rate_hz: images a second of bag time.
        topic: image topic; with ``compressed``, ``/compressed`` is appended to it.
        frame_id: optical frame written into every header.
        storage: ``"mcap"`` or ``"sqlite3"``.
        compressed: write ``sensor_msgs/CompressedImage`` holding the files as they are; each is
            still decoded once, so that the bag holds no broken image. JPEG and PNG only.

    Returns:
        ``{"bag", "images", "topic", "type", "duration_s", "storage"}``.

    Raises:
        InputError: for an image that cannot be read, a wrong rate or topic, or an output that
            exists or cannot be written; nothing is left behind.
    """
    if not 1e-3 <= rate_hz <= 1e6:
        raise InputError("invalid_rate", f"rate is {rate_hz} Hz; allowed is 0.001 to 1000000")
    if not topic.startswith("/") or topic.endswith("/"):
        raise InputError("invalid_topic", f"topic is {topic!r}; allowed is a name such as /camera")
    if compressed:
        topic = f"{topic}/compressed"
    with BagWriter(output, storage) as bag:
        for index in tqdm(range(len(images)), unit="image", disable=None):
            stamp_ns = START_NS + round(index * 1e9 / rate_hz)
            pixels = images.image(index)
            if not compressed:
                bag.image(topic, stamp_ns, frame_id, pixels)
                continue
            encoding = _PASSED_THROUGH.get(Path(images.names[index]).suffix.lower())
            if encoding is None:
                raise InputError(
                    "unknown_encoding",
                    f"{images.path}/{images.names[index]} is neither JPEG nor PNG, which is what "
                    "CompressedImage carries; write raw images instead",
                )
            bag.compressed_image(topic, stamp_ns, frame_id, images.data(index), encoding)
    return {
        "bag": str(output),
        "images": len(images),
        "topic": topic,
        "type": f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}",
        "duration_s": (len(images) - 1) / rate_hz,
        "storage": storage,
    }


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "images", metavar="DIR|ZIP", help="folder of images, FILE.zip or FILE.zip/FOLDER"
    )
    parser.add_argument("-o", "--output", required=True, metavar="BAG", help="folder of the bag")
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE_HZ, help="images a second (Hz)")
    parser.add_argument("--topic", default=DEFAULT_TOPIC, help="image topic")
    parser.add_argument("--frame-id", default=DEFAULT_FRAME_ID, help="optical frame of the camera")
    parser.add_argument("--storage", choices=STORAGES, default=STORAGES[0], help="bag format")
    parser.add_argument(
        "--compressed", action="store_true", help="write CompressedImage: the files as they are"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with ImageSequence(args.images) as images:
        result = write_bag(
            images,
            args.output,
            rate_hz=args.rate,
            topic=args.topic,
            frame_id=args.frame_id,
            storage=args.storage,
            compressed=args.compressed,
        )
    text = (
        f"{result['images']} images, {result['duration_s']:.1f} s, on {result['topic']} "
        f"({result['type']}) -> {result['bag']} ({result['storage']})"
    )
    emit(args, result, text)
    return 0
