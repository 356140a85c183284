"""Drives one estimator script: requests on file descriptor 0, replies on 1, both length-prefixed msgpack.

Runs in the interpreter of the script, so it uses the standard library alone. What the script prints goes to
standard error. The module docs of `session.rs` describe the requests.
"""
import linecache
import os
import pickle
import struct
import sys
import traceback
import types
import zlib
from array import array

SCRIPT = "estimator.py"
MODULE = "rovi_estimator_script"
MOST_ERROR_CHARACTERS = 4000
STARTED, STEPPED, REFUSED, KEPT = 0, 1, 2, 3
NAN = float("nan")


# -- msgpack, as much of it as rows need --------------------------------------------------------------------------

FORMS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
NUMBERS = {code: (struct.Struct(form).unpack_from, struct.calcsize(form)) for code, form in FORMS.items()}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# Lengths of bin, ext, fixext and str, array, map: bytes of the length itself.
LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def unpack(data, at=0):
    """Returns the value at a place and the place behind it."""
    code = data[at]
    at += 1
    if code in NUMBERS:
        read, size = NUMBERS[code]
        return read(data, at)[0], at + size
    if code < 0x80:
        return code, at
    if code >= 0xE0:
        return code - 0x100, at
    if code in CONSTANTS:
        return CONSTANTS[code], at
    if code < 0x90:
        return unpack_map(data, at, code & 0x0F)
    if code < 0xA0:
        return unpack_array(data, at, code & 0x0F)
    if code < 0xC0:
        return str(data[at:at + (code & 0x1F)], "utf-8"), at + (code & 0x1F)
    if 0xD4 <= code <= 0xD8:
        return unpack_time(data, at, 1 << (code - 0xD4))
    width = LENGTHS[code]
    length = int.from_bytes(data[at:at + width], "big")
    at += width
    if code <= 0xC6:
        return bytes(data[at:at + length]), at + length
    if code <= 0xC9:
        return unpack_time(data, at, length)
    if code <= 0xDB:
        return str(data[at:at + length], "utf-8"), at + length
    return (unpack_array if code <= 0xDD else unpack_map)(data, at, length)


def unpack_array(data, at, length):
    items = []
    for _ in range(length):
        item, at = unpack(data, at)
        items.append(item)
    return items, at


def unpack_map(data, at, length):
    items = {}
    for _ in range(length):
        key, at = unpack(data, at)
        items[key], at = unpack(data, at)
    return items, at


def unpack_time(data, at, length):
    """Returns a timestamp in seconds since 1970."""
    body = data[at + 1:at + 1 + length]
    if length == 4:
        seconds = float(int.from_bytes(body, "big"))
    elif length == 8:
        both = int.from_bytes(body, "big")
        seconds = (both & 0x3FFFFFFFF) + (both >> 34) * 1e-9
    else:
        seconds = int.from_bytes(body[4:], "big", signed=True) + int.from_bytes(body[:4], "big") * 1e-9
    return seconds, at + 1 + length


def pack(value):
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">Bq", 0xD3, value)
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
        return struct.pack(">BI", 0xDB, len(value)) + value
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, dict):
        items = (pack(key) + pack(item) for key, item in value.items())
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(items)
    return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))


# -- what scripts are given ---------------------------------------------------------------------------------------

class Inputs:
    """The conditions of a row, for estimators that are not Moirae's."""

    def __init__(self, row):
        self.time = row["test_time"]
        self.current = row["current"]
        self.temperature = row.get("temperature", 25.0)
        self.row = row


class Outputs:
    """What was measured, for estimators that are not Moirae's."""

    def __init__(self, row):
        self.terminal_voltage = row["voltage"]
        self.row = row


class Dataset:
    """The history for `perform_offline_estimation` where battery-data-toolkit is not installed."""

    def __init__(self, raw_data, metadata):
        self.raw_data = raw_data
        self.metadata = metadata


