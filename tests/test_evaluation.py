"""Verification metrics against brute force, and what evaluation makes of bad input."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pyedge.errors import InvalidArgumentError, InvalidImageError
from pyedge.evaluation import (
    EvaluationReport,
    Pair,
    evaluate,
    far_name,
    identity_of,
    read_pairs,
)
from pyedge.evaluation_report import evaluation_html, roc_svg
from pyedge.images import save_image
from pyedge.metadata import ARCFACE_LANDMARKS, Metadata
from pyedge.verification import (
    accuracy_difference,
    all_pairs,
    auc,
    best_threshold,
    cosines,
    lfw_accuracy,
    normalized,
    operating_point,
    tar_difference,
)

RANDOM = np.random.default_rng(7)


def population(
    people: int = 40, images: int = 6, noise: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around a centre for each person, and their identities."""
    centres = RANDOM.normal(size=(people, 16))
    identities = np.repeat(np.arange(people), images)
    spread = RANDOM.normal(scale=noise, size=(len(identities), 16))
    return normalized(centres[identities] + spread), identities


def brute_force(embeddings: np.ndarray, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor scores, pair by pair."""
    scores = embeddings @ embeddings.T
    genuine, impostors = [], []
    for i, j in combinations(range(len(identities)), 2):
        (genuine if identities[i] == identities[j] else impostors).append(scores[i, j])
    return np.array(genuine), np.array(impostors)


@pytest.mark.parametrize("block", [1, 1000, 1 << 21])
def test_tar_at_far_against_brute_force(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("pyedge.verification._BLOCK", block)
    embeddings, identities = population()
    genuine, impostors = brute_force(embeddings, identities)
    fars = (0.1, 1e-2, 1e-3, 1e-4)
    pairs = all_pairs(embeddings, identities, fars)
    assert pairs.impostor_count == len(impostors) == 240 * 239 // 2 - len(genuine)
    assert len(pairs.genuine) == len(genuine) == 40 * 15
    for far in fars:
        point = operating_point(pairs, far)
        assert point.threshold is not None
        assert point.threshold == pytest.approx(
            np.sort(impostors)[::-1][int(far * len(impostors))], abs=1e-6
        )
        assert point.tar == pytest.approx((genuine > point.threshold).mean(), abs=1e-3)
        assert (pairs.impostors > point.threshold).sum() <= far * len(impostors)
    assert operating_point(pairs, 1e-5).tar is None
    assert (np.diff(pairs.curve, axis=0) >= 0).all()
    np.testing.assert_allclose(pairs.curve[-1], 1)


def test_ties_never_exceed_the_false_accept_rate() -> None:
    """Ten people with one and the same face, twice each."""
    embeddings = normalized(np.ones((20, 4)))
    pairs = all_pairs(embeddings, np.repeat(np.arange(10), 2), (0.01, 0.5))
    assert operating_point(pairs, 0.5).tar == 0.0


def test_known_answer() -> None:
    """Three people on the axes: genuine pairs score 1, impostors 0."""
    pairs = all_pairs(np.float32(np.eye(3))[[0, 0, 1, 1, 2]], np.array([0, 0, 1, 1, 2]), (0.2,))
    assert pairs.impostor_count == 8
    point = operating_point(pairs, 0.2)
    assert (point.threshold, point.tar) == (0.0, 1.0)
    embeddings, identities = population()
    with pytest.raises(InvalidArgumentError, match="was not among"):
        operating_point(all_pairs(embeddings, identities, (1e-3,)), 0.5)


def test_lfw_accuracy_against_brute_force() -> None:
    scores = RANDOM.normal(size=300).round(1)
    same = RANDOM.uniform(size=300) < 0.5
    scores[same] += 1.5
    folds = np.arange(300) % 5
    found = lfw_accuracy(scores, same, folds)
    candidates = np.concatenate([[-9], np.unique(scores)])
    for fold in range(5):
        others = folds != fold
        threshold = found.thresholds[fold]
        best = max(((scores[others] > t) == same[others]).mean() for t in candidates)
        assert ((scores[others] > threshold) == same[others]).mean() == best
    judged = [found.correct[folds == fold].mean() for fold in range(5)]
    assert found.mean == pytest.approx(np.mean(judged))
    assert found.std == pytest.approx(np.std(judged))


def test_threshold_lies_between_scores() -> None:
    same = np.array([False, False, True, True])
    assert best_threshold(np.array([0.1, 0.2, 0.6, 0.8]), same) == pytest.approx(0.4)
    perfect = lfw_accuracy(np.array([0.1, 0.2, 0.6, 0.8]), same, np.zeros(4))
    assert (perfect.mean, perfect.std, perfect.folds) == (1.0, 0.0, 1)
    assert best_threshold(np.array([0.5, 0.5]), same[1:3]) in (-0.5, 1.0)
    with pytest.raises(InvalidArgumentError, match="genuine and impostor"):
        best_threshold(np.array([0.5, 0.6]), same[2:])


def test_bootstrap_is_paired_seeded_and_holds_the_truth() -> None:
    embeddings, identities = population(80, 5)
    noisy = normalized(embeddings + RANDOM.normal(scale=0.2, size=embeddings.shape))
    first, second = (all_pairs(e, identities, (1e-2,)) for e in (embeddings, noisy))
    same = tar_difference(first, first, 1e-2, resamples=50)
    assert same is not None
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    interval = tar_difference(first, second, 1e-2, resamples=200, seed=3)
    assert interval is not None
    assert interval == tar_difference(first, second, 1e-2, resamples=200, seed=3)
    assert interval.low <= interval.difference <= interval.high < 0
    tars = [operating_point(pairs, 1e-2).tar or 0 for pairs in (first, second)]
    assert interval.difference == pytest.approx(tars[1] - tars[0])
    assert tar_difference(first, second, 1e-6) is None


def test_bootstrap_replicate_against_a_copied_population() -> None:
    """A weight of 2 on every person is the population twice, without pairs between copies."""
    from pyedge.verification import _weighted_tar

    embeddings, identities = population(30, 4)
    pairs = all_pairs(embeddings, identities, (1e-2,))
    ones = np.ones(30, np.int64)
    assert _weighted_tar(pairs, ones, 1e-2) == operating_point(pairs, 1e-2).tar
    weights = RANDOM.integers(0, 3, 30)
    genuine, impostors = [], []
    scores = embeddings @ embeddings.T
    for i, j in combinations(range(len(identities)), 2):
        weight = weights[identities[i]] * weights[identities[j]]
        if identities[i] == identities[j]:
            genuine += [scores[i, j]] * weights[identities[i]]
        else:
            impostors += [scores[i, j]] * weight
    threshold = np.sort(impostors)[::-1][int(1e-2 * len(impostors))]
    expected = (np.array(genuine) > threshold).mean()
    assert _weighted_tar(pairs, weights, 1e-2) == pytest.approx(expected, abs=2 / len(genuine))


def test_accuracy_difference() -> None:
    scores = np.concatenate([RANDOM.normal(0, 1, 400), RANDOM.normal(2, 1, 400)])
    same, folds = np.arange(800) >= 400, np.arange(800) % 4
    first = lfw_accuracy(scores, same, folds)
    second = lfw_accuracy(scores + RANDOM.normal(0, 2, 800), same, folds)
    interval = accuracy_difference(first, second, resamples=200)
    assert interval.low < interval.difference < interval.high < 0
    assert interval.difference == pytest.approx(second.mean - first.mean)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_bad_embeddings_are_named(bad: float) -> None:
    embeddings = np.ones((3, 4), np.float32)
    embeddings[1] = bad
    with pytest.raises(InvalidArgumentError, match=r"1 of 3 .*first: b\.jpg"):
        normalized(embeddings, ["a.jpg", "b.jpg", "c.jpg"])


@pytest.mark.parametrize("identities", [[0, 0, 0], [0, 1, 2], [0]])
def test_one_person_or_no_genuine_pair(identities: list[int]) -> None:
    embeddings = normalized(np.ones((len(identities), 4)))
    with pytest.raises(InvalidArgumentError, match="expected some of each"):
        all_pairs(embeddings, np.array(identities))


def test_wrong_arguments() -> None:
    embeddings, identities = population(4, 2)
    for fars in ((), (0.0,), (1.0,), (float("nan"),)):
        with pytest.raises(InvalidArgumentError, match="false accept rates"):
            all_pairs(embeddings, identities, fars)
    with pytest.raises(InvalidArgumentError, match="7 identities for 8"):
        all_pairs(embeddings, identities[1:])
    with pytest.raises(InvalidArgumentError, match="not all finite"):
        all_pairs(embeddings * np.nan, identities)
    with pytest.raises(InvalidArgumentError, match="not all finite"):
        lfw_accuracy(np.array([np.nan, 1]), np.array([True, False]), np.zeros(2))
    with pytest.raises(InvalidArgumentError, match="0 scores"):
        lfw_accuracy(np.zeros(0), np.zeros(0), np.zeros(0))


def test_names() -> None:
    assert identity_of("Aaron_Sorkin_0002.jpg") == "Aaron_Sorkin"
    assert identity_of("Abid_Hamid_Mahmud_Al-Tikriti_0001.jpg") == "Abid_Hamid_Mahmud_Al-Tikriti"
    assert identity_of("alice.png") == "alice"
    assert identity_of("007.png") == "007"
    assert [far_name(far) for far in (1e-3, 1e-6, 2.5e-4, 0.1)] == [
        "1e-3", "1e-6", "2.5e-4", "1e-1",
    ]  # fmt: skip


def test_read_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("fold,first,second,same\n1,a.jpg,b.jpg,1\n2, c.jpg ,d.jpg,0\n")
    expected = [Pair("1", "a.jpg", "b.jpg", True), Pair("2", "c.jpg", "d.jpg", False)]
    assert read_pairs(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs\.csv, line 1: columns"),
        ("a,b,c\n", "line 1: columns are 'a,b,c'"),
        ("fold,first,second,same\n", "no pairs"),
        ("fold,first,second,same\n1,a,b,1\n1,a,b\n", "line 3: expected four values"),
        ("fold,first,second,same\n1,a,b,1,2\n", "line 2: expected four values"),
        ("fold,first,second,same\n1,a,,1\n", "line 2: expected four values"),
        ("fold,first,second,same\n1,a,b,yes\n", "line 2: same is 'yes'"),
        ("fold,first,second,same\n1,a,b,\xff\n", "UTF-8"),
    ],
)
def test_bad_pairs_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidArgumentError, match=message):
        read_pairs(path)
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        read_pairs(tmp_path / "missing.csv")


class PixelEmbedder:
    """A network whose embedding is the first row of pixels, noisier the larger `noise`."""

    def __init__(self, noise: float = 0.0, feature_space: str = "pixels", width: int = 112) -> None:
        self.metadata = Metadata(
            "rgb", (112, 112), landmarks=ARCFACE_LANDMARKS, feature_space=feature_space
        )
        self.noise, self.width = noise, width
        self.random = np.random.default_rng(0)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        features = crops[:, 0, : self.width, 0].astype(np.float32) - 128
        return features + np.float32(self.random.normal(0, 1, features.shape)) * self.noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    crops = tmp_path / "crops"
    crops.mkdir()
    for person in range(12):
        face = RANDOM.integers(0, 256, (112, 112, 3))
        for number in range(3):
            noise = RANDOM.normal(0, 120, face.shape)
            image = (face + noise).clip(0, 255).astype(np.uint8)
            save_image(crops / f"Person_{chr(65 + person)}_{number:04}.png", image)
    return crops


def some_pairs() -> list[Pair]:
    pairs = []
    for i in range(12):
        name, other = f"Person_{chr(65 + i)}", f"Person_{chr(65 + (i + 1) % 12)}"
        pairs.append(Pair(str(i % 3), f"{name}_0000.png", f"{name}_0001.png", True))
        pairs.append(Pair(str(i % 3), f"{name}_0000.png", f"{other}_0001.png", False))
    return pairs


def test_evaluate(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = evaluate(
        {"fp32": PixelEmbedder(), "int8 <&>": PixelEmbedder(5)},
        folder,
        some_pairs(),
        fars=(1e-1, 1e-2, 1e-6),
        resamples=50,
        batch=8,
        progress=lambda *step: steps.append(step),
    )
    assert (report.images, report.identities, report.pairs, report.folds) == (36, 12, 24, 3)
    assert (report.genuine_pairs, report.impostor_pairs) == (36, 36 * 35 // 2 - 36)
    assert steps[0] == ("embedding", 8, 36)
    assert steps[-1] == ("comparing every pair", 2, 2)
    comparison = report.comparisons["int8 <&>"]
    assert 0.98 < comparison.cosine_p1 <= comparison.cosine_mean < 1
    assert comparison.accuracy is not None
    assert comparison.tar[1e-6] is None
    assert "1e-6" in report.notes[0]
    plain = json.loads(report.to_json())
    assert set(plain["models"]["fp32"]["thresholds"]) == {"1e-1", "1e-2", "1e-6"}
    assert plain["models"]["fp32"]["tar"]["1e-6"] is None
    page = evaluation_html(report)
    assert "int8 &lt;&amp;&gt;" in page
    assert "<script" not in page
    picture = ElementTree.fromstring(roc_svg(report))
    assert len(picture.findall("{*}polyline") or picture.findall("polyline")) == 2
    assert "nan" not in page


def test_evaluate_parts(folder: Path) -> None:
    sessions = {"a": PixelEmbedder(), "b": PixelEmbedder(feature_space="other")}
    one_fold = [Pair("1", p.first, p.second, p.same) for p in some_pairs()]
    report = evaluate(sessions, folder, one_fold, every_pair=False, resamples=10)
    assert (report.images, report.impostor_pairs) == (24, 0)
    assert "a and b are different networks (feature spaces pixels, other)" in report.notes[0]
    assert "optimistic" in report.notes[1]
    assert report.comparisons["b"].cosine_mean is None, "other features are not comparable"
    assert evaluation_html(report)
    sessions["b"] = PixelEmbedder(feature_space="", width=100)
    report = evaluate(sessions, folder, one_fold, every_pair=False, resamples=10)
    assert "(embeddings of 112 and 100 values)" in report.notes[0]
    assert report.comparisons["b"].cosine_mean is None
    report = evaluate({"a": PixelEmbedder()}, folder, fars=(1e-1,))
    assert report.models["a"].accuracy is None
    assert "folds" not in evaluation_html(report)
    assert evaluation_html(EvaluationReport(0, 0))


def test_evaluate_refuses(folder: Path, tmp_path: Path) -> None:
    session = PixelEmbedder()
    with pytest.raises(InvalidArgumentError, match="no sessions"):
        evaluate({}, folder)
    with pytest.raises(InvalidArgumentError, match="neither"):
        evaluate({"a": session}, folder, every_pair=False)
    pairs = [*some_pairs(), Pair("1", "nobody.png", "Person_A_0000.png", True)]
    with pytest.raises(InvalidArgumentError, match=r"pair 25: nobody\.png"):
        evaluate({"a": session}, folder, pairs)
    with pytest.raises(InvalidArgumentError, match=r"model 'a'.*Person_A_0000"):
        evaluate({"a": PixelEmbedder(np.nan)}, folder)
    flat = PixelEmbedder(width=0)
    with pytest.raises(InvalidArgumentError, match=r"model 'b': embeddings of shape \[0, 0\]"):
        evaluate({"a": session, "b": flat}, folder)
    save_image(folder / "Person_A_0009.png", np.zeros((100, 112, 3), np.uint8))
    with pytest.raises(InvalidArgumentError, match=r"Person_A_0009.*112x100.*112x112"):
        evaluate({"a": session}, folder)
    (folder / "Person_A_0009.png").write_bytes(b"not an image")
    with pytest.raises(InvalidImageError, match="Person_A_0009"):
        evaluate({"a": session}, folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidArgumentError, match="no images"):
        evaluate({"a": session}, empty)


def test_cosines() -> None:
    a, b = normalized(RANDOM.normal(size=(2, 5, 8))[0]), normalized(RANDOM.normal(size=(5, 8)))
    np.testing.assert_allclose(cosines(a, b), np.diag(a @ b.T), atol=1e-6)
    assert cosines(a, -a) == pytest.approx(-1)


def test_auc_is_the_share_of_pairs_of_pairs() -> None:
    labels = np.array([0, 0, 1, 1, 2, 0])
    embeddings = normalized(np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32))
    embeddings[5] = embeddings[2]  # ties
    pairs = list(combinations(range(6), 2))
    scores = {pair: embeddings[pair[0]] @ embeddings[pair[1]] for pair in pairs}
    genuine = [scores[i, j] for i, j in pairs if labels[i] == labels[j]]
    impostors = [scores[i, j] for i, j in pairs if labels[i] != labels[j]]
    wins = [(g > i) + 0.5 * (g == i) for g in genuine for i in impostors]
    assert auc(embeddings, labels) == pytest.approx(np.mean(wins), abs=1e-12)
    for alone in (np.arange(6), np.zeros(6, int)):
        with pytest.raises(InvalidArgumentError, match="two people"):
            auc(embeddings, alone)
