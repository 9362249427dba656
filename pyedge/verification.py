"""Verification metrics on embeddings: the LFW protocol, TAR at FAR, and what INT8 changed.

Scores are cosines. A pair is accepted where its score is *above* the threshold, so that ties at
the threshold are rejected and a stated false accept rate is never exceeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pyedge.errors import InvalidArgumentError

FARS = (1e-3, 1e-4, 1e-5, 1e-6)

# The curve counts impostors in bins of this width; operating points are exact.
_BINS = 1 << 16
# Scores looked at together.
_BLOCK = 1 << 21
# Bootstrap replicates reach below the threshold of all impostors: this many times as many are kept.
_KEPT = 4


@dataclass(frozen=True)
class LfwAccuracy:
    """Accuracy by the LFW protocol (Huang et al., UMass tech. report 07-49, 2007).

    Attributes:
        mean, std: over the folds (population standard deviation), 0…1.
        folds: with one, the threshold was chosen on the pairs it is judged on: optimistic.
        thresholds: for each fold, chosen on the others.
        correct: bool [P], for each pair in the order given.
    """

    mean: float
    std: float
    folds: int
    thresholds: list[float]
    correct: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class OperatingPoint:
    """Exact true accept rate where at most `far` of the impostor pairs are accepted.

    `threshold` and `tar` are None where there are too few impostors to measure this rate
    (fewer than 1 / far).
    """

    far: float
    threshold: float | None
    tar: float | None


@dataclass(frozen=True)
class AllPairs:
    """Scores of all pairs of a folder, as far as the metrics need them.

    Attributes:
        identities: int [N], of each image.
        genuine, genuine_identity: score and identity of each genuine pair.
        impostors: the highest impostor scores, in descending order.
        impostor_identities: [K, 2], of the two images of each of them.
        impostor_count: of all impostor pairs.
        curve: [M, 2], false and true accept rate, for a picture.
    """

    identities: np.ndarray
    genuine: np.ndarray
    genuine_identity: np.ndarray
    impostors: np.ndarray
    impostor_identities: np.ndarray
    impostor_count: int
    curve: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A difference with its bootstrap interval (percentiles 2.5 and 97.5)."""

    difference: float
    low: float
    high: float


