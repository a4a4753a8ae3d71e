"""Ramp lets the radius of attacks grow over the first part of a training."""

from dataclasses import dataclass

from sklearn_acs.training.course import Course


@dataclass
class Ramp:
    """Lets the radius of attacks grow evenly from 0 to its full size, which keeps training from ending at one class.

    Attributes
    ----------
    share : float
        Share of the training after which the radius is full, in [0, 1]; 0 begins with the full one.
    course : Course
        Tells how far the training has come.
    """

    share: float
    course: Course

    @property
    def factor(self) -> float:
        """The radius of this step, in full ones."""
        progress = self.course.progress
        return progress / self.share if progress < self.share else 1.0
