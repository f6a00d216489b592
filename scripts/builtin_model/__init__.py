"""Training and evaluation of `limner/shapes`, the text-to-image model that ships with the node."""
