"""Golden trajectories for `rovi-estimation`: see README.md.

An independent implementation of the joint unscented Kalman filter and of Moirae 0.3's cell model in plain NumPy:
every sigma point is drawn and weighed one by one, nothing is shared with the Rust code. The input is a current
profile made up here, fed through the same cell model with other parameters and noise from a fixed seed.
"""

import copy
import json
import math
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent


def lerp(x, y, s):
    if len(y) == 1:
        return y[0]
    x = np.linspace(0.0, 1.0, len(y)) if x is None else x
    j = min(max(int(np.searchsorted(x, s)), 1), len(y) - 1)
    return (y[j] - y[j - 1]) / (x[j] - x[j - 1]) * (s - x[j - 1]) + y[j - 1]


def curve(part, s):
    return lerp(part.get("soc_pinpoints"), part["base_values"], s)


def resistance(part, s, temperature):
    factor = math.exp(-part["temperature_dependence_factor"] * (temperature - part["reference_temperature"]))
    return curve(part, s) * factor


def solve_hysteresis(h, target, kap, d, i0, a):
    z = kap * d * (i0 + 0.5 * a * d)
    if i0 > -(a * d):
        z = -z
    return math.exp(z) * h + (1 - math.exp(z)) * target


def hysteresis(h, limit, kap, dt, i0, i1, a, linear):
    target = limit * i0
    if abs(i0) > 1e-6:
        target /= abs(i0)
    if not linear or i0 * i1 >= 0:
        return solve_hysteresis(h, target, kap, dt, i0, a)
    p = -i0 / a
    middle = solve_hysteresis(h, target, kap, p, i0, a)
    return solve_hysteresis(middle, -target, kap, dt - p, 0.0, a)


def advance_corrected(asoh, linear, x, before, after):
    """The exact solution for parameters held at the start, piece by piece of one sign of the current."""
    dt = after[0] - before[0]
    i0, i1 = before[1], after[1] if linear else before[1]
    a = (i1 - i0) / dt
    soc, has_c0 = x[0], asoh["c0"] is not None
    capacity = 3600 * asoh["q_t"]["base_values"][0]
    cut = -i0 / a if i0 * i1 < 0 else dt
    charges = [cut * (i0 + a * cut / 2), (dt - cut) * (i0 + a * (cut + dt) / 2)]
    new_soc, h, limit = soc, x[-1], curve(asoh["h0"], soc)
    for charge in charges:
        moved = (asoh["ce"] if charge > 0 else 1.0) * charge / capacity
        new_soc += moved
        h = math.copysign(limit, charge) + (h - math.copysign(limit, charge)) * math.exp(-asoh["h0"]["gamma"] * abs(moved))
    new = [new_soc] + ([x[1] + sum(charges)] if has_c0 else [])
    for k, pair in enumerate(asoh["rc_elements"]):
        tau = resistance(pair["r"], soc, before[2]) * curve(pair["c"], soc)
        # The particular solution is i0 + a (t - tau); the rest decays.
        new.append(i1 - a * tau + (x[1 + has_c0 + k] - i0 + a * tau) * math.exp(-dt / tau))
    return np.array(new + [h])


def advance(asoh, linear, x, before, after):
    """x = [soc, q0 if c0, i_rc.., hyst]; before and after = (time, current, temperature)."""
    if asoh.get("corrected"):
        return advance_corrected(asoh, linear, x, before, after)
    dt = after[0] - before[0]
    i0, i1 = before[1], after[1]
    a = (i1 - i0) / dt if linear else 0.0
    soc, has_c0 = x[0], asoh["c0"] is not None
    capacity = 3600 * asoh["q_t"]["base_values"][0]
    dq = dt * (i0 + a * dt / 2)
    eta = 1.0 if i0 < 0 else asoh["ce"]
    new = [soc + eta * (dq / capacity)]
    if has_c0:
        new.append(x[1] + dq)
    for k, pair in enumerate(asoh["rc_elements"]):
        tau = resistance(pair["r"], soc, before[2]) * curve(pair["c"], soc)
        e = math.exp(-dt / tau)
        new.append(x[1 + has_c0 + k] * e + (1 - e) * (i1 - a * tau) + a * dt)
    kap = eta * asoh["h0"]["gamma"] / capacity
    new.append(hysteresis(x[-1], curve(asoh["h0"], soc), kap, dt, i0, i1, a, linear))
    return np.array(new)


