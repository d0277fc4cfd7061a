"""Check the result of a task while its failure can still be attributed to it: before it is saved with others."""

from __future__ import annotations

import io
import pickle
from typing import Any

from tenant_q.conf import conf
from tenant_q.exceptions import OversizedResult, UnpicklableResult
from tenant_q.package.package import Package


class _Pickler(pickle.Pickler):
    """A pickler that notes whether a value contains more than plain values: a class, a function or an instance."""

    is_plain = True

    def reducer_override(self, value: object) -> Any:
        self.is_plain = False
        return NotImplemented


def check_result(result: object, package: Package) -> None:
    """Check that the result of a task can be saved and read again.

    The pickle of plain values is not loaded: loading it cannot fail, and would double the cost.

    Args:
        result: The value that the task returned.
        package: The package of the task, which the message of an error names.

    Raises:
        UnpicklableResult: The result cannot be pickled, or its pickle does not load.
        OversizedResult: Its pickle has more than `TENANT_Q["max_bytes"]` bytes.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    what = f"{package.func_name} returned a {type(result).__name__}"
    try:
        pickler.dump(result)
    except Exception as error:
        raise UnpicklableResult(f"{what} that cannot be pickled ({error}); return plain values.") from error
    size, limit = buffer.tell(), conf().max_bytes
    if size > limit:
        raise OversizedResult(
            f"{what} of {size} bytes, pickled, and TENANT_Q['max_bytes'] is {limit}; store it elsewhere."
        )
    if pickler.is_plain:
        return
    try:
        pickle.loads(buffer.getbuffer())
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise UnpicklableResult(f"{what} whose pickle does not load ({cause}); return plain values.") from error
