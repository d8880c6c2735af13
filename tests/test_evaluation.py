"""One evaluation on faces: fidelity by the mean of the error, drift by the mean of the dB lost."""

import numpy as np

import tiny_artifact
from runtime.evaluation import Evaluator
from runtime.image import PSNR_CAP_DB, to_tensor, upscale_bicubic

LR = tiny_artifact.faces(9)
HR = np.stack([upscale_bicubic(face) for face in LR])


def truth(lr):
    """A network that knows the truth; calls are told apart by their faces."""
    known = {
        to_tensor(face[None]).tobytes(): to_tensor(hr[None])[0]
        for face, hr in zip(LR, HR, strict=True)
    }
    return np.stack([known[face.tobytes()] for face in lr])


def off_by(levels, faces=range(9)):
    """The truth, with some faces brighter by so many levels of 255."""
    spoiled = {to_tensor(LR[i : i + 1]).tobytes() for i in faces}

    def run(lr):
        shift = [levels / 255 if face.tobytes() in spoiled else 0 for face in lr]
        return truth(lr) + np.float32(shift)[:, None, None, None]

    return run


def test_the_same_network_loses_nothing():
    same = Evaluator(off_by(2), LR, HR).evaluate(off_by(2))
    assert (same.faces, same.fidelity_db, same.worst_fidelity_db) == (9, PSNR_CAP_DB, PSNR_CAP_DB)
    assert (same.drift_db, same.worst_drift_db) == (0, 0)


def test_a_spoiled_face_is_the_worst_and_weighs_in_the_mean():
    spoiled = Evaluator(off_by(1), LR, HR).evaluate(off_by(3, [4]))
    assert spoiled.worst_fidelity_db < spoiled.fidelity_db < PSNR_CAP_DB
    assert spoiled.drift_db < 0 < spoiled.worst_drift_db  # the other eight are the truth itself


def test_without_the_truth_only_the_fidelity_is_known():
    seen = Evaluator(off_by(1), LR).evaluate(off_by(2))
    assert seen.fidelity_db < PSNR_CAP_DB
    assert (seen.psnr_y, seen.drift_db, seen.worst_drift_db) == (None, None, None)


def test_what_is_not_finite_is_black():
    seen = Evaluator(truth, LR, HR).evaluate(lambda lr: np.full((len(lr), 3, 128, 128), np.nan))
    black = Evaluator(truth, LR, HR).evaluate(lambda lr: np.zeros((len(lr), 3, 128, 128)))
    assert seen == black
