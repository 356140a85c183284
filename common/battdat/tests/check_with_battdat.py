"""Opens a file with battery-data-toolkit and prints what it holds, as one line of JSON.

Usage: check_with_battdat.py FILE [PREFIX]

Floats are printed by `repr`, so that NaN, infinities and every bit survive; text as it is read.
"""

import json
import sys
import warnings

import numpy as np
import tables
from battdat.data import BatteryDataset

warnings.simplefilter("ignore", tables.NaturalNameWarning)


def cell(value):
    if isinstance(value, (np.ndarray, list)):
        return [cell(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return repr(float(value))


def main(path, prefix=None):
    metadata, prefixes, _ = BatteryDataset.inspect_hdf(path)
    dataset = BatteryDataset.from_hdf(path, prefix=prefix)
    found = {
        "metadata": json.loads(metadata.model_dump_json(exclude_none=True)),
        "prefixes": sorted(prefixes),
        "tables": {},
    }
    for name, frame in dataset.tables.items():
        schema = dataset.schemas[name]
        found["tables"][name] = {
            "columns": {column: [cell(value) for value in frame[column]] for column in frame},
            "units": {column: schema[column].units for column in frame if column in schema},
            "dtypes": {column: str(dtype) for column, dtype in frame.dtypes.items()},
        }
        # battdat's own check expects text where its reader gives bytes.
        text = {c: frame[c].str.decode("utf-8") for c in ("state", "method") if c in frame}
        if name == "raw_data":
            schema.validate_dataframe(frame.assign(**text))
    with tables.open_file(path) as file:
        for table in file.walk_nodes("/", "Table"):
            assert table.nrows == table.attrs.NROWS == len(table.read())
    print(json.dumps(found, ensure_ascii=True))


main(*sys.argv[1:])
