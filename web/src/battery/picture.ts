// The charts in sight as one picture, for a report or a message.
import { download } from "../dom";
import { colour } from "../shell";
import type { Chart } from "./chart";

const MARGIN = 16;
const TITLE = 24;

export function savePicture(name: string, title: string, charts: Chart[]): void {
  const ratio = window.devicePixelRatio || 1;
  const drawn = charts.flatMap((chart) => {
    const canvas = chart.canvas();
    return canvas ? [{ chart, canvas }] : [];
  });
  const width = Math.max(...drawn.map(({ canvas }) => canvas.width), 400 * ratio);
  const height = drawn.reduce((sum, { canvas }) => sum + canvas.height + TITLE * ratio, (TITLE + 2 * MARGIN) * ratio);
  const picture = document.createElement("canvas");
  picture.width = width + 2 * MARGIN * ratio;
  picture.height = height;
  const pen = picture.getContext("2d")!;
  pen.fillStyle = colour("card");
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.fillStyle = colour("text");
  const write = (text: string, size: number, y: number) => {
    pen.font = `600 ${size * ratio}px system-ui, "DejaVu Sans", sans-serif`;
    pen.fillText(text, MARGIN * ratio, y);
  };
  let y = (MARGIN + TITLE / 2) * ratio;
  write(title, 14, y);
  y += MARGIN * ratio;
  for (const { chart, canvas } of drawn) {
    write(`${chart.options.title}${chart.options.unit ? `, ${chart.options.unit}` : ""}`, 12, y + 14 * ratio);
    y += TITLE * ratio;
    pen.drawImage(canvas, MARGIN * ratio, y);
    y += canvas.height;
  }
  picture.toBlob((blob) => blob && download(`${name}.png`, blob), "image/png");
}
