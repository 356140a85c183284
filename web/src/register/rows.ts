// Uploads files of rows piece by piece, so that any size passes and the bar tells what is stored.
import { explain, sendWithProgress } from "../api";
import { uploadBattdat } from "./battdat";
import { fill, h, setText } from "../dom";
import { bytes, count } from "../format";
import { dropZone } from "./drop";
import { labelled } from "./field";

/** Bytes of one request. */
const PIECE = 1 << 20;
const TYPES: Record<string, string> = {
  csv: "text/csv",
  ndjson: "application/x-ndjson",
  jsonl: "application/x-ndjson",
  json: "application/json",
  msgpack: "application/msgpack",
};

export function rowsSection(battery: HTMLInputElement): HTMLElement {
  const list = h("div", {});
  const prefix = h("input", { id: "prefix", autocomplete: "off" });
  const field = labelled("Battery in the file", prefix, "Its prefix, where an HDF5 file holds several batteries.");
  const several = h("form", { onsubmit: (event: Event) => event.preventDefault() }, field);
  const zone = dropZone("Drop files of rows: .h5 of battery-data-toolkit, .csv, .ndjson, .json or .msgpack", ".csv,.ndjson,.jsonl,.json,.msgpack,.h5,.hdf5", true, (files) => {
    void uploadAll(battery.value.trim(), prefix.value.trim(), files, list);
  });
  const note = "The first row makes the battery's table. Columns of battery-data-toolkit are test_time (s), voltage (V), current (A, positive while charging), temperature (°C).";
  return h("section", { class: "card", id: "rows" }, h("h2", {}, "Rows"), h("p", { class: "soft" }, note), zone, several, list);
}

async function uploadAll(battery: string, prefix: string, files: File[], list: HTMLElement): Promise<void> {
  for (const file of files) {
    const bar = h("progress", { max: file.size || 1, value: 0, "aria-label": `Upload of ${file.name}` });
    const said = h("p", { role: "status" });
    list.prepend(h("div", { "data-file": file.name }, h("strong", {}, file.name), bar, said));
    try {
      await upload(battery, prefix, file, bar, said);
    } catch (error) {
      said.className = "note bad";
      const again = bar.value > 0 ? " What was stored before stays; sending the file again stores nothing twice." : "";
      setText(said, explain(error).replace(/[^.]$/, "$&.") + again);
    }
  }
}

async function upload(battery: string, prefix: string, file: File, bar: HTMLProgressElement, said: HTMLElement): Promise<void> {
  if (!battery) throw new Error("Say above which battery the rows are of.");
  const ending = file.name.split(".").pop()!.toLowerCase();
  if (ending === "h5" || ending === "hdf5") {
    return uploadBattdat(battery, prefix, file, bar, said);
  }
  const type = TYPES[ending];
  if (!type) throw new Error(`.${ending} is not known; there are h5, ${Object.keys(TYPES).join(", ")}.`);
  const path = `/db/upload/${encodeURIComponent(battery)}`;
  // The same file again has the same keys, so nothing is stored twice.
  const key = `${file.name}-${file.size}-${file.lastModified}`.replaceAll(/[^\x21-\x7e]/g, "_");
  let [stored, rejected, sentBefore, number] = [0, 0, 0, 0];
  let firstRejection: string | null = null;
  for await (const piece of pieces(file, ending)) {
    const headers = { "Content-Type": type, "Idempotency-Key": `${key}-${number++}` };
    const answer = await sendWithProgress("POST", path, piece.body, headers, (sent) => {
      bar.value = Math.min(sentBefore + sent, file.size);
    });
    sentBefore += piece.size;
    bar.value = sentBefore;
    const refused = Number(answer.header("Rovi-Rows-Rejected") ?? 0);
    stored += Number(answer.text) - refused;
    rejected += refused;
    firstRejection ??= answer.header("Rovi-First-Rejection");
    setText(said, `${count(stored)} rows stored, ${bytes(sentBefore)} of ${bytes(file.size)}`);
  }
  const link = h("a", { href: `/dashboard/${encodeURIComponent(battery)}` }, "Look at the battery");
  const lost = rejected ? ` ${count(rejected)} rows did not fit and are kept apart: ${firstRejection ?? ""}` : "";
  fill(said, `${count(stored)} rows stored.${lost} `, link);
}

interface Piece {
  body: Blob;
  /** Bytes of the file that it stands for. */
  size: number;
}

/** Cuts a file between lines; CSV repeats its first line in each piece. Other forms go as a whole. */
async function* pieces(file: File, ending: string): AsyncGenerator<Piece> {
  const isLines = ending === "csv" || ending === "ndjson" || ending === "jsonl";
  if (!isLines) {
    yield { body: file, size: file.size };
    return;
  }
  let head: Blob | null = null;
  let at = 0;
  if (ending === "csv") {
    at = await lineEnd(file, 0);
    head = file.slice(0, at);
  }
  const first = at;
  while (at < file.size) {
    const end = await lineEnd(file, Math.min(at + PIECE, file.size) - 1);
    const body = file.slice(at, end);
    yield { body: head ? new Blob([head, body]) : body, size: end - at + (at === first ? first : 0) };
    at = end;
  }
}

/** Finds where the line ends that goes on at a place: the byte behind the line break. */
async function lineEnd(file: File, from: number): Promise<number> {
  let at = from;
  while (at < file.size) {
    const part = new Uint8Array(await file.slice(at, at + 65_536).arrayBuffer());
    const found = part.indexOf(10);
    if (found >= 0) return at + found + 1;
    at += part.length;
  }
  return file.size;
}
