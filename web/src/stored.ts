// The newest row and estimate of a battery as the hub stored them, for when nothing is live.
import { Refusal, getJson } from "./api";
import type { Live } from "./live";

interface Stored {
  epoch: number;
  seq: number[];
  received: (number | null)[];
  columns: Record<string, unknown[]>;
}

const TRUST = ["healthy", "suspect", "diverged"];

/** Returns null where there is no row. What estimators are doing now nobody but the twin knows. */
export async function newestStored(name: string): Promise<Live | null> {
  const path = `/db/${encodeURIComponent(name)}`;
  const [rows, estimates] = await Promise.all([newest(`${path}/rows`), newest(`${path}/estimates`)]);
  if (!rows) return null;
  const row = (column: string) => cell(rows, column);
  const estimate = (column: string) => (estimates ? cell(estimates, column) : null);
  return {
    timestamp: (rows.received[0] ?? 0) / 1000,
    epoch: rows.epoch,
    seq: rows.seq[0]!,
    voltage: row("voltage"),
    current: row("current"),
    temperature: row("temperature"),
    state_of_charge: estimate("soc"),
    state_of_charge__std: estimate("soc__std"),
    state_of_health: estimate("state_of_health"),
    state_of_health__std: estimate("state_of_health__std"),
    estimator_phase: null,
    estimator_error: null,
    estimator_trust: TRUST[estimate("trust") ?? -1] ?? null,
  };
}

async function newest(path: string): Promise<Stored | null> {
  try {
    const page = await getJson<Stored>(`${path}?limit=1&order=desc`);
    return page.seq.length > 0 ? page : null;
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return null;
    throw error;
  }
}

function cell(page: Stored, column: string): number | null {
  const value = page.columns[column]?.[0];
  return typeof value === "number" ? value : null;
}
