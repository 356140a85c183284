// A form made from a JSON schema: it shows every key with its description and edits one document.
import { fill, h } from "../dom";
import type { Fields, Json, Schema } from "./schema";
import { resolve, skeleton, typeOf } from "./schema";

export class SchemaForm {
  readonly element = h("div", {});

  constructor(
    private readonly root: Schema,
    public document: Fields,
    private readonly changed: () => void,
  ) {
    this.render();
  }

  show(document: Fields): void {
    this.document = document;
    this.render();
  }

  /** Marks the field that the service found wrong. */
  mark(path: string, why: string): boolean {
    let at = path;
    while (at) {
      const field = this.element.querySelector<HTMLElement>(`[data-path="${CSS.escape(at)}"]`);
      if (field) {
        const input = field.querySelector<HTMLElement>("input, select") ?? field;
        input.setAttribute("aria-invalid", "true");
        field.append(h("span", { class: "wrong", role: "alert" }, why));
        input.focus();
        return true;
      }
      at = at.includes(".") ? at.slice(0, at.lastIndexOf(".")) : "";
    }
    return false;
  }

  private render(): void {
    fill(this.element, ...this.members(this.root, this.document, ""));
  }

  private again(): void {
    this.render();
    this.changed();
  }

  private members(schema: Schema, value: Fields, path: string): Node[] {
    const required = new Set(schema.required ?? []);
    return Object.entries(schema.properties ?? {}).map(([name, inner]) => {
      const found = resolve(this.root, inner, this.document.kind);
      return this.member(found, value, name, path ? `${path}.${name}` : name, required.has(name));
    });
  }

  private member(schema: Schema, parent: Fields, name: string, path: string, isRequired: boolean): Node {
    const kind = typeOf(schema);
    const value = parent[name];
    if (kind === "object") return this.part(schema, parent, name, path, isRequired);
    if (kind === "list") return this.list(schema, parent, name, path);
    const set = (next: Json | undefined) => {
      if (next === undefined) delete parent[name];
      else parent[name] = next;
      // Which form a part has may hang on the kind.
      if (path === "kind") this.again();
      else this.changed();
    };
    const id = `field-${path}`;
    let input: HTMLElement;
    if (kind === "flags") input = flags(schema, value, set, name);
    else if (kind === "choice" || kind === "boolean") input = choice(schema, value, set, id, isRequired);
    else input = plain(kind === "number", value, set, id);
    const label = h("label", kind === "flags" ? {} : { for: id }, name, isRequired && h("span", { title: "must be given" }, " *"));
    return h("div", { class: "field", "data-path": path }, label, input, hint(schema));
  }

  private part(schema: Schema, parent: Fields, name: string, path: string, isRequired: boolean): Node {
    const value = parent[name];
    if (!isFields(value)) {
      const add = () => {
        parent[name] = skeleton(this.root, schema, this.document.kind);
        this.again();
      };
      const button = h("button", { type: "button", onclick: add }, `Add ${name}`);
      return h("div", { class: "field", "data-path": path }, button, hint(schema) ?? h("span"));
    }
    const remove = () => {
      delete parent[name];
      this.again();
    };
    const away = !isRequired && h("button", { type: "button", class: "plain soft", onclick: remove, "aria-label": `Remove ${path}` }, "remove");
    return h("fieldset", { "data-path": path }, h("legend", {}, name, " "), away, hint(schema), ...this.members(schema, value, path));
  }

  private list(schema: Schema, parent: Fields, name: string, path: string): Node {
    const items = Array.isArray(parent[name]) ? (parent[name] as Json[]) : [];
    const item = resolve(this.root, schema.items!, this.document.kind);
    const shown = items.map((value, at) => {
      const remove = () => {
        items.splice(at, 1);
        if (items.length === 0) delete parent[name];
        this.again();
      };
      const away = h("button", { type: "button", class: "plain soft", onclick: remove }, "remove");
      const members = isFields(value) ? this.members(item, value, `${path}.${at}`) : [];
      return h("fieldset", { "data-path": `${path}.${at}` }, h("legend", {}, `${name} ${at + 1} `), away, ...members);
    });
    const add = () => {
      parent[name] = [...items, skeleton(this.root, item, this.document.kind)];
      this.again();
    };
    const button = h("button", { type: "button", onclick: add }, `Add to ${name}`);
    return h("div", { "data-path": path }, ...shown, h("div", { class: "field" }, button, hint(schema) ?? h("span")));
  }
}

type Set = (next: Json | undefined) => void;

function plain(isNumber: boolean, value: Json | undefined, set: Set, id: string): HTMLElement {
  const text = value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value);
  const input = h("input", { id, value: text, inputmode: isNumber ? "decimal" : null, autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => {
    input.removeAttribute("aria-invalid");
    const typed = input.value.trim();
    if (typed === "") return set(undefined);
    const read = parse(typed);
    if (read === undefined || (isNumber && typeof read !== "number")) input.setAttribute("aria-invalid", "true");
    else set(read);
  });
  return input;
}

/** Reads a number, JSON, or numbers with commas between them. */
function parse(text: string): Json | undefined {
  for (const form of [text, `[${text}]`, JSON.stringify(text)]) {
    try {
      return JSON.parse(form) as Json;
    } catch {
      // The next form may fit.
    }
  }
  return undefined;
}

function choice(schema: Schema, value: Json | undefined, set: Set, id: string, isRequired: boolean): HTMLElement {
  const options = (schema.enum ?? [true, false]).filter((one) => one !== null);
  const select = h(
    "select",
    { id },
    !isRequired && h("option", { value: "" }, "as usual"),
    ...options.map((one) => h("option", { value: JSON.stringify(one), selected: one === value }, typeof one === "boolean" ? (one ? "yes" : "no") : String(one))),
  );
  select.addEventListener("change", () => set(select.value === "" ? undefined : (JSON.parse(select.value) as Json)));
  return select;
}

function flags(schema: Schema, value: Json | undefined, set: Set, name: string): HTMLElement {
  const chosen = new Set<Json>(Array.isArray(value) ? value : []);
  const boxes = (schema.items?.enum ?? []).map((one) => {
    const box = h("input", { type: "checkbox", checked: chosen.has(one as Json) });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(one as Json);
      else chosen.delete(one as Json);
      set([...chosen]);
    });
    return h("label", {}, box, String(one));
  });
  return h("div", { class: "checks", role: "group", "aria-label": name }, ...boxes);
}

function hint(schema: Schema): HTMLElement | null {
  const usual = schema.default === undefined || schema.default === null ? "" : ` Usual: ${typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default)}.`;
  const text = (schema.description ?? "") + usual;
  return text ? h("span", { class: "hint" }, text) : null;
}

function isFields(value: Json | undefined): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
