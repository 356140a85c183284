// Registers metadata: the document of battery-data-toolkit, by file or as text.
import { Refusal, explain, request } from "../api";
import { fill, h, setText } from "../dom";
import { dropZone } from "./drop";

export function metadataSection(battery: HTMLInputElement): HTMLElement {
  const text = h("textarea", { class: "code", "aria-label": "Metadata as JSON", spellcheck: "false" });
  text.style.minHeight = "8rem";
  text.placeholder = '{"name": "cell-7", "battery": {"cathode": {"name": "NMC532"}, "nominal_capacity": 2.5}}';
  const answer = h("p", { class: "note", role: "status", hidden: true });
  const say = (words: string, level = "") => {
    answer.className = `note ${level}`;
    answer.hidden = words === "";
    setText(answer, words);
  };
  const zone = dropZone("Drop a metadata document (.json), or choose one", ".json", false, (files) => {
    void files[0]!.text().then((read) => (text.value = read));
  });
  const form = h("form", {}, zone, h("p", {}), text, h("div", { class: "bar" }, h("button", { type: "submit", class: "main" }, "Save metadata")), answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  const send = async () => {
    try {
      const document = read(text.value);
      document.name ??= battery.value.trim() || undefined;
      const body = JSON.stringify(document);
      const reply = await request("/db/register", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      const name = (await reply.json()) as string;
      battery.value = name;
      say("");
      fill(answer, "Saved for ", h("a", { href: `/dashboard/${encodeURIComponent(name)}` }, name), ".");
      answer.hidden = false;
    } catch (error) {
      const where = error instanceof Refusal && error.field ? `${error.field}: ` : "";
      say(where + explain(error), "bad");
    }
  };
  return h("section", { class: "card", id: "metadata" }, h("h2", {}, "Metadata"), form);
}

function read(text: string): Record<string, unknown> {
  if (text.trim() === "") throw new Error("Drop a document above, or write one.");
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new Error(`The text is no JSON document: ${explain(error)}`);
  }
}
