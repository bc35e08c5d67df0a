from __future__ import annotations

import numpy as np

from erasebench.judges.imagenet import IMAGENETTE, imagenet_classes, imagenette_columns


def test_from_a_half_on_a_class_is_top_1() -> None:
    logits = np.zeros((3, 1000), dtype=np.float32)
    logits[0, 497], logits[1, 497], logits[1, 0], logits[2, 0] = 0.5, 0.4, 0.5, 3  # 497 is church, 0 tench
    columns = imagenette_columns(logits, imagenet_classes())
    assert columns["church"][0] > 0.5 and columns["church probability"][0] < 0.01
    assert columns["church"][1] < 0.5 < columns["tench"][1]
    assert columns["church rank"].tolist()[:2] == [1, 2]


def test_classes_are_those_of_imagenet() -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    # Places in the ImageNet challenge's own list, by which Imagenette's folders are known.
    places = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    assert tuple(classes[place] for place in places) == IMAGENETTE
