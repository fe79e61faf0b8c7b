"""What is known of a model in closed form, computed from a network's raw inputs: features for its layers, and a leading
term that they only add to."""

from lanline.networks.structure.structure import Structure, structure_of

__all__ = ["Structure", "structure_of"]