def voltage(asoh, x, now):
    soc, (_, current, temperature) = x[0], now
    ocv = asoh["ocv"]
    v = curve(ocv["ocv_ref"], soc) + (temperature - ocv["reference_temperature"]) * curve(ocv["ocv_ent"], soc)
    v += current * resistance(asoh["r0"], soc, temperature)
    at = 1
    if asoh["c0"] is not None:
        v += x[1] / curve(asoh["c0"], soc)
        at = 2
    for k, pair in enumerate(asoh["rc_elements"]):
        v += x[at + k] * resistance(pair["r"], soc, temperature)
    return v + x[-1]


def with_parameters(asoh, p):
    """Estimated here: the capacity, then every value of r0."""
    changed = copy.deepcopy(asoh)
    changed["q_t"]["base_values"] = [p[0]]
    changed["r0"]["base_values"] = list(p[1:])
    return changed


def step(document, nt, x, P, before, after, measured):
    n = len(x)
    Q = np.zeros((n, n))
    Q[:nt, :nt] = document["transient_process_noise"]
    Q[nt:, nt:] = document["asoh_process_noise"]
    L = 2 * n + 1
    A = np.zeros((L, L))
    A[:n, :n], A[n : 2 * n, n : 2 * n], A[-1, -1] = P, Q, document["sensor_noise"]
    S = np.linalg.cholesky(A)
    alpha, kappa, beta = (document["ukf"][k] for k in ("alpha_param", "kappa_param", "beta_param"))
    kappa = 3 - L if kappa == "automatic" else kappa
    c = alpha**2 * (L + kappa)
    wm = np.full(2 * L + 1, 1 / (2 * c))
    wm[0] = (c - L) / c
    wc = wm.copy()
    wc[0] += 1 - alpha**2 + beta
    centre = np.concatenate([x, np.zeros(n + 1)])
    offsets = alpha * math.sqrt(L + kappa) * S.T
    points = np.vstack([centre, centre + offsets, centre - offsets])
    linear = document["current_behavior"] == "linear"
    X, Y = [], []
    for point in points:
        asoh = with_parameters(document["asoh"], point[nt:n])
        moved = np.concatenate([advance(asoh, linear, point[:nt], before, after), point[nt:n]]) + point[n : 2 * n]
        X.append(moved)
        Y.append(voltage(with_parameters(document["asoh"], moved[nt:]), moved[:nt], after) + point[-1])
    X, Y = np.array(X), np.array(Y)
    xm, ym = wm @ X, wm @ Y
    dX, dY = X - xm, Y - ym
    Pm = (wc[:, None] * dX).T @ dX
    Pyy = wc @ (dY * dY)
    Pxy = (wc * dY) @ dX
    K = Pxy / Pyy
    return ym, Pyy, xm + K * (measured - ym), Pm - np.outer(K, K) * Pyy


