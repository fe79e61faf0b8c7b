"""How good a network is: what it is judged against, the numbers, the gate, the figures, the summary of a run."""
