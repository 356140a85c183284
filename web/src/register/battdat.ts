// Uploads a file of battery-data-toolkit: the hub reads it and tells how far it is stored.
import { Refusal, request, sendWithProgress } from "../api";
import { fill, h, setText } from "../dom";
import { bytes, count } from "../format";

/** What a line of the answer may tell. */
interface Line {
  rows?: number;
  columns?: Record<string, unknown>;
  metadata?: Record<string, unknown> | null;
  notes?: string[];
  stored?: number;
  rejected?: number;
  first_rejection?: string | null;
  problem?: { status: number; detail: string; field?: string };
}

const JSON_TYPE = { "Content-Type": "application/json" };

export async function uploadBattdat(battery: string, prefix: string, file: File, bar: HTMLProgressElement, said: HTMLElement): Promise<void> {
  const path = `/db/${encodeURIComponent(battery)}`;
  const query = prefix ? `?prefix=${encodeURIComponent(prefix)}` : "";
  const sent = (at: number, total: number) => {
    bar.max = total;
    bar.value = at;
    setText(said, at < total ? `${bytes(at)} of ${bytes(total)} sent` : "The hub reads the file …");
  };
  const stored = (text: string) => showStored(lines(text.slice(0, text.lastIndexOf("\n") + 1)), bar, said);
  const answer = await sendWithProgress("POST", `/db/upload/${encodeURIComponent(battery)}/battdat${query}`, file, { "Content-Type": "application/x-hdf5" }, sent, stored);
  const told = lines(answer.text);
  const [head, end] = [told[0] ?? {}, told[told.length - 1] ?? {}];
  if (end.problem) throw new Refusal(end.problem.status, end.problem.detail, end.problem.field ?? null);
  if (end.rejected === undefined) throw new Refusal(0, "The hub went away before all rows were stored.");
  bar.value = bar.max;
  const kept = await keepWhatTheFileSays(path, head);
  const lost = end.rejected ? ` ${count(end.rejected)} rows did not fit and are kept apart: ${end.first_rejection ?? ""}` : "";
  const link = h("a", { href: `/dashboard/${encodeURIComponent(battery)}` }, "Look at the battery");
  const notes = [...(head.notes ?? []), ...(end.notes ?? [])].map((note) => h("span", { class: "soft" }, ` ${note}.`));
  fill(said, `${count(end.stored)} rows stored.${lost}${kept} `, link, ...notes);
}

function lines(text: string): Line[] {
  return text.split("\n").flatMap((line) => (line ? [JSON.parse(line) as Line] : []));
}

function showStored(told: Line[], bar: HTMLProgressElement, said: HTMLElement): void {
  const rows = told[0]?.rows;
  if (rows === undefined) return;
  const stored = told[told.length - 1]!.stored ?? 0;
  bar.max = rows || 1;
  bar.value = stored;
  setText(said, `${count(stored)} of ${count(rows)} rows stored`);
}

/** Offers units of the columns, and the metadata where the battery has none; told where it was taken. */
async function keepWhatTheFileSays(path: string, head: Line): Promise<string> {
  if (Object.keys(head.columns ?? {}).length > 0) {
    await request(`${path}/columns?offered=true`, { method: "PATCH", body: JSON.stringify(head.columns), headers: JSON_TYPE });
  }
  if (!head.metadata || (await hasMetadata(path))) return "";
  await request(`${path}/metadata`, { method: "PUT", body: JSON.stringify(head.metadata), headers: JSON_TYPE });
  return " The file's metadata is kept, too.";
}

async function hasMetadata(path: string): Promise<boolean> {
  try {
    await request(`${path}/metadata`);
    return true;
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return false;
    throw error;
  }
}
