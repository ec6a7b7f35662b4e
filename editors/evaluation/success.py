"""Edit success and drawdown, probe by probe (Mitchell et al. 2022, sec. 5.1, Eqs. 4 and 5)."""

from __future__ import annotations

from editors.evaluation.cases import COMPOSED, ENTAILED
from editors.evaluation.records import GENERATED, Mode, Record
from editors.evaluation.text import answers


def succeeded(record: Record, mode: Mode) -> bool | None:
    """Whether an in-scope probe got its target: 1{f_e(x) = y}, whose mean is ES (Eq. 4).

    Generated, the text gives the target as its answer, see `editors.evaluation.text.answers`. Teacher-forced, every
    token of the target is the likeliest in its place, as in the authors' code.

    Returns:
        None where the probe is out of scope, has no target (an edit of mood), or was not asked.
    """
    if not record.in_scope or record.target is None:
        return None
    if mode == GENERATED:
        return None if record.after is None else answers(record.after, record.target)
    return None if record.target_after is None else record.target_after.exact


def disagreed(record: Record, mode: Mode) -> bool | None:
    """Whether the answer to an out-of-scope probe is not the base's: 1{f_e(x) != f_base(x)}, whose mean is DD (Eq. 5).

    It does not matter which of the two is right. Generated, the texts differ in any character: what an edit leaves
    alone is the same to the last one. Teacher-forced, some token of the base's own greedy answer is no longer the
    likeliest in its place. The authors' code compares the likeliest tokens of both models along the data set's label
    instead; along the base's answer the base agrees with itself by construction, so one pass of the edited model
    decides, and data without labels can be measured. What comes after that answer is not seen: an edited model that
    goes on where the base stopped disagrees only when generating.

    Returns:
        None where the probe is in scope or was not asked.
    """
    if record.in_scope:
        return None
    if mode == GENERATED:
        return None if record.before is None or record.after is None else record.before != record.after
    return None if record.kept is None else not record.kept.exact


def carried_over(record: Record, mode: Mode) -> bool | None:
    """Whether what follows from an edit follows: `succeeded` on entailed and composed probes; the mean is portability.

    Yao et al. 2023, sec. 5: accuracy on questions that take a further step from the edit, reverse it or rename its
    subject.

    Returns:
        None where `succeeded` says so, and on probes of other forms.
    """
    return succeeded(record, mode) if record.form in {COMPOSED, ENTAILED} else None
