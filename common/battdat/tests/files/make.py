"""Makes the files beside it (python3 make.py; h5py 3, PyTables 3.11).

big_endian.h5: numbers in big-endian order, a long double, a boolean enumeration, a two-dimensional
array column, attributes of variable length.
blosc.h5: rows compressed with blosc, a filter that plain HDF5 lacks.
"""

from pathlib import Path

import h5py
import numpy as np
import tables

HERE = Path(__file__).parent

ROWS = np.array(
    [
        (0, 0.5, 3.5, 1.25, b"charging", True, 2**63, [[1, 2], [3, 4]]),
        (-2, 1.5, 4.25, np.nan, "µ".encode(), False, 7, [[-1, -2], [-3, -4]]),
    ],
    dtype=[
        ("cycle_number", ">i4"),
        ("test_time", ">f8"),
        ("voltage", ">f4"),
        ("precise", np.longdouble),
        ("state", "S8"),
        ("flag", "?"),
        ("large", ">u8"),
        ("matrix", ">i2", (2, 2)),
    ],
)

with h5py.File(HERE / "big_endian.h5", "w") as file:
    file.attrs["metadata"] = "{}"
    table = file.create_dataset("raw_data", data=ROWS)
    table.attrs["metadata"] = '{"extra_columns": {}, "voltage": {"units": "V"}}'

with tables.open_file(HERE / "blosc.h5", "w", filters=tables.Filters(5, "blosc")) as file:
    table = file.create_table("/", "raw_data", obj=np.zeros(2, [("voltage", "f8")]), chunkshape=(2,))
    table.attrs.metadata = '{"extra_columns": {}}'
    file.root._v_attrs.metadata = "{}"
