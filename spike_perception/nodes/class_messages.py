# SPDX-License-Identifier: Apache-2.0
"""Named objects and vocabularies as messages."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Header

from spike_perception.zero_shot.namer import Answer, InForce
from spike_perception_msgs.msg import ObjectClass, ObjectHypothesis, Vocabulary


def object_class(header: Header, answer: Answer, source: str) -> ObjectClass:
    """``ObjectClass`` of a whole frame of a sensor, without its latency."""
    decision = answer.decision
    return ObjectClass(
        header=header,
        source=source,
        unknown=decision.unknown,
        known_score=decision.known_score,
        known_threshold=decision.known_threshold,
        hypotheses=[
            ObjectHypothesis(name=each.name, score=each.score) for each in decision.hypotheses
        ],
        object_count=1,
        vocabulary_id=answer.pack.vocabulary_id,
        weights_id=answer.pack.encoder_id,
    )


def vocabulary_message(header: Header, in_force: InForce) -> Vocabulary:
    """``Vocabulary`` of what is in force."""
    pack, rule = in_force.pack, in_force.pack.rejection
    return Vocabulary(
        header=header,
        vocabulary_id=pack.vocabulary_id,
        weights_id=pack.encoder_id,
        origin=in_force.origin,
        names=list(pack.names),
        parents=list(pack.parents),
        unknown_method=rule.method if rule else "",
        known_threshold=rule.threshold if rule else 0.0,
        generation=in_force.generation,
    )


def classification_type() -> type | None:
    """``vision_msgs/Classification``, or None where vision_msgs is not installed."""
    try:
        from vision_msgs.msg import Classification
    except ImportError:
        return None
    return Classification  # type: ignore[no-any-return]


def classification(header: Header, answer: Answer) -> Any:
    """``vision_msgs/Classification``: names as class ids, and none of them for what is unknown.

    The message has no field for "unknown", and says of itself that it need not list every class.
    """
    from vision_msgs.msg import Classification, ObjectHypothesis

    decision = answer.decision
    hypotheses = () if decision.unknown else decision.hypotheses
    return Classification(
        header=header,
        results=[ObjectHypothesis(class_id=each.name, score=each.score) for each in hypotheses],
    )