def dataset_of(history, metadata):
    try:
        import pandas
        history = pandas.DataFrame(history)
        import battdat.data
    except ImportError:
        return Dataset(history, metadata or {})
    # Older versions have a class for cells, newer ones a way to make a dataset of one.
    make = getattr(battdat.data, "CellDataset", None) or battdat.data.BatteryDataset.make_cell_dataset
    return make(raw_data=history, metadata=metadata or {})


def is_moirae(estimator):
    return any(kind.__module__.split(".")[0] == "moirae" for kind in type(estimator).__mro__)


def continue_from(estimator, inputs):
    """Makes a row the one that the next step starts from: a new test began."""
    if hasattr(estimator, "begin_segment"):
        estimator.begin_segment(inputs)
    elif is_moirae(estimator):
        from moirae.estimators.online.utils.model import convert_vals_model_to_filter
        refactored = convert_vals_model_to_filter(inputs)
        for kind, model in (("filter", "joint_model"), ("trans_filter", "cell_wrapper"), ("asoh_filter", "asoh_wrapper")):
            if hasattr(estimator, kind):
                conversion = getattr(estimator, model).control_conversion
                getattr(estimator, kind).controls = refactored.convert(conversion_operator=conversion, inverse=True)


# -- the script ---------------------------------------------------------------------------------------------------

