"""What `epsbench.evaluate` returns: accuracies with intervals, findings, one row an image, the images. No torch."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epsbench.harness.by_class import by_class
from epsbench.harness.by_class import lines as lines_by_class
from epsbench.harness.errors import InputError
from epsbench.harness.findings import Finding
from epsbench.harness.kept_images import PerImage
from epsbench.harness.latex import escape
from epsbench.harness.plan.data.budget import budget
from epsbench.harness.plan.epsilon import parse_epsilon
from epsbench.harness.records import Record, images_path, unpack_bits
from epsbench.harness.records.tables import varying_by_name
from epsbench.harness.saved_images import save_images
from epsbench.harness.share import Share

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Point:
    """One attack at one ε: a record, and what was kept of each image."""

    record: Record
    """As in a results folder."""

    per_image: PerImage
    """``images`` (n, C, H, W), ``labels``, ``clean_class``, ``adversarial_class``, ``distance``, … (n,)."""

    telling: tuple[str, ...] = ()
    """The attack's parameters that tell it from the others of its evaluation."""

    @property
    def attack(self) -> str:
        """The attack's name, with its parameters where another attack of the evaluation has the same name."""
        attack = self.record.cell["attack"]
        shown = ", ".join(f"{key}={attack[key]}" for key in self.telling if key in attack)
        return f"{attack['name']}({shown})" if shown else str(attack["name"])

    @property
    def norm(self) -> str:
        """The norm's name."""
        return str(self.record.cell["norm"])

    @property
    def eps(self) -> str:
        """ε as a suite writes it, such as ``"8/255"``."""
        return str(self.record.cell["eps"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called; empty where that is not known."""
        return tuple(map(str, self.record.evaluation.get("class_names", ())))

    @property
    def void(self) -> bool:
        """Whether a finding says that the numbers mean nothing."""
        return self.record.status == "void"

    @property
    def images(self) -> np.ndarray:
        """The adversarial images (n, C, H, W), float32 in [0, 1]; an image that is wrong anyway is as it was."""
        return np.array(self.per_image["images"])

    @property
    def robust(self) -> np.ndarray:
        """Whether each image is classified correctly without and under the attack, (n,)."""
        assert self.record.verdicts is not None
        return self.record.verdicts.unpack()[1]

    @property
    def right(self) -> np.ndarray:
        """Whether each image is classified correctly without the attack, (n,)."""
        assert self.record.verdicts is not None
        return self.record.verdicts.unpack()[0]

    @property
    def distances(self) -> np.ndarray | None:
        """The smallest distance of each image in the norm, whatever ε, (n,); None for an attack within one ε.

        0 where the image is wrong without an attack, ∞ where no adversarial image was reached.
        """
        return None if self.record.distances is None else self.record.distances.unpack()

    @property
    def robust_accuracy(self) -> Share:
        """The share of images that are right without and under the attack."""
        return Share.of(self.robust, self.void)

    def __str__(self) -> str:
        return f"robust accuracy {self.robust_accuracy} under {self.attack} {self.norm} ε {self.eps}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def fooled_by(self) -> np.ndarray:
        """The part of the attack that fooled each image (n,); empty text where none did."""
        names = np.full(len(self.robust), "", dtype=object)
        names[self.right & ~self.robust] = self.attack
        for part in self.record.parts:
            names[unpack_bits(part.fooled, len(names))] = part.name
        return names

    def frame(self) -> pd.DataFrame:
        """One row an image. Where the names of the classes are known, they are in columns of their own."""
        import pandas as pd

        columns: dict[str, Any] = {
            "attack": self.attack,
            "norm": self.norm,
            "eps": float(parse_epsilon(self.eps, math.inf)),
        }
        kept = {key: value for key, value in self.per_image.small().items() if key not in ("eps", "labels")}
        table: dict[str, Any] = {"label": self.per_image["labels"], **kept}
        table |= {"robust": self.robust, "fooled_by": self.fooled_by()}
        table |= {} if self.distances is None else {"smallest_distance": self.distances}
        names = self.class_names
        for column in ("label", "clean_class", "adversarial_class") if names else ():
            called = [names[i] if i < len(names) else str(i) for i in table[column]]
            table[f"{column}_name"] = np.array(called, dtype=object)
        frame = pd.DataFrame(table)
        for place, (name, value) in enumerate(columns.items()):
            frame.insert(place, name, value)
        return frame.rename_axis("image")


@dataclass(frozen=True)
class Evaluation:
    """The robustness of one model against one or several attacks and ε.

    ``print(result)`` and a notebook show it with its findings. A number that means nothing is NaN and shown as void.
    """

    points: tuple[Point, ...]
    """One for each attack, norm and ε, in the order in which they were given."""

    class_names: tuple[str, ...] = ()
    """What the classes are called, where that is known."""

    @property
    def clean_accuracy(self) -> Share:
        """The share of images that are classified correctly without an attack."""
        return Share.of(self.points[0].right, all(point.void for point in self.points))

    @property
    def robust_accuracy(self) -> Share:
        """The share of images that are classified correctly under every attack and ε evaluated, and without one."""
        return Share.of(self._robust, any(point.void for point in self.points))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the audits found, each remark once."""
        findings = (each for point in self.points for each in point.record.findings)
        return tuple({(each.code, each.message): each for each in findings}.values())

    @property
    def records(self) -> list[Record]:
        """The records, as in a results folder."""
        return [point.record for point in self.points]

    @property
    def images(self) -> np.ndarray:
        """The adversarial images (n, C, H, W), float32 in [0, 1]. An image that is wrong anyway is as it was.

        Of several attacks and ε: for each image the first that fools, in their order; else that of the last.
        """
        images = self.points[-1].images
        for point in reversed(self.points[:-1]):
            fooled, at = point.per_image["fooled"], 0
            for part in point.per_image.parts():
                here = fooled[at : at + len(part)]
                images[at : at + len(part)][here] = part[here]
                at += len(part)
        return images

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __getitem__(self, index: int) -> Point:
        return self.points[index]

    def frame(self) -> pd.DataFrame:
        """One row an image, attack and ε: label, clean and adversarial class, distance, loss, who fooled it."""
        import pandas as pd

        return pd.concat([point.frame() for point in self.points])

    def table(self) -> pd.DataFrame:
        """One row an attack, norm and ε: clean and robust accuracy with intervals."""
        import pandas as pd

        rows = [
            {"attack": p.attack, "norm": p.norm, "eps": p.eps, "clean": self.clean_accuracy,
             "robust": p.robust_accuracy, "low": p.robust_accuracy.low, "high": p.robust_accuracy.high}
            for p in self.points
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def confusion(self, index: int = -1) -> pd.DataFrame:
        """How many images of each class (rows) are given each class (columns) under the attack of a point."""
        import pandas as pd

        packed = self.points[index].record.predictions
        assert packed is not None  # `epsbench.evaluate` has just measured it
        answers = packed.unpack()
        names = self._names()
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, (answers.labels, answers.adversarial), 1)
        return pd.DataFrame(counts, pd.Index(names, name="label"), pd.Index(names, name="adversarial class"))

    def by_class(self) -> pd.DataFrame:
        """One row a class that has images: how many, clean accuracy, and robust accuracy under all attacks and ε.

        With 95 % intervals; what a finding makes void is NaN.
        """
        table = by_class(*self._verdicts(), self._names())
        for share, columns in ((self.clean_accuracy, "clean"), (self.robust_accuracy, "robust")):
            if math.isnan(share):
                table.loc[:, [columns, f"{columns}_low", f"{columns}_high"]] = math.nan
        return table

    def _names(self) -> list[object]:
        """What the classes are called, else their numbers, (K,)."""
        packed = self.points[0].record.predictions
        assert packed is not None  # `epsbench.evaluate` has just measured it
        return list(self.class_names if len(self.class_names) >= packed.classes else range(packed.classes))

    def _verdicts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The labels, and whether each image is right without and under every attack, all (n,)."""
        return np.array(self.points[0].per_image["labels"]), self.points[0].right, self._robust

    @property
    def _robust(self) -> np.ndarray:
        """Whether each image is right under every attack and ε, and without one, (n,)."""
        return np.logical_and.reduce([point.robust for point in self.points])

    def to_latex(self, model: str = "") -> str:
        """A table for a paper, with booktabs: accuracies in percent, and half the width of their 95 % intervals."""
        name = escape(model or str(self.points[0].record.cell["model"]["name"]))
        heads, values = ["Model", "Clean"], [name, self.clean_accuracy.latex()]
        for point in self.points:
            last = escape(f"{point.attack} {point.norm} {point.eps}")
            for part in point.record.parts[:-1]:
                heads.append(escape(part.name))
                low, high = part.robust_accuracy.low or 0.0, part.robust_accuracy.high or 1.0
                n = part.robust_accuracy.n or 0
                values.append("void" if point.void else Share(part.robust_accuracy.value, low, high, n).latex())
            heads.append(last)
            values.append(point.robust_accuracy.latex())
        rows = [f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", "\\toprule", f"{' & '.join(heads)} \\\\",
                "\\midrule", f"{' & '.join(values)} \\\\", "\\bottomrule", "\\end{tabular}"]  # fmt: skip
        return "\n".join(rows)

    def save_images(self, path: str | Path) -> None:
        """Write images, labels, predictions and ε as ``.npz``; of several attacks and ε one archive for each."""
        save_images(self.points, Path(path))

    def __str__(self) -> str:
        lines = [f"clean accuracy   {self.clean_accuracy}  of {self.clean_accuracy.n:,} images"]
        lines += [f"robust accuracy  {p.robust_accuracy}  {p.attack} {p.norm} ε {p.eps}" for p in self.points]
        if len(self.points) > 1:
            lines.append(f"robust accuracy  {self.robust_accuracy}  against all of them")
        if not math.isnan(self.robust_accuracy):
            lines += lines_by_class(*self._verdicts(), self._names())
        lines += [f"{each.severity:>7}  {each.code}: {each.message}" for each in self.findings]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [("without an attack", self.clean_accuracy)]
        rows += [(f"{point.attack} {point.norm} ε {point.eps}", point.robust_accuracy) for point in self.points]
        cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(v))}</td></tr>" for name, v in rows)
        remarks = "".join(
            f"<li><b>{html.escape(f'{each.severity}: {each.code}')}</b> {html.escape(each.message)}</li>"
            for each in self.findings
        )
        head = f"<tr><th>attack</th><th>accuracy on {self.clean_accuracy.n:,} images</th></tr>"
        return f"<table>{head}{cells}</table>{f'<ul>{remarks}</ul>' if remarks else ''}"


def evaluation_of(results: Path, records: Sequence[Record], class_names: tuple[str, ...] = ()) -> Evaluation:
    """The evaluation that some records of a results folder make, with their kept images.

    Raises `InputError` for a record that failed, with the message of its exception.
    """
    failed = [record for record in records if record.failure is not None]
    if failed:
        messages = [
            f"{record.cell['attack']['name']} at ε {record.cell['eps']} failed: {record.failure.text}"
            for record in failed if record.failure
        ]  # fmt: skip
        raise InputError(messages)
    apart = varying_by_name(record.cell["attack"] for record in records)
    points = (
        Point(record, _kept(results, record), tuple(sorted(apart[record.cell["attack"]["name"]]))) for record in records
    )
    return Evaluation(tuple(points), class_names)


def _kept(results: Path, record: Record) -> PerImage:
    return PerImage.read(images_path(results, record.id), budget())
