"""The harness's words in one sentence each: the glossary of the page, and the hints on the heads of its tables."""

from __future__ import annotations

WORDS = {
    "adversarial image": "A test image with a small change, at most ε, that makes the model answer wrongly.",
    "attack": "A method that looks for adversarial images, such as PGD or AutoAttack.",
    "cell": "One measurement: a model, a way of training, an attack, a norm, an ε and a seed.",
    "calibration error": "How far confidence and accuracy are apart on average, over 15 bins of confidence.",
    "certain": "The 95 % interval of a difference lies on one side of zero.",
    "clean accuracy": "The share of test images that are classified correctly without an attack.",
    "defense": "How a classifier is trained against attacks. Undefended: plain training.",
    "ε": "The largest change that an attack may make, in pixel units: images are in [0, 1], so 8/255 is 8 grey levels.",
    "finding": "A remark of an audit: a warning, or a reason why a number is void.",
    "gradients/image": "How many gradients of the model an attack took for an image: its main cost.",
    "interval": "Where the value lies with 95 % confidence: Wilson over images, Student-t over seeds.",
    "norm": "How the size of a change is measured. L∞: the largest change of a pixel. L2: the Euclidean length.",
    "robust accuracy": "The share of test images that are classified correctly without and under an attack.",
    "seed": "The number that decides the random choices of a training and an attack.",
    "void": "Measured, but an audit shows that the number means nothing.",
    "worst case": "The share of images that are robust under every attack at that ε, image by image.",
    "bits per dimension": "How many bits a generative model needs for a pixel: lower is better.",
    "optimality": "How close an attack comes to the best of all attacks: 1 is the best, 0 finds nothing.",
    "rate and distortion": "The two parts of a VAE's bits: what its code carries, and what reconstruction still lacks.",
    "β": "The weight of the rate in a VAE's training loss.",
}
"""Word → what it means."""

HINTS = {
    "optimality": WORDS["optimality"],
    "measured at": "Whether the attack looked for the smallest distance, or was run at some ε",
    "time/image": "Seconds for an attacked image, over all ε",
    "least robust class": "The class with the lowest accuracy in the worst case over attacks",
    "most confused": "A label, and the class that its images are taken for most often under the strongest attack",
    "confused": "The share of the label's images that are taken for the other class",
    "calibration error": WORDS["calibration error"],
    "under attack": "The calibration error under the strongest attack",
    "rank": "One more than the number of models whose interval lies wholly above that of the row",
    "model": "The network",
    "clean": WORDS["clean accuracy"],
    "worst case": WORDS["worst case"],
    "defense": WORDS["defense"],
    "augmentation": "How training images are changed at random",
    "setting": "What else distinguishes the training of this model",
    "ε": WORDS["ε"],
    "attack": WORDS["attack"],
    "seed": WORDS["seed"],
    "seeds": "The seeds that the row is the mean over",
    "images/s": "Images an attack or a training works through in a second",
    "gradients/image": WORDS["gradients/image"],
    "passes/image": "Forward passes without a gradient, for an image",
    "time per image": "Relative to the fastest gradient attack on the same model",
    "of the floor": "The shortest possible time on this device, divided by the time the attack took",
    "peak memory": "The most memory in use at once",
    "batch": "Images worked on at once",
    "compile": "The time of compilation, once a model",
    "total": "The time of all cells of the line",
    "precision": "The number format of the network",
    "form": "The form of the network that was attacked",
    "device": "The hardware",
    "part": "One attack of the ensemble",
    "tried on": "The images that withstood the parts before",
    "fooled": "The images that this part fooled",
    "after it": "The share of all test images still classified correctly after this part",
    "× undefended": "Relative to the same model without a defense",
    "an epoch": "The time of one pass over the training images",
    "training": "The time of training",
    "z": "The number of latent dimensions",
    "β": WORDS["β"],
    "id": "The name of the cell's record",
    "status": "ok, failed (it raised an error) or void (its number means nothing)",
    "cell": WORDS["cell"],
    "result": "Robust accuracy, or bits per dimension of the test images",
    "finished": "When the cell was measured, UTC",
    "what": "The kind of remark",
    "why": "What the audit or the error says",
}
"""Head of a column → the hint that it shows under the pointer."""


def hint(title: str) -> str:
    """The hint on the head of a column; empty where the head says all."""
    return HINTS.get(title, "")
