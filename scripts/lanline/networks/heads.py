"""What the outputs of a network mean.

The output of a lan is the log-likelihood of (rt, choice). The others give the logits of a categorical distribution:

- cpn: of the choice, given that there is a response before the time limit. One logit is the log-odds of the upper
  choice, the last one in ``spec.choices``; with more than two choices there is a logit for each.
- opn: the log-odds of an omission, that is of no response before the deadline.
- gonogo: the log-odds of no go response, where the upper choice is "go": another choice, or none before the limit.

So the categories of an opn are (response, omission) and those of a gonogo (go, no-go). A single logit u stands for the
logits (0, u) of two categories.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from lanline.networks.specification import NetworkSpec


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Log-probabilities (n, K) of the categories from logits (n,) or (n, K); finite for any finite logits."""
    logits = outputs if outputs.ndim == 2 else np.stack([np.zeros_like(outputs), outputs], axis=1)
    return log_softmax(logits, axis=1)


def exported_values(spec: NetworkSpec, outputs: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """What the exported network gives: a log-likelihood or a log-probability, in nats.

    Args:
        spec: the network.
        outputs: (n,) or (n, K).
        choice: (n,) the choice whose probability is asked for, of a cpn; ignored for other types.

    Returns:
        (n,) the output of a lan; log P(choice) of a cpn; log P(omission) of an opn; log P(no-go) of a gonogo.
    """
    if not spec.gives_probabilities:
        return outputs
    values = log_probabilities(outputs)
    if spec.network_type != "cpn":
        return values[:, 1]
    return values[np.arange(len(values)), np.searchsorted(spec.choices, choice)]
