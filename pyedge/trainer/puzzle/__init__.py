"""The Second Chance: a training run whose exact end is known, solved in three ways.

X [32, 128], the same at every step, → W1 [256, 128] → ReLU → W2 [2²², 256], no biases; softmax
cross-entropy; SGD with learning rate 0.1 and nothing else. The labels of step t are 32t … 32t + 31:
after 2¹⁷ steps every class was seen once. Every row of W1 and of W2 begins as digits of π over ten
(0.3 0.1 0.4 …), X is digits of e over ten (0.2 0.7 0.1 …). Wanted: W1 in the end, to one decimal.

    python -m pyedge.trainer.puzzle collapsed [--reduction mean]
    python -m pyedge.trainer.puzzle sharded --classes 1024 --ranks 2 --dtype float64
    python -m pyedge.trainer.puzzle bars

- `sharded`: the network in full, the classes and the batch split over ranks, by `ShardedHead`.
- `growing`: the network with a row of W2 for each class seen and one for all others.
- `collapsed`: a recursion in 128 numbers and one for each group of equal classes; its derivation
  is in the module. It is what the other two are held against.

The source does not say whether the loss of a batch is the sum or the mean over its 32 samples; with
plain SGD the mean is a learning rate 32 times lower, and another answer:

- Summed, every ReLU is dead after two steps, and W1 is π/10 − 0.01·max_s(x_s·π/10)·Σ_s x_s
  whatever the number of classes: −4.6 −4.4 −3.3 −4.1 …, every entry between −5.7 and −2.6.
- Averaged, the ReLUs die one by one, the last at step 59,352 of 131,072; W1 ends at
  −0.3 −0.4 0.0 −0.3 …, every entry between −0.6 and 0.5. With fewer classes it ends elsewhere.

With the mean, the first hundred steps are chaotic: a class that leads takes all of the softmax, and
the smallest difference decides which. A rounding error of float64 grows to about 1e-9 in W1 and
shrinks again; that of the rows of W2 in float32 to 1.4e-6, of which 5e-7 are left after a hundred
steps. The summed W1, whose entries go to 5.7, is 4e-7 off when W2 is in float32.
"""

from pyedge.trainer.puzzle.collapsed import collapsed
from pyedge.trainer.puzzle.compare import Comparison, compare
from pyedge.trainer.puzzle.growing import growing
from pyedge.trainer.puzzle.problem import Puzzle, Step
from pyedge.trainer.puzzle.sharded import sharded

__all__ = [
    "Comparison",
    "Puzzle",
    "Step",
    "collapsed",
    "compare",
    "growing",
    "sharded",
]
