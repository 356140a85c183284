// A field with its label and a hint.
import { h } from "../dom";

export function labelled(text: string, input: HTMLElement, hint: string): HTMLElement {
  return h("div", { class: "field" }, h("label", { for: input.id }, text), input, h("span", { class: "hint" }, hint));
}
