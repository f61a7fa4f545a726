"""Sample input made on the spot: chest phantoms as DX and CR objects, their labels, and a folder that holds them.

Everything follows from a seed and nothing is downloaded. No person, institution or physician named here exists.
Nothing outside this package may depend on how a phantom is drawn, and no product step runs on a phantom differently
than on a hospital's object.
"""
