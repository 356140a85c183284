// Registers an estimator: a document by form or as text, or a Python script with its files.
import { Refusal, explain, getJson, sendWithProgress } from "../api";
import { fill, h, setText } from "../dom";
import { bytes } from "../format";
import { dropZone } from "./drop";
import { labelled } from "./field";
import { SchemaForm } from "./schema_form";
import { example } from "./schema";
import type { Fields, Schema } from "./schema";

export function estimatorSection(battery: HTMLInputElement): HTMLElement {
  const section = h("section", { class: "card", id: "estimator" });
  void build(section, battery);
  return section;
}

async function build(section: HTMLElement, battery: HTMLInputElement): Promise<void> {
  fill(section, h("h2", {}, "Estimator"), h("p", { class: "soft" }, "Asking for its schema …"));
  let schema: Schema;
  try {
    schema = await getJson<Schema>("/online/schema");
  } catch (error) {
    fill(section, h("h2", {}, "Estimator"), h("p", { class: "note warn" }, `Nothing can be registered now: ${explain(error)}`));
    setTimeout(() => void build(section, battery), 5000);
    return;
  }
  new EstimatorForm(section, schema, battery);
}

class EstimatorForm {
  private readonly text = h("textarea", { class: "code", "aria-label": "Document or script", spellcheck: "false" });
  private readonly form: SchemaForm;
  private readonly byForm = tab("Form");
  private readonly byText = tab("Text");
  private readonly name = h("input", { id: "estimator-name", value: "default" });
  private readonly validFrom = h("input", { id: "valid-from", value: "0", inputmode: "decimal" });
  private readonly required = h("input", { id: "required-time", inputmode: "decimal", placeholder: "none" });
  private readonly attached = h("p", { class: "soft" });
  private readonly answer = h("p", { class: "note", role: "status", hidden: true });
  private readonly send = h("button", { type: "submit", class: "main" }, "Register");
  private files: File[] = [];

  constructor(
    section: HTMLElement,
    schema: Schema,
    private readonly battery: HTMLInputElement,
  ) {
    this.form = new SchemaForm(schema, example(), () => this.writeText());
    this.byForm.addEventListener("click", () => this.show(true));
    this.byText.addEventListener("click", () => this.show(false));
    const zone = dropZone("Drop a document (.json), or a script (.py) with its files, or choose them", ".json,.py,*", true, (files) => void this.take(files));
    const body = h(
      "form",
      {},
      zone,
      this.attached,
      labelled("Name", this.name, "Several estimators of a battery have different names."),
      labelled("Valid from", this.validFrom, "Rows with test_time below this are not used. Unit: s."),
      labelled("Required time", this.required, "How long rows are gathered before it starts, for scripts and for initialise. Unit: s."),
      h("div", { class: "bar" }, h("span", { class: "group", role: "group", "aria-label": "Edit the document by" }, this.byForm, this.byText)),
      this.form.element,
      this.text,
      h("div", { class: "bar" }, this.send),
      this.answer,
    );
    body.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.register();
    });
    fill(section, h("h2", {}, "Estimator"), body);
    this.writeText();
    this.show(true);
  }

  private writeText(): void {
    this.text.value = JSON.stringify(this.form.document, null, 2);
  }

  private show(byForm: boolean): void {
    if (byForm && !this.readText()) return;
    this.form.element.hidden = !byForm;
    this.text.hidden = byForm;
    this.byForm.setAttribute("aria-pressed", String(byForm));
    this.byText.setAttribute("aria-pressed", String(!byForm));
  }

  /** Takes what was typed as text into the form. */
  private readText(): boolean {
    try {
      this.form.show(JSON.parse(this.text.value) as Fields);
      this.say("");
      return true;
    } catch (error) {
      this.say(`The text is no JSON document, so there is no form for it: ${explain(error)}`, "warn");
      return false;
    }
  }

  private async take(files: File[]): Promise<void> {
    const main = files.find((file) => file.name.endsWith(".py")) ?? files.find((file) => file.name.endsWith(".json"));
    if (!main) {
      this.files = [...this.files, ...files];
    } else {
      this.text.value = await main.text();
      this.files = files.filter((file) => file !== main);
      const isScript = main.name.endsWith(".py");
      this.byForm.disabled = isScript;
      this.show(!isScript);
    }
    const names = this.files.map((file) => `${file.name} (${bytes(file.size)})`).join(", ");
    setText(this.attached, [main && `read ${main.name}`, names && `attached: ${names}`].filter(Boolean).join("; "));
  }

  private async register(): Promise<void> {
    if (this.battery.value.trim() === "") {
      this.say("Say above which battery it is for.", "bad");
      return this.battery.focus();
    }
    const form = new FormData();
    form.set("name", this.battery.value.trim());
    form.set("definition", this.text.value);
    form.set("estimator", this.name.value.trim() || "default");
    form.set("valid_from", this.validFrom.value.trim() || "0");
    if (this.required.value.trim()) form.set("required_time", this.required.value.trim());
    for (const file of this.files) form.append("files", file, file.name);
    this.send.disabled = true;
    this.say("Sending …");
    try {
      const progress = (sent: number, total: number) => this.say(`Sending ${bytes(sent)} of ${bytes(total)} …`);
      const answer = await sendWithProgress("POST", "/online/register", form, {}, progress);
      this.say("");
      const link = h("a", { href: `/dashboard/${encodeURIComponent(this.battery.value.trim())}` }, "Look at the battery");
      fill(this.answer, String(JSON.parse(answer.text)), " ", link);
      this.answer.className = "note";
      this.answer.hidden = false;
    } catch (error) {
      this.refuse(error);
    } finally {
      this.send.disabled = false;
    }
  }

  private refuse(error: unknown): void {
    this.say(explain(error), "bad");
    const field = error instanceof Refusal ? error.field : null;
    if (field === "name") this.battery.focus();
    const path = field?.startsWith("definition.") ? field.slice("definition.".length) : null;
    if (path && !this.form.element.hidden) this.form.mark(path, explain(error));
  }

  private say(text: string, level = ""): void {
    this.answer.className = `note ${level}`;
    this.answer.hidden = text === "";
    setText(this.answer, text);
  }
}

function tab(text: string): HTMLButtonElement {
  return h("button", { type: "button" }, text);
}
