"""Compare with what knows words and pairs of words, but no order beyond that: TF-IDF and logistic regression."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ..data.labels import SINGLE_LABEL
from ..errors import InputError
from .metrics import SMALLEST_PROBABILITY, measure

INVERSE_REGULARISATION = 10.0
"""The best of 1, 10 and 30 on a held-out fifth of IMDB's training reviews."""

MOST_COEFFICIENTS = 50_000_000  # fitting one takes some 200 bytes

FEW_TEXTS = 100
"""From this many training texts on, a word or pair that stands in one text only is left out."""


class BagOfWords:
    """TF-IDF of words and word pairs, with logistic regression on top; kept in memory only.

    Trained on IMDB's 25,000 training reviews it scores 0.907 on the 25,000 test reviews.

    Args:
        class_weights: one weight of each class in the loss; unset: all alike.
    """

    def __init__(self, class_weights: Sequence[float] | None = None):
        self.class_weights = class_weights

    def fit(self, texts: Sequence[str], labels: ArrayLike, num_labels: int | None = None) -> Self:
        """Train on texts and their class ids.

        Args:
            texts: n texts.
            labels: class ids, (n,).
            num_labels: C; unset: the highest class id plus one.

        Raises:
            InputError: if the labels are not one class id a text, all texts have the same, or no word stands in two
                texts.
        """
        class_ids = np.asarray(labels)
        if class_ids.ndim != 1 or class_ids.dtype.kind not in "iu":
            raise InputError("The bag-of-words baseline needs one class per text, not several labels or numbers.")
        if len(np.unique(class_ids)) < 2:
            raise InputError(f"The bag-of-words baseline needs two classes; all {len(class_ids)} texts are of one.")
        self.num_labels = num_labels or int(class_ids.max()) + 1
        self.vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(texts) < FEW_TEXTS else 2
        )
        weights = None if self.class_weights is None else dict(enumerate(self.class_weights))
        self.classifier = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight=weights)
        try:
            features = self.vectorizer.fit_transform(texts)
        except ValueError as error:  # texts in a script without spaces, each of them one long word
            raise InputError("The bag-of-words baseline found no word that occurs in two texts.") from error
        num_coefficients = features.shape[1] * len(np.unique(class_ids))
        if num_coefficients > MOST_COEFFICIENTS:
            raise InputError(
                f"The bag-of-words baseline would have {num_coefficients:,} coefficients, too many to fit in memory."
            )
        self.classifier.fit(features, class_ids)
        return self

    def predict_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Give each text the probabilities of the C classes, (n, C); a class never trained on has probability 0."""
        probabilities = np.zeros((len(texts), self.num_labels))
        probabilities[:, self.classifier.classes_] = self.classifier.predict_proba(self.vectorizer.transform(texts))
        return probabilities

    def predict_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logarithms of the probabilities (n, C), whose softmax they are; finite."""
        return np.log(np.maximum(self.predict_probabilities(texts), SMALLEST_PROBABILITY))

    @property
    def num_parameters(self) -> int:
        """The number of coefficients."""
        return self.classifier.coef_.size + self.classifier.intercept_.size


def measure_bag_of_words(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    label_names: Sequence[str],
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Train on one split and measure on another.

    Args:
        train, test: data sets with the columns `text` and `label` (class ids).
        label_names: the C class names.
        num_resamples: as in `metrics.measure`.

    Returns:
        What `metrics.measure` gives.

    Raises:
        InputError: if the labels are not one class id a text, or all training texts have the same.
    """
    model = BagOfWords().fit(list(train["text"]), list(train["label"]), num_labels=len(label_names))
    probabilities = model.predict_probabilities(list(test["text"]))
    labels = list(test["label"])
    return measure(probabilities, labels, SINGLE_LABEL, label_names, num_resamples)