class Driver:
    """One script, its estimator and the history that it still waits for."""

    def load(self, script, required_time, state, metadata):
        self.space = types.ModuleType(MODULE)
        self.space.__file__ = SCRIPT
        # Classes of the script are found by this name when a state is pickled or read again.
        sys.modules[MODULE] = self.space
        linecache.cache[SCRIPT] = (len(script), None, script.splitlines(True), SCRIPT)
        exec(compile(script, SCRIPT, "exec"), self.space.__dict__)
        self.metadata = metadata
        self.required_time = required_time
        self.history = self.estimator = self.replayed = None
        self.started = False
        if state is not None:
            self.estimator, self.started, self.latest = pickle.loads(zlib.decompress(state))
        elif hasattr(self.space, "make_estimator") and hasattr(self.space, "perform_offline_estimation"):
            if required_time > 0:
                self.history = []
            else:
                self.make(None)
        elif not hasattr(self.space, "estimator"):
            raise NameError("the script leaves neither a variable `estimator` nor the functions "
                            "`perform_offline_estimation` and `make_estimator`")
        elif required_time > 0:
            raise NameError("`required_time` is for scripts with the functions `perform_offline_estimation` "
                            "and `make_estimator`; this one leaves a variable `estimator`")
        else:
            self.estimator = self.space.estimator
            self.latest = None
        if self.estimator is not None:
            self.choose_inputs()
        return self.describe()

    def make(self, dataset):
        self.estimator = self.space.make_estimator(*self.space.perform_offline_estimation(dataset))
        self.latest = None
        self.choose_inputs()

    def choose_inputs(self):
        if hasattr(self.space, "row_to_inputs"):
            self.to_inputs = self.space.row_to_inputs
        elif is_moirae(self.estimator):
            from moirae.interface import row_to_inputs
            self.to_inputs = row_to_inputs
        else:
            self.to_inputs = lambda row: (Inputs(row), Outputs(row))

    def describe(self):
        if self.estimator is None:
            return {"states": [], "belief": b""}
        names = [str(name) for name in self.estimator.state_names]
        return {"states": names, "belief": self.belief(len(names)).tobytes()}

    def belief(self, states):
        """The mean and the covariance, row by row, of the newest state; empty where there is none yet."""
        state = self.latest
        if state is None:
            try:
                state = self.estimator.state
            except Exception:
                # Moirae's dual filter has none before its first step.
                return array("d")
        mean = array("d", flat(state.get_mean()))
        covariance = array("d", flat(state.get_covariance()))
        if len(mean) != states or len(covariance) != states * states:
            raise ValueError(f"{states} states are named, the mean has {len(mean)} numbers "
                             f"and the covariance {len(covariance)}")
        return mean + covariance

    def rows(self, columns, take, segment):
        picked = [{name: cells[i] for name, cells in columns.items() if cells[i] is not None} for i in take]
        if self.history is None:
            return self.step_all(picked, segment)
        for done, row in enumerate(picked):
            self.history.append((row, segment and done == 0))
            if row["test_time"] - self.history[0][0]["test_time"] >= self.required_time:
                return {"outcomes": bytes([KEPT] * (done + 1)), "offline": True}
        return {"outcomes": bytes([KEPT] * len(picked))}

    def offline(self):
        names = dict.fromkeys(name for row, _ in self.history for name in row)
        table = {name: [row.get(name) for row, _ in self.history] for name in names}
        self.make(dataset_of(table, self.metadata))
        self.replayed = 0
        return self.describe()

    def replay(self, count):
        rows = self.history[self.replayed:self.replayed + count]
        outcomes = [self.step_all([row], segment) for row, segment in rows]
        self.replayed += len(rows)
        if self.replayed == len(self.history):
            self.history = None
        kinds, values = (b"".join(one[key] for one in outcomes) for key in ("outcomes", "values"))
        refusals = [one["refusal"] for one in outcomes if one["refusal"]]
        return {"outcomes": kinds, "values": values, "refusal": refusals[-1] if refusals else None}

    def step_all(self, rows, segment):
        kinds, values, refusal = bytearray(), array("d"), None
        states = len(self.estimator.state_names)
        for at, row in enumerate(rows):
            try:
                inputs, outputs = self.to_inputs(row)
                if not self.started or (segment and at == 0):
                    if self.started:
                        continue_from(self.estimator, inputs)
                    self.started = True
                    kinds.append(STARTED)
                    continue
                shown = self.estimator.step(inputs, outputs)
                state, predicted = shown if isinstance(shown, tuple) and len(shown) == 2 else (None, None)
                self.latest = state if hasattr(state, "get_mean") else None
                values += self.belief(states) + prediction(predicted)
                kinds.append(STEPPED)
            except Exception as error:
                refusal = describe_error(error)
                kinds.append(REFUSED)
        return {"outcomes": bytes(kinds), "values": values.tobytes(), "refusal": refusal}

    def save(self):
        if self.history is not None:
            return {"why": "the history for the offline estimation is not complete"}
        try:
            state = pickle.dumps((self.estimator, self.started, self.latest), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            return {"why": f"the estimator cannot be pickled: {type(error).__name__}: {error}"}
        return {"state": zlib.compress(state, 1)}


def flat(values):
    """Returns the numbers of a list, of a list of lists, or of a numpy array."""
    if hasattr(values, "ravel"):
        return values.ravel().tolist()
    return [number for item in values for number in (item if hasattr(item, "__len__") else (item,))]


def prediction(outputs):
    """The predicted voltage and its variance; NaN where the estimator does not tell."""
    if not hasattr(outputs, "get_mean"):
        return array("d", (NAN, NAN))
    return array("d", (flat(outputs.get_mean())[0], flat(outputs.get_covariance())[0]))


def describe_error(error):
    """The traceback without the driver's own lines, which have no source."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename == "<string>":
        own = own.tb_next
    text = "".join(traceback.format_exception(type(error), error, own)).strip()
    return text if len(text) <= MOST_ERROR_CHARACTERS else "... " + text[-MOST_ERROR_CHARACTERS:]


# -- requests and replies -----------------------------------------------------------------------------------------

def serve(requests, replies):
    driver = Driver()
    while True:
        head = requests.read(4)
        if len(head) < 4:
            # Whoever started the script is gone.
            os._exit(0)
        request, _ = unpack(requests.read(int.from_bytes(head, "big")))
        try:
            reply = {"ok": getattr(driver, request.pop("do"))(**request)}
        except BaseException as error:
            reply = {"error": describe_error(error)}
        reply = pack(reply)
        replies.write(struct.pack(">I", len(reply)) + reply)
        replies.flush()


def main():
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # From here on a script that reads finds nothing, and one that prints does so to standard error.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.argv = [SCRIPT]
    sys.path.insert(0, os.getcwd())
    serve(requests, replies)


main()
