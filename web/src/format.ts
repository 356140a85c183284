// Numbers as engineers read them: few digits, aligned, with a dash for what is not known.

export const NONE = "–";

export function fixed(value: number | null | undefined, digits: number): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const text = value.toFixed(digits);
  // A true minus is as wide as a digit; -0.00 is 0.00.
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

export function percent(value: number | null | undefined, digits = 1): string {
  return value === null || value === undefined ? NONE : fixed(value * 100, digits);
}

/** Two standard deviations of a share, in percent; small ones keep a digit. */
export function spread(std: number): string {
  const percents = 200 * std;
  return percents < 0.1 ? significant(percents, 1) : fixed(percents, 1);
}

/** A number to `digits` significant ones, without an exponent between 1e-4 and 1e7. */
export function significant(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size > 6) return value.toExponential(digits - 1).replaceAll("-", "−");
  return fixed(value, Math.max(0, digits - 1 - size));
}

const grouping = new Intl.NumberFormat("en", { useGrouping: true, maximumFractionDigits: 0 });

/** Whole numbers with narrow spaces between thousands. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return grouping.format(value).replaceAll(",", "\u202f");
}

/** How long ago, or how long, in the unit that suits. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172_800) return `${(s / 3600).toFixed(s < 36_000 ? 1 : 0)} h`;
  return `${(s / 86_400).toFixed(s < 864_000 ? 1 : 0)} d`;
}

/** A time of the test, given in seconds, in all the units that it has. */
export function testTime(seconds: number): string {
  if (Math.abs(seconds) < 120) return `${Number(seconds.toFixed(3))} s`.replace("-", "−");
  const whole = Math.round(Math.abs(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const said = parts.flatMap(([number, unit]) => (number ? [`${number} ${unit}`] : []));
  return (seconds < 0 ? "−" : "") + said.join(" ");
}

/** So many rows. */
export function rowsText(rows: number): string {
  return `${count(rows)} ${rows === 1 ? "row" : "rows"}`;
}

export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${(value / 1e3).toFixed(0)} kB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(1)} MB`;
  return `${(value / 1e9).toFixed(2)} GB`;
}

/** A moment, given in milliseconds since 1970, in the reader's time. */
export function moment(ms: number): string {
  const date = new Date(ms);
  const two = (n: number) => String(n).padStart(2, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  );
}

/** JSON for reading: lists of plain values stand in one line. */
export function prettyJson(value: unknown): string {
  const plainList = /\[\s+([^[\]{}]*?)\s+\]/g;
  return JSON.stringify(value, null, 2).replace(plainList, (_, inner: string) => `[${inner.replace(/\s*\n\s*/g, " ")}]`);
}