def normalized(embeddings: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Rows of float32 [N, D] at length 1.

    Raises:
        InvalidArgumentError: another shape, or a row that is not finite or of length 0; the
            message has its name.
    """
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or not embeddings.shape[1]:
        raise InvalidArgumentError(f"embeddings have shape {embeddings.shape}; expected [N, D]")
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        name = names[bad[0]] if names is not None else f"row {bad[0]}"
        raise InvalidArgumentError(
            f"{len(bad)} of {len(embeddings)} embeddings are zero or not finite, first: {name}"
        )
    unit: np.ndarray = (embeddings / lengths[:, None]).astype(np.float32)
    return unit


def lfw_accuracy(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> LfwAccuracy:
    """Accuracy over pairs, each fold judged at the threshold that is best on the others.

    Args:
        scores: [P] cosines. same: bool [P]. folds: [P], any labels.

    Raises:
        InvalidArgumentError: no pairs, other lengths, scores that are not finite, or only
            genuine or only impostor pairs to choose a threshold on.
    """
    scores, same, folds = np.asarray(scores, np.float64), np.asarray(same, bool), np.asarray(folds)
    if not len(scores) or not scores.shape == same.shape == folds.shape:
        raise InvalidArgumentError(
            f"{len(scores)} scores, {len(same)} labels, {len(folds)} folds; expected as many, ≥ 1"
        )
    if not np.isfinite(scores).all():
        raise InvalidArgumentError("scores are not all finite")
    labels = np.unique(folds)
    correct, thresholds, accuracies = np.zeros(len(scores), bool), [], []
    for label in labels:
        judged = folds == label
        chosen_on = ~judged if len(labels) > 1 else judged
        threshold = best_threshold(scores[chosen_on], same[chosen_on])
        correct[judged] = (scores[judged] > threshold) == same[judged]
        thresholds.append(threshold)
        accuracies.append(correct[judged].mean())
    mean, std = float(np.mean(accuracies)), float(np.std(accuracies))
    return LfwAccuracy(mean, std, len(labels), thresholds, correct)


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold of highest accuracy: halfway between two scores; of equals the middle one."""
    if same.all() or not same.any():
        raise InvalidArgumentError("a threshold needs genuine and impostor pairs to choose it on")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # Right with the threshold after the first k: impostors among them, genuine beyond.
    right = np.concatenate([[0], np.cumsum(np.where(same[order], -1, 1))]) + same.sum()
    edges = np.concatenate([[ordered[0] - 1], ordered, [ordered[-1] + 1]])
    separates = edges[1:] > edges[:-1]
    best = np.flatnonzero(separates & (right == right[separates].max()))
    k = best[len(best) // 2]
    return float((edges[k] + edges[k + 1]) / 2)


def all_pairs(
    embeddings: np.ndarray, identities: np.ndarray, fars: Sequence[float] = FARS
) -> AllPairs:
    """Compares every two images, blockwise, keeping the impostors that the rates need.

    Args:
        embeddings: float32 [N, D] at length 1 (`normalized`).
        identities: [N], any labels.
        fars: false accept rates that will be asked for.

    Raises:
        InvalidArgumentError: no impostor or no genuine pairs, embeddings that are not finite,
            or a rate out of 0…1.
    """
    labels = np.unique(np.asarray(identities), return_inverse=True)[1]
    if len(labels) != len(embeddings):
        raise InvalidArgumentError(f"{len(labels)} identities for {len(embeddings)} embeddings")
    if not np.isfinite(embeddings).all():
        raise InvalidArgumentError("embeddings are not all finite")
    if not fars or not all(0 < far < 1 for far in fars):
        raise InvalidArgumentError(f"false accept rates {list(fars)}; expected between 0 and 1")
    sizes = np.bincount(labels)
    genuine_count = int((sizes * (sizes - 1) // 2).sum())
    impostor_count = len(labels) * (len(labels) - 1) // 2 - genuine_count
    if not impostor_count or not genuine_count:
        raise InvalidArgumentError(
            f"{len(labels)} images of {len(sizes)} people give {genuine_count} genuine and "
            f"{impostor_count} impostor pairs; expected some of each: at least two people, and "
            "two images of one"
        )
    keep = min(impostor_count, _KEPT * (int(max(fars) * impostor_count) + 1))
    genuine, genuine_identity = [], []
    kept = np.zeros(0, np.float32), np.zeros((0, 2), labels.dtype)
    histogram = np.zeros(_BINS, np.int64)
    for scores, first, second in _blocks(embeddings, labels):
        is_genuine = first == second
        genuine.append(scores[is_genuine])
        genuine_identity.append(first[is_genuine])
        scores, first, second = (values[~is_genuine] for values in (scores, first, second))
        histogram += np.bincount(_bin(scores), minlength=_BINS)
        kept = _highest(
            np.concatenate([kept[0], scores]),
            np.concatenate([kept[1], np.column_stack([first, second])]),
            keep,
        )
    order = np.argsort(-kept[0], kind="stable")
    genuine_scores = np.concatenate(genuine)
    return AllPairs(
        labels,
        genuine_scores,
        np.concatenate(genuine_identity),
        kept[0][order],
        kept[1][order],
        impostor_count,
        _curve(genuine_scores, histogram),
    )


def operating_point(pairs: AllPairs, far: float) -> OperatingPoint:
    """The exact true accept rate at a false accept rate that `all_pairs` was asked for."""
    allowed = _allowed(far, pairs.impostor_count)
    if allowed < 1:
        return OperatingPoint(far, None, None)
    if allowed >= len(pairs.impostors):
        raise InvalidArgumentError(f"false accept rate {far} was not among those of all_pairs")
    threshold = pairs.impostors[allowed]
    return OperatingPoint(far, float(threshold), float((pairs.genuine > threshold).mean()))


def tar_difference(
    first: AllPairs, second: AllPairs, far: float, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """TAR of `second` minus TAR of `first`, each at its own threshold, with its interval.

    Paired bootstrap over people: a replicate draws as many people as there are, with
    replacement, the same for both, finds each one's threshold again, and takes the difference.
    People are drawn, not pairs, because the pairs of a person are not independent. None where
    there are too few impostors.
    """
    points = operating_point(first, far), operating_point(second, far)
    if points[0].tar is None or points[1].tar is None:
        return None
    people = int(first.identities.max()) + 1
    random = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        weights = np.bincount(random.integers(people, size=people), minlength=people)
        tars = [_weighted_tar(pairs, weights, far) for pairs in (first, second)]
        if tars[0] is not None and tars[1] is not None:
            differences.append(tars[1] - tars[0])
    return _interval(points[1].tar - points[0].tar, np.array(differences))


def accuracy_difference(
    first: LfwAccuracy, second: LfwAccuracy, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Share of the pairs that `second` gets right minus that of `first`, with its interval.

    Paired bootstrap over the pairs; each fold keeps the threshold found for it.
    """
    change = second.correct.astype(np.int64) - first.correct
    random = np.random.default_rng(seed)
    count = len(change)
    drawn = [change[random.integers(count, size=count)].mean() for _ in range(resamples)]
    return _interval(float(change.mean()), np.array(drawn))


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row by row, of float32 [N, D] at length 1: float64 [N]."""
    products: np.ndarray = np.einsum(
        "nd,nd->n", first.astype(np.float64), second.astype(np.float64)
    )
    return products


def auc(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of all pairs: how often a genuine pair scores above an impostor one.

    Equal scores count half (Mann and Whitney's U over the number of pairs of pairs).

    Args:
        embeddings: float32 [N, D] at length 1.
        labels: int [N], who each is.

    Raises:
        InvalidArgumentError: there are no two images of a person, or no two people.
    """
    scores = np.concatenate([embeddings[i] @ embeddings[i + 1 :].T for i in range(len(labels) - 1)])
    same = np.concatenate([labels[i] == labels[i + 1 :] for i in range(len(labels) - 1)])
    genuine, impostors = np.sort(scores[same]), np.sort(scores[~same])
    if not len(genuine) or not len(impostors):
        raise InvalidArgumentError("an AUC needs two images of a person, and two people")
    below = np.searchsorted(impostors, genuine, "left")
    not_above = np.searchsorted(impostors, genuine, "right")
    return float((below + not_above).mean() / (2 * len(impostors)))


def _blocks(
    embeddings: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores and the two labels of every pair above the diagonal, some rows at a time."""
    step = max(1, _BLOCK // len(embeddings))
    for start in range(0, len(embeddings), step):
        rows = embeddings[start : start + step]
        scores = rows @ embeddings[start:].T
        i, j = np.triu_indices(len(rows), 1, scores.shape[1])
        yield scores[i, j], labels[start + i], labels[start + j]


def _bin(scores: np.ndarray) -> np.ndarray:
    return ((scores + 1) * (_BINS / 2)).astype(np.int64).clip(0, _BINS - 1)


def _highest(scores: np.ndarray, people: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    if len(scores) <= count:
        return scores, people
    index = np.argpartition(scores, len(scores) - count)[-count:]
    return scores[index], people[index]


def _allowed(far: float, count: float) -> int:
    """How many impostors may be accepted; 1e-3 of 1,000 is one, whatever float says."""
    return int(far * count * (1 + 1e-12))


def _curve(genuine: np.ndarray, histogram: np.ndarray) -> np.ndarray:
    """False and true accept rate at the lower edge of every bin, where either changes."""
    false = np.cumsum(histogram[::-1]) / histogram.sum()
    true = np.cumsum(np.bincount(_bin(genuine), minlength=_BINS)[::-1]) / len(genuine)
    curve = np.column_stack([false, true])
    changed = np.append(True, (np.diff(curve, axis=0) != 0).any(axis=1))
    thinned: np.ndarray = curve[changed]
    return thinned


def _weighted_tar(pairs: AllPairs, weights: np.ndarray, far: float) -> float | None:
    """TAR at FAR where person i counts `weights[i]` times; two copies of one are no impostors."""
    sizes = weights * np.bincount(pairs.identities)
    impostor_weight = (sizes.sum() ** 2 - (sizes**2).sum()) / 2
    genuine_weight = weights[pairs.genuine_identity]
    if _allowed(far, impostor_weight) < 1 or not genuine_weight.any():
        return None
    first, second = pairs.impostor_identities.T
    accepted = np.cumsum(weights[first] * weights[second])
    index = int(np.searchsorted(accepted, _allowed(far, impostor_weight), side="right"))
    threshold = pairs.impostors[min(index, len(pairs.impostors) - 1)]
    return float(genuine_weight[pairs.genuine > threshold].sum() / genuine_weight.sum())


def _interval(difference: float, replicates: np.ndarray) -> Interval:
    if not len(replicates):
        return Interval(difference, float("nan"), float("nan"))
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Interval(float(difference), float(low), float(high))