def profile(rows, seed):
    """Pulses, rests and a slow swing; in mA and 0.1 s steps, so that the file holds them exactly."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.choice([-3.0, -1.5, -0.5, 0.0, 1.0, 2.0], rows // 6 + 1), 6)[:rows]
    current = np.round(levels + 0.4 * np.sin(np.arange(rows) / 7.0) * (levels != 0.0), 3)
    time = np.round(np.cumsum(rng.choice([1.0, 2.0, 5.0, 10.5], rows)), 1)
    temperature = np.round(24.0 + 6.0 * np.sin(np.arange(rows) / 40.0), 2)
    return list(zip(time, current, temperature))


def run(name, document, truth, rows, seed):
    inputs = profile(rows, seed)
    linear = document["current_behavior"] == "linear"
    initial = document["initial_transients"]
    x = [initial["soc"]] + ([initial["q0"]] if document["asoh"]["c0"] else []) + initial["i_rc"] + [initial["hyst"]]
    nt = len(x)
    first = document["initial_inputs"]
    before = (first["time"], first["current"], first["temperature"])
    truth_x, voltages = np.array(x) + np.eye(nt)[0] * 0.05, []
    rng = np.random.default_rng(seed + 1)
    for k, now in enumerate(inputs):
        if k > 0:
            truth_x = advance(truth, linear, truth_x, inputs[k - 1], now)
        voltages.append(round(voltage(truth, truth_x, now) + rng.normal(0.0, 1e-3), 5))
    asoh = document["asoh"]
    x = np.array(x + asoh["q_t"]["base_values"] + asoh["r0"]["base_values"])
    n = len(x)
    P = np.zeros((n, n))
    P[:nt, :nt], P[nt:, nt:] = document["covariance_transient"], document["covariance_asoh"]
    pairs = len(asoh["rc_elements"])
    names = ["soc"] + (["q0"] if asoh["c0"] else [])
    names += ["i_rc"] if pairs == 1 else [f"i_rc[{k}]" for k in range(pairs)]
    names += ["hyst", "q_t.base_values"]
    count = len(asoh["r0"]["base_values"])
    names += ["r0.base_values"] if count == 1 else [f"r0.base_values[{k}]" for k in range(count)]
    header = ["test_time", "current", "voltage", "temperature", "v_pred", "v_pred_var"]
    header += [f"mean[{s}]" for s in names] + [f"cov[{i}][{j}]" for i in range(n) for j in range(n)]
    lines = [",".join(header)]
    for k, (now, measured) in enumerate(zip(inputs, voltages)):
        predicted = ["", ""]
        if k > 0:
            v, variance, x, P = step(document, nt, x, P, before, now, measured)
            predicted, before = [v, variance], now
        cells = [now[0], now[1], measured, now[2], *predicted, *x, *P.ravel()]
        lines.append(",".join(c if isinstance(c, str) else repr(float(c)) for c in cells))
    document["asoh"].pop("corrected", None)
    (HERE / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (HERE / f"{name}.csv").write_text("\n".join(lines) + "\n")


def diagonal(*variances):
    return np.diag(variances).tolist()


def cell(r0, q_t, c0):
    ohm = {"temperature_dependence_factor": 0.01, "reference_temperature": 25.0, "soc_pinpoints": None}
    return {
        "updatable": ["q_t", "r0"],
        "q_t": {"updatable": ["base_values"], "base_values": [q_t]},
        "ce": 0.998,
        "ocv": {
            "ocv_ref": {
                "base_values": [2.8, 3.25, 3.45, 3.6, 3.75, 3.95, 4.2],
                "soc_pinpoints": [0.0, 0.1, 0.25, 0.45, 0.6, 0.8, 1.0],
            },
            "ocv_ent": {"base_values": [1e-4, -2e-4, 3e-4]},
            "reference_temperature": 25.0,
        },
        "r0": {"updatable": ["base_values"], "base_values": r0, **ohm},
        "c0": {"base_values": [3e5, 4e5]} if c0 else None,
        "rc_elements": [{"r": {"base_values": [0.012, 0.015], **ohm}, "c": {"base_values": [2500.0]}}],
        "h0": {"base_values": [0.02, 0.01, 0.015], "gamma": 60.0},
    }


def main():
    common = {
        "kind": "joint",
        "compat": "moirae-0.3",
        "normalize_asoh": False,
        "initial_inputs": {"time": 0.0, "current": 0.0, "temperature": 25.0},
        "sensor_noise": 1e-6,
    }
    held = common | {
        "current_behavior": "constant",
        "asoh": cell([0.03], 2.2, c0=False),
        "initial_transients": {"soc": 0.6, "i_rc": [0.0], "hyst": 0.0},
        "covariance_transient": diagonal(2.5e-3, 1e-2, 1e-6),
        "covariance_asoh": diagonal(1e-2, 2.5e-5),
        "transient_process_noise": diagonal(1e-10, 1e-6, 1e-9),
        "asoh_process_noise": [[1e-8, 1e-12], [1e-12, 1e-12]],
        "ukf": {"alpha_param": 0.5, "kappa_param": "automatic", "beta_param": 2.0},
    }
    run("joint_held_current", held, cell([0.024], 2.0, c0=False), 300, seed=11)
    ramp = common | {
        "current_behavior": "linear",
        "asoh": cell([0.03, 0.03, 0.03], 2.2, c0=True),
        "initial_transients": {"soc": 0.6, "q0": 0.0, "i_rc": [0.0], "hyst": 0.0},
        "covariance_transient": diagonal(2.5e-3, 25.0, 1e-2, 1e-6),
        "covariance_asoh": diagonal(1e-2, 2.5e-5, 2.5e-5, 2.5e-5),
        "transient_process_noise": diagonal(1e-10, 1e-6, 1e-6, 1e-9),
        "asoh_process_noise": diagonal(1e-8, 1e-12, 1e-12, 1e-12),
        "ukf": {"alpha_param": 1.0, "kappa_param": 0.0, "beta_param": 2.0},
    }
    run("joint_ramped_current", ramp, cell([0.028, 0.024, 0.026], 2.0, c0=True), 200, seed=12)
    corrected = copy.deepcopy(ramp) | {"compat": None}
    corrected["asoh"]["corrected"] = True
    true_cell = cell([0.028, 0.024, 0.026], 2.0, c0=True) | {"corrected": True}
    run("joint_corrected_physics", corrected, true_cell, 200, seed=13)


if __name__ == "__main__":
    main()
