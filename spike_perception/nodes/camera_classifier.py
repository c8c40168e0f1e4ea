# SPDX-License-Identifier: Apache-2.0
"""The node ``camera_classifier``: camera images in, names out."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecyclePublisher
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from spike_perception.config import section
from spike_perception.errors import InputError
from spike_perception.nodes.class_messages import (
    classification,
    classification_type,
    object_class,
    vocabulary_message,
)
from spike_perception.nodes.class_overlay import overlay
from spike_perception.nodes.health import make_status
from spike_perception.nodes.images import image_subscription, rgb_image
from spike_perception.nodes.perception_node import (
    LATCHED,
    InputConfig,
    PerceptionNode,
    TimeConfig,
    spin,
)
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.zero_shot.classifier import Classifier, ClassifierConfig, InForce
from spike_perception_msgs.msg import ObjectClass, Vocabulary
from spike_perception_msgs.srv import SetVocabulary

# Reasons for which a word, and not the word bank, is at fault.
NOT_IN_THE_BANK = ("unknown_name", "ambiguous_name")
BAD_NAMES = ("bad_name", "duplicate_name", "too_many_names")


@dataclass(frozen=True)
class CameraClassifierConfig(ClassifierConfig):
    """Every parameter of the node: those of the classifier, and what ROS adds."""

    image: InputConfig = section(InputConfig)
    time: TimeConfig = section(TimeConfig)


class CameraClassifierNode(PerceptionNode[CameraClassifierConfig]):
    """Lifecycle node around :class:`~spike_perception.zero_shot.classifier.Classifier`."""

    def __init__(self, **options: Any) -> None:
        self._classifier: Classifier | None = None
        self._last_stamp_ns = 0
        super().__init__("camera_classifier", CameraClassifierConfig, **options)
        self._answers = self.create_lifecycle_publisher(ObjectClass, "object_class", 10)
        kind = classification_type()
        self._classifications: LifecyclePublisher[Any] | None = None
        if kind is not None:
            self._classifications = self.create_lifecycle_publisher(
                kind, "object_class/classification", 10
            )
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", 1)
        self._vocabulary = self.create_publisher(Vocabulary, "~/vocabulary", LATCHED)
        self.create_service(SetVocabulary, "~/set_vocabulary", self._set_vocabulary)

    # Lifecycle.

    def load(self) -> None:
        """Load bundle and vocabulary, and name one image to warm up."""
        self._classifier = Classifier.load(self.config)
        in_force = self._classifier.in_force
        if in_force.pack.rejection is None:
            self.get_logger().warning(
                f"{in_force.origin} has no rule for unknown: whatever is seen gets a name; "
                "calibrate it, or set unknown.method and unknown.threshold"
            )
        self._show(in_force)

    def listen(self) -> None:
        """Subscribe to images."""
        image = self.config.image
        self.subscribe(
            *image_subscription(image),
            self.receive,
            reliability=image.reliability,
            depth=image.depth,
        )

    def unload(self) -> None:
        """Let go of the network."""
        self._classifier = None

    def forget(self) -> None:
        """Begin a new stream: what was seen before the jump is not averaged with what follows."""
        self._last_stamp_ns = 0
        if self._classifier is not None:
            self._classifier.reset()

    def apply(self, config: CameraClassifierConfig) -> None:
        """Take changed settings, with the frame after the one at work."""
        if self._classifier is None:
            return
        before = self._classifier.in_force
        try:
            in_force = self._classifier.configure(config)
        except InputError as error:
            self.get_logger().error(f"the rule for unknown stays as it is: {error}")
            # Make the parameters say what is in force; else the next change of any fails too.
            unknown = self._classifier.config.unknown
            self.set_parameters(
                [
                    Parameter("unknown.method", value=unknown.method),
                    Parameter("unknown.threshold", value=unknown.threshold),
                ]
            )
            return
        if in_force.generation != before.generation:
            self._show(in_force)

    # Frames.

    def process(self, message: Image | CompressedImage, arrived_s: float) -> None:
        """Name one image and publish what came out."""
        classifier = self._classifier
        if classifier is None:
            return
        stamp = stamp_ns(message.header.stamp)
        image = rgb_image(message)
        # A stamp of zero is none: refused below, and no reason to forget.
        if stamp > 0 and self._last_stamp_ns - stamp > self.config.time.jump_back_s * 1e9:
            self.forget()
        answer = classifier.observe(image, stamp)
        self._last_stamp_ns = stamp
        told = object_class(message.header, answer)
        told.latency_ms = (time.monotonic() - arrived_s) * 1e3
        self._answers.publish(told)
        if self._classifications is not None:
            self._classifications.publish(classification(message.header, answer))
        if self._overlay.get_subscription_count():
            self._overlay.publish(overlay(message.header, image, answer.decision))

    # Services.

    def _set_vocabulary(
        self, request: SetVocabulary.Request, response: SetVocabulary.Response
    ) -> SetVocabulary.Response:
        classifier = self._classifier
        if classifier is None:
            response.result = SetVocabulary.Response.RESULT_NOT_CONFIGURED
            response.message = "the node is not configured"
            return response
        if bool(request.names) == bool(request.pack):
            response.result = SetVocabulary.Response.RESULT_BAD_REQUEST
            response.message = (
                f"{len(request.names)} names and pack {request.pack!r}; allowed is one of the two: "
                "names that are in the word bank, or a vocabulary pack"
            )
            response.vocabulary_id = classifier.in_force.pack.vocabulary_id
            return response
        try:
            in_force = (
                classifier.set_names(list(request.names))
                if request.names
                else classifier.set_pack(request.pack)
            )
        except InputError as error:
            in_force = classifier.in_force
            response.result = _result(error.reason, bool(request.names))
            response.message = f"{error}; the vocabulary stays as it was"
        except Exception as error:  # noqa: BLE001 - a node never dies of a request
            self.get_logger().error(traceback.format_exc())
            in_force = classifier.in_force
            response.result = _result("internal_error", bool(request.names))
            response.message = f"{error!r}; the vocabulary stays as it was"
        else:
            self._show(in_force)
            response.message = f"{len(in_force.pack.names)} words of {in_force.origin}"
        response.vocabulary_id = in_force.pack.vocabulary_id
        return response

    # What it shows.

    def _show(self, in_force: InForce) -> None:
        """Publish the vocabulary in force."""
        self._vocabulary.publish(vocabulary_message(self._now_header(), in_force))

    def statuses(self) -> list[DiagnosticStatus]:
        """What runs, and by which words it names."""
        classifier, name = self._classifier, self.get_name()
        if classifier is None:
            return [
                make_status(f"{name}: {part}", DiagnosticStatus.OK, "not configured", {})
                for part in ("model", "vocabulary")
            ]
        runtime, in_force = classifier.runtime, classifier.in_force
        model = {
            "bundle": self.config.model.bundle,
            "weights": runtime.encoder_id,
            "student": runtime.bundle.student,
            "engine": runtime.engine,
            "precision": runtime.precision,
        }
        rule = in_force.pack.rejection
        vocabulary = {
            "vocabulary": in_force.pack.vocabulary_id,
            "origin": in_force.origin,
            "words": str(len(in_force.pack.names)),
            "changes": str(in_force.generation),
            "unknown by": f"{rule.method} below {rule.threshold:.4g}" if rule else "no rule",
        }
        vocabulary |= {
            "answers known" if reason == "known" else f"answers unknown {reason}": str(count)
            for reason, count in sorted(classifier.counts().items())
        }
        return [
            make_status(
                f"{name}: model",
                DiagnosticStatus.OK,
                f"{runtime.bundle.student}, {runtime.engine} {runtime.precision}",
                model,
            ),
            make_status(
                f"{name}: vocabulary",
                DiagnosticStatus.OK,
                f"{len(in_force.pack.names)} words" + ("" if rule else ", no rule for unknown"),
                vocabulary,
            ),
        ]


def _result(reason: str, by_name: bool) -> int:
    """``RESULT_*`` of a refusal."""
    answers = SetVocabulary.Response
    if not by_name:
        return int(answers.RESULT_PACK_REFUSED)
    if reason in NOT_IN_THE_BANK:
        return int(answers.RESULT_UNKNOWN_NAME)
    if reason in BAD_NAMES:
        return int(answers.RESULT_BAD_REQUEST)
    return int(answers.RESULT_BANK_REFUSED)


def main() -> None:
    """Entry point of ``ros2 run spike_perception camera_classifier``."""
    sys.exit(spin(CameraClassifierNode))


if __name__ == "__main__":
    main()
