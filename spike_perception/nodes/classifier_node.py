# SPDX-License-Identifier: Apache-2.0
"""What every node shares that names what it senses: words, answers, and what it tells of both."""

from __future__ import annotations

import time
import traceback
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Pose, Vector3
from rclpy.lifecycle import LifecyclePublisher
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from spike_perception.errors import InputError
from spike_perception.nodes.class_messages import (
    classification,
    classification_type,
    object_class,
    vocabulary_message,
)
from spike_perception.nodes.health import make_status
from spike_perception.nodes.perception_node import LATCHED, PerceptionNode
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.zero_shot.namer import Answer, InForce, Namer
from spike_perception_msgs.msg import ObjectClass, Vocabulary
from spike_perception_msgs.srv import SetVocabulary

# Reasons for which a word, and not the word bank, is at fault.
NOT_IN_THE_BANK = ("unknown_name", "ambiguous_name")
BAD_NAMES = ("bad_name", "duplicate_name", "too_many_names")
# The objects of a scan are told at once, a message each: none may push out another.
ANSWERS_DEPTH = 1000

NamerT = TypeVar("NamerT", bound=Namer[Any])
ConfigT = TypeVar("ConfigT")


class ClassifierNode(PerceptionNode[ConfigT], Generic[ConfigT, NamerT]):
    """Lifecycle node around a :class:`~spike_perception.zero_shot.namer.Namer`.

    Subclasses fill in :meth:`make`, ``listen``, ``process`` and ``input_config``. Their
    configuration has the settings of their namer and a section ``time``.
    """

    # Of ObjectClass: the sensor.
    source: str

    def __init__(self, name: str, config_type: type[ConfigT], **options: Any) -> None:
        self._classifier: NamerT | None = None
        self._last_stamp_ns = 0
        super().__init__(name, config_type, **options)
        self._answers = self.create_lifecycle_publisher(ObjectClass, "object_class", ANSWERS_DEPTH)
        kind = classification_type()
        self._classifications: LifecyclePublisher[Any] | None = None
        if kind is not None:
            self._classifications = self.create_lifecycle_publisher(
                kind, "object_class/classification", ANSWERS_DEPTH
            )
        self._vocabulary = self.create_publisher(Vocabulary, "~/vocabulary", LATCHED)
        self.create_service(SetVocabulary, "~/set_vocabulary", self._set_vocabulary)

    @abstractmethod
    def make(self) -> NamerT:
        """A warm classifier by ``self.config``; raises InputError for what cannot be used."""

    # Lifecycle.

    def load(self) -> None:
        """Load bundle and vocabulary, and show the words."""
        self._classifier = self.make()
        in_force = self._classifier.in_force
        if in_force.pack.rejection is None:
            self.get_logger().warning(
                f"{in_force.origin} has no rule for unknown: whatever is seen gets a name; "
                "calibrate it, or set unknown.method and unknown.threshold"
            )
        self._show(in_force)

    def unload(self) -> None:
        """Let go of the network."""
        self._classifier = None

    def forget(self) -> None:
        """Begin a new stream: what was seen before the jump does not count with what follows."""
        self._last_stamp_ns = 0
        if self._classifier is not None:
            self._classifier.reset()

    def apply(self, config: ConfigT) -> None:
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

    def begin(self, header: Header) -> int:
        """Stamp of a frame [ns]; forgets what was before if it lies far back (a bag started anew).

        Call it once the frame's data is found good, and :meth:`tell` once it is answered.
        """
        stamp = stamp_ns(header.stamp)
        back_s: float = self.config.time.jump_back_s  # type: ignore[attr-defined]
        # A stamp of zero is none: refused by the classifier, and no reason to forget.
        if stamp > 0 and self._last_stamp_ns - stamp > back_s * 1e9:
            self.forget()
        return stamp

    def tell(
        self,
        header: Header,
        answers: Sequence[Answer],
        arrived_s: float,
        boxes: Sequence[tuple[Pose, Vector3]] = (),
    ) -> None:
        """Publish the answers of one frame.

        Args:
            header: stamp of the frame, and frame of the boxes.
            answers: one for each object.
            arrived_s: when the frame's data arrived on the monotonic clock [s].
            boxes: centre and size around each object [m], or none at all.
        """
        self._last_stamp_ns = stamp_ns(header.stamp)
        messages = [object_class(header, each, self.source) for each in answers]
        for index, message in enumerate(messages):
            message.object_index, message.object_count = index, len(messages)
            if boxes:
                message.has_box = True
                message.box_center, message.box_size = boxes[index]
            message.latency_ms = (time.monotonic() - arrived_s) * 1e3
            self._answers.publish(message)
        if self._classifications is not None:
            for answer in answers:
                self._classifications.publish(classification(header, answer))

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
            "bundle": classifier.config.model.bundle,
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
