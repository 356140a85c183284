"""What schemathesis.sh checks besides the status."""

import json
import os

import schemathesis

# What everybody may see; common/src/auth/routes.rs says so of each.
OPEN = {"/online/schema"}


@schemathesis.check
def data_only_for_who_is_known(ctx, response, case):
    """Whoever shows no credential is answered 401, or that there is no such thing."""
    if os.environ.get("ROVI_KNOWN") or case.operation.path in OPEN:
        return
    assert response.status_code in (401, 404, 405), (
        f"{response.status_code} without a credential"
    )


@schemathesis.serializer("application/x-hdf5")
def file_of_any_bytes(ctx, value):
    """Whatever is made up for a file is sent as bytes, which are hardly ever one."""
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
