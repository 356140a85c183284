// A place to drop files on, or to choose them by.
import { h } from "../dom";

export function dropZone(text: string, accept: string, isMany: boolean, take: (files: File[]) => void): HTMLElement {
  const input = h("input", { type: "file", accept, multiple: isMany, class: "hidden" });
  const zone = h("label", { class: "drop" }, text, input);
  zone.style.display = "block";
  zone.style.cursor = "pointer";
  input.addEventListener("change", () => {
    if (input.files?.length) take([...input.files]);
    input.value = "";
  });
  input.addEventListener("focus", () => zone.setAttribute("data-over", ""));
  input.addEventListener("blur", () => zone.removeAttribute("data-over"));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.setAttribute("data-over", "");
  });
  zone.addEventListener("dragleave", () => zone.removeAttribute("data-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.removeAttribute("data-over");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) take(isMany ? files : files.slice(0, 1));
  });
  return zone;
}
